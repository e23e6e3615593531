"""How many weights say nothing, because the responses to a prompt are all equally far from one another."""

import numpy as np

from ddpo_lib.deviation.groups import index_groups


def describe_equal(weights: np.ndarray, groups: np.ndarray) -> str | None:
    """A sentence about the prompts of two or more responses whose weights are all equal; None if there is none.

    Two responses are as far from each other as the other way round, so both have weight 1, in any space. DDPO and DORPO
    train on such a prompt as DPO and ORPO do.

    Args:
        weights: (n,) floats, of `weighting.weights`.
        groups: (n,) integers, the prompt of each row.
    """
    inverse, sizes = index_groups(np.asarray(groups), len(groups))
    low, high = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    np.minimum.at(low, inverse, weights)
    np.maximum.at(high, inverse, weights)
    several = sizes > 1
    equal = several & (low == high)
    if not equal.any():
        return None
    pairs = int((equal & (sizes == 2)).sum())
    first = (
        f"{equal.sum()} of {several.sum()} prompts with two or more responses have equal weights, 1 each"
        f" ({pairs} of them have two responses, which are always equally far from each other)"
    )
    if equal.sum() < several.sum():
        return f"{first}; there, DDPO equals DPO and DORPO equals ORPO"
    return (
        f"{first}: every weight is 1, so DDPO equals DPO and DORPO equals ORPO. Weights need three or more different "
        "responses per prompt"
    )
