"""The diversities that DivPO chooses pairs by, and how much of DDPO's training signal its pairs leave out.

`rules` makes the pairs.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ddpo_lib.data.words import words
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.groups import index_groups
from ddpo_lib.deviation.weighting import weights


def weights_within(spaces: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """DDPO's weights within any set of responses, for `pairs.make_divpo_pairs` (DivPO comparison, as released).

    In every space, distances and their scale are those within the set. The weights are 1 if the product over spaces is
    zero for the whole set, or if all distances are equal (`deviation.weights`).

    Args:
        spaces: arrays (n, d), one per space, with one row per response of the corpus.

    Returns:
        A function: m >= 2 positions of rows -> (m,) weights.
    """

    def among(rows: np.ndarray) -> np.ndarray:
        one = np.zeros(len(rows), dtype=int)
        return weights([mean_distance(vectors[rows], one) for vectors in spaces], one)

    return among


def diversity_by_words(texts: list[str], groups: np.ndarray) -> np.ndarray:
    """How rare a response's words are among the responses to its prompt.

    This follows the word frequency of Lanchantin et al. 2025, arXiv:2501.18101. For each distinct word of a response
    (`words.words`), take the share of the group's other responses that do not contain it; the result is the mean over
    the words. A repeated rare word adds nothing, but longer responses still tend to have higher values.

    Args:
        texts: n responses.
        groups: (n,) integers, the group of each response, in any order.

    Returns:
        (n,) float64 in [0, 1]: 0 for a response without words or with words that are all in all other responses; 1 for
        a response that shares no word. NaN for a response that is alone in its group.

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
    """How each method uses each response.

    Args:
        corpus: the table that the pairs were made from, unfiltered: `prompt_id response_id` and more.
        pairs_by_method: name of a method -> its pairs, as from `pairs.make_pairs` and `pairs.make_divpo_pairs`.

    Returns:
        One row per response, in the order of the corpus: `prompt_id response_id`, and one column per method with
        "chosen", "rejected" or "unused".
    """
    table = corpus[["prompt_id", "response_id"]].reset_index(drop=True)
    for method, pairs in pairs_by_method.items():
        use = {**dict.fromkeys(pairs["rejected_id"], "rejected"), **dict.fromkeys(pairs["chosen_id"], "chosen")}
        table[method] = table["response_id"].map(use).fillna("unused")
    return table


def weight_by_use(use: pd.DataFrame, weight: np.ndarray, method: str, other: str) -> pd.DataFrame:
    """How another method uses the winners of a method, by their weight and prompt.

    A pair has the weight of its winner (paper, DDPO), so the mass is the weight of the method's winners.

    Args:
        use: the table of `compare_use`.
        weight: (n,) DDPO's weights of the rows of `use`, such as `deviation.weights`.
        method: the column whose winners are weighed, such as pairs by the gap rule.
        other: the column of the other method, such as DivPO's pairs.

    Returns:
        One row per prompt in which the method has a winner; the prompt is the index. `chosen rejected unused` are the
        mass by the other method's use, in units of weight (a prompt's responses sum to their number). `dropped` is the
        share of the mass that the other method does not choose, NaN if the mass is zero.

    Raises:
        ValueError: weights of the wrong shape.
    """
    if np.shape(weight) != (len(use),):
        raise ValueError(f"weight: expected {len(use)} numbers, one per row of use, got {np.shape(weight)}")
    winners = use.assign(weight=np.asarray(weight))[use[method] == "chosen"]
    mass = winners.pivot_table(index="prompt_id", columns=other, values="weight", aggfunc="sum", fill_value=0.0)
    mass = mass.reindex(columns=["chosen", "rejected", "unused"], fill_value=0.0).rename_axis(columns=None)
    total = mass.sum(axis=1)
    return mass.assign(dropped=(mass["rejected"] + mass["unused"]) / total.where(total > 0))
