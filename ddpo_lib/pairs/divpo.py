"""What DivPO's pairs are chosen by, and what they leave out of what DDPO learns from. `pairs` makes the pairs."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ddpo_lib.data.words import words
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.groups import index_groups
from ddpo_lib.deviation.weighting import weights


def weights_within(spaces: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """DDPO's weights among a set of responses alone, for `pairs.make_divpo_pairs` (DivPO comparison, as released).

    Distances and their scale are those of the set, in every space; where the product over spaces is zero for the whole
    set, or all distances are equal, the weights are ones (`deviation.weights`).

    Args:
        spaces: arrays (n, d), one a space, a row a response of the corpus.

    Returns:
        A function: m >= 2 places of rows -> (m,) weights.
    """

    def among(rows: np.ndarray) -> np.ndarray:
        one = np.zeros(len(rows), dtype=int)
        return weights([mean_distance(vectors[rows], one) for vectors in spaces], one)

    return among


def diversity_by_words(texts: list[str], groups: np.ndarray) -> np.ndarray:
    """How rare a response's words are among the responses to its prompt (after Lanchantin et al. 2025,
    arXiv:2501.18101, word frequency).

    Mean over the different words of a response (`words.words`) of the share of the group's other responses that do
    not have the word. Saying a rare word again adds nothing; a longer response still tends to be higher.

    Args:
        texts: n responses. groups: (n,) integers, rows in any order.

    Returns:
        (n,) float64 in [0, 1]: 0 for a response whose every word is in all others, or that has no word; 1 for one that
        shares none. NaN for a response that is alone in its group.

    Raises:
        ValueError: groups of the wrong shape.
    """
    inverse, sizes = index_groups(np.asarray(groups), len(texts))
    vocabulary = [sorted(set(words(text))) for text in texts]
    using = Counter((group, word) for group, found in zip(inverse, vocabulary, strict=True) for word in found)

    def rarity(group: int, found: list[str]) -> float:
        others = sizes[group] - 1
        if others == 0:
            return np.nan
        return float(np.mean([1 - (using[group, word] - 1) / others for word in found])) if found else 0.0

    return np.array([rarity(group, found) for group, found in zip(inverse, vocabulary, strict=True)], dtype=np.float64)


def compare_use(corpus: pd.DataFrame, pairs_by_method: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What each method makes of each response.

    Args:
        corpus: the table that the pairs were made from, unfiltered: `prompt_id response_id` and more.
        pairs_by_method: a name a method -> its pairs, as from `pairs.make_pairs` and `pairs.make_divpo_pairs`.

    Returns:
        A row a response, in the order of the corpus: `prompt_id response_id`, and a column a method with "chosen",
        "rejected" or "unused".
    """
    table = corpus[["prompt_id", "response_id"]].reset_index(drop=True)
    for method, pairs in pairs_by_method.items():
        use = {**dict.fromkeys(pairs["rejected_id"], "rejected"), **dict.fromkeys(pairs["chosen_id"], "chosen")}
        table[method] = table["response_id"].map(use).fillna("unused")
    return table


def weight_by_use(use: pd.DataFrame, weight: np.ndarray, method: str, other: str) -> pd.DataFrame:
    """Where the weight that a method learns with goes under another method, prompt by prompt.

    A pair has the weight of its winner (paper, DDPO), so the mass is the weight of the method's winners.

    Args:
        use: of `compare_use`.
        weight: (n,) DDPO's weights of the rows of `use`, such as `deviation.weights`.
        method: the column whose winners have the weight, pairs by the gap rule.
        other: the column asked what it makes of them, DivPO's pairs.

    Returns:
        A row a prompt in which the method has a winner, its index: `chosen rejected unused`, the mass by what the other
        method makes of it, in units of weight (a prompt's responses sum to their number), and `dropped`, the share of
        the mass that is not its winners'. NaN there if all of the mass is zero.

    Raises:
        ValueError: weights of the wrong shape.
    """
    if np.shape(weight) != (len(use),):
        raise ValueError(f"weight: expected {len(use)} numbers, one a row of use, got {np.shape(weight)}")
    winners = use.assign(weight=np.asarray(weight))[use[method] == "chosen"]
    mass = winners.pivot_table(index="prompt_id", columns=other, values="weight", aggfunc="sum", fill_value=0.0)
    mass = mass.reindex(columns=["chosen", "rejected", "unused"], fill_value=0.0).rename_axis(columns=None)
    total = mass.sum(axis=1)
    return mass.assign(dropped=(mass["rejected"] + mass["unused"]) / total.where(total > 0))
