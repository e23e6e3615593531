"""Scored responses and their deviations -> pairs of like scores, in which the rarer response wins.

This follows the description of ReDiPO (2026): its rule prefers, among responses of like reward, the one that adds more
diversity. No code of it was found, so what the description leaves open is decided here, and said below. Its rewriting
and filtering of samples are not part of it.
"""

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.pairs.rules import _scored_prompts, _table


def make_redipo_pairs(
    corpus: pd.DataFrame, diversity: np.ndarray, band: float = 0.25, max_pairs: int = 2, seed: int = 0
) -> pd.DataFrame:
    """Pairs among a prompt's good responses: the most diverse of them, each with one of the least diverse.

    The good responses of a prompt are those whose score is at most `band` times the range of the prompt's scores below
    its highest score. The most diverse half of them can win, the other half can lose; a response is used at most once.
    Among equals, the draw decides. Pairs of equal diversity teach nothing and are left out. Responses without a score
    are not used.

    Args:
        corpus: the table of `corpus.read_corpus`.
        diversity: (n,) floats, one per row, such as the mean of `deviation.mean_distance` over spaces.
        band: in [0, 1].
        max_pairs: the most pairs per prompt.
        seed: seed of the draw.

    Returns:
        One row per pair, as in `rules.make_pairs`; the winner's score may be the lower one.

    Raises:
        ValueError: diversities of a wrong shape, or one among them that is not finite.
        InputError: no prompt has two good responses that differ in diversity.
    """
    if np.shape(diversity) != (len(corpus),) or not np.isfinite(diversity).all():
        raise ValueError(f"diversity: expected {len(corpus)} finite numbers, got shape {np.shape(diversity)}")
    scores, ids = corpus["score"].to_numpy(), corpus["response_id"].to_numpy()
    chosen, rejected = [], []
    for rows, rng in _scored_prompts(corpus, seed):
        if len(rows) < 2:
            continue
        of = scores[rows]
        good = rows[of >= of.max() - band * (of.max() - of.min())]
        good = rng.permutation(good[np.argsort(ids[good])])
        order = good[np.argsort(-diversity[good], kind="stable")]
        number = min(max_pairs, len(order) // 2)
        for winner, loser in zip(order[:number], order[::-1][:number], strict=True):
            if diversity[winner] > diversity[loser]:
                chosen.append(winner)
                rejected.append(loser)
    if not chosen:
        raise InputError(
            "no training pair can be made: no prompt has two good responses that differ in diversity; raise `band`, or "
            "give prompts with more scored responses"
        )
    return _table(corpus, chosen, rejected)
