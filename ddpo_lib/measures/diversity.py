"""A prompt's samples -> diversity measures of their vectors; those of their words come from `word_measures`.

Every measure takes texts or vectors, (n, d) with rows of any length but zero, and `groups`, (n,) integers. Rows may
come in any order. It returns the group ids, ascending, and one float64 per group, which is NaN for a group of fewer
than two samples. Groups of the same size are computed together; memory beyond the input grows with the square of the
largest group.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import xlogy

from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.groups import TOGETHER, by_group, index_groups, rows_by_size
from ddpo_lib.deviation.weighting import TIE

NEAR_COPY = 0.8  # cosine of MiniLM: see `equivalent`; tests/measures/test_diversity.py has the evidence
NOISE = 1e-9  # eigenvalues up to this, times their number, are rounding; all of them sum to 1


def pairwise_distance(vectors: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean pairwise cosine distance within each group (paper, evaluation: diversity among a prompt's samples).

    It is each member's mean distance to the others, averaged over the group. Higher is more diverse; identical vectors
    give 0.

    Args:
        vectors: (n, d), rows of any length but zero.
        groups: (n,) integers, rows in any order.

    Returns:
        The group ids, ascending, and their distances in [0, 2] as float64; NaN for a group of one.
    """
    ids, inverse = np.unique(groups, return_inverse=True)
    distance = mean_distance(vectors, groups)
    return ids, np.bincount(inverse, distance) / np.bincount(inverse)


def vendi(vectors: np.ndarray, groups: np.ndarray, order: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Vendi score: the effective number of different samples in a group (Friedman & Dieng 2023, TMLR,
    arXiv:2210.02410; other orders: Pasarkar & Dieng 2024, AISTATS, arXiv:2310.12952).

    Let K be the n x n cosines of a group of n samples, and l_i the eigenvalues of K / n, which sum to 1. The score is
    the exponential of their Renyi entropy of order q, (sum l_i^q)^(1 / (1 - q)). Order 1 is the published default, the
    limit exp(-sum l_i log l_i). Order infinity is 1 / max l_i, and order 0 is the rank of K. A low order gives rare
    samples more weight. Higher is more diverse. The score is in [1, n]: 1 for identical samples, n for orthogonal
    ones. It grows with n, so compare groups of the same size.

    Args:
        vectors: (n, d), rows of any length but zero.
        groups: (n,) integers, rows in any order.
        order: q, 0 or more; `math.inf` is allowed.

    Returns:
        The group ids, ascending, and their scores; NaN for a group of one.

    Raises:
        ValueError: a negative order, wrong shapes, or a row that is zero or not finite (names the first).
    """
    if not order >= 0:
        raise ValueError(f"order: expected 0 or more, got {order}")
    cosines = _cosines(vectors)

    def score(rows: np.ndarray) -> np.ndarray:
        share = np.linalg.eigvalsh(cosines(rows))
        share = np.where(share > rows.shape[1] * NOISE, share, 0.0)
        return _effective_number(share / share.sum(axis=1, keepdims=True), order)

    return by_group(score, groups, len(vectors))


def effective_diversity(
    vectors: np.ndarray, scores: np.ndarray, groups: np.ndarray, bar: float
) -> tuple[np.ndarray, np.ndarray]:
    """Effective semantic diversity: diversity among samples that are good enough (after Shypula et al. 2025,
    arXiv:2504.12522).

    It is the mean cosine distance over all pairs of a group; a pair counts 0 if one of its samples scores below the
    bar. So it falls when good samples are alike and when samples are bad. With a bar of minus infinity it equals
    `pairwise_distance`. The authors decide with a validity function which outputs count, and with a semantic map
    which are the same. Here a score and a graded distance take their place. Higher is better; in [0, 2].

    Args:
        vectors: (n, d), rows of any length but zero.
        scores: (n,), the quality of each sample, in any unit.
        groups: (n,) integers, rows in any order.
        bar: the least score that is good enough, in the unit of the scores.

    Returns:
        The group ids, ascending, and their means; NaN for a group of one.

    Raises:
        ValueError: scores that are NaN or infinite (says how many, and the first row), wrong shapes, a bar that is
            NaN, or a row that is zero or not finite (names the first).
    """
    if math.isnan(bar):
        raise ValueError("bar: expected a number, got NaN")
    good = finite_numbers("scores", scores, len(vectors)) >= bar
    cosines = _cosines(vectors)

    def mean(rows: np.ndarray) -> np.ndarray:
        size = rows.shape[1]
        pair = good[rows][:, :, None] & good[rows][:, None, :] & ~np.eye(size, dtype=bool)
        return np.where(pair, np.clip(1.0 - cosines(rows), 0.0, 2.0), 0.0).sum(axis=(1, 2)) / (size * (size - 1))

    return by_group(mean, groups, len(vectors))


def equivalent(vectors: np.ndarray, groups: np.ndarray, threshold: float = NEAR_COPY) -> np.ndarray:
    """Classes of equivalent samples within each group: the rule behind `distinct_k` and `utility_k` here.

    Two samples are equivalent if their cosine is at least the threshold (to within 1e-6), or if a chain of such pairs
    joins them. The classes are thus the connected components of that graph. So the order of samples does not matter,
    and a lower threshold only merges classes. NoveltyBench instead trains a classifier (DeBERTa-v3-large) on human
    judgements of functional equivalence, and compares each sample with a random one of each class so far. Its classes
    depend on the order and on chance, so the numbers here are not comparable with its numbers.

    The default is for MiniLM, which reads the first 256 tokens. It finds near copies. With every fourth word removed,
    more than nine in ten stories of the package's corpus are equivalent to the original. No two different stories of
    that corpus are, but a few in a hundred pairs of HANNA's longer ones are. The default does not find two tellings of
    one idea, and no other threshold does: between pairs of stories written for the same take and pairs written for
    different takes, the best threshold decides correctly in less than six of ten cases.

    Args:
        vectors: (n, d), rows of any length but zero.
        groups: (n,) integers, rows in any order.
        threshold: a cosine.

    Returns:
        (n,) integers: for each row, the position within its group, from 0, of the first row of its class.

    Raises:
        ValueError: a threshold outside [-1, 1], wrong shapes, or a row that is zero or not finite (names the first).
    """
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold: expected a cosine in [-1, 1], got {threshold}")
    groups = np.asarray(groups)
    cosines = _cosines(vectors)
    classes = np.empty(len(vectors), dtype=int)
    for rows in rows_by_size(*index_groups(groups, len(vectors)), TOGETHER):
        size = rows.shape[1]
        linked = (cosines(rows) >= threshold - TIE) | np.eye(size, dtype=bool)
        first, before = np.tile(np.arange(size), (len(rows), 1)), None
        while before is None or (first != before).any():  # each row takes the lowest label of its neighbours
            first, before = np.where(linked, first[:, None, :], size).min(axis=2), first
        classes[rows] = first
    return classes


def distinct_k(classes: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many classes of equivalent samples a group of k contains (NoveltyBench, Zhang et al. 2025, arXiv:2504.05228).

    distinct_k = the number of distinct c_i for i = 1..k. Higher is more diverse; in [1, k]. Compare groups of the same
    size.

    Args:
        classes: (n,) integers, the class of each sample within its group, as from `equivalent`.
        groups: (n,) integers, rows in any order.

    Returns:
        The group ids, ascending, and their counts; NaN for a group of one.

    Raises:
        ValueError: wrong shapes.
    """
    new = _new_in(classes, groups)
    return by_group(lambda rows: new(rows).sum(axis=1), groups, len(classes))


def utility_k(
    classes: np.ndarray, scores: np.ndarray, groups: np.ndarray, patience: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """The utility for a reader who asks for another sample with probability `patience` (NoveltyBench, Zhang et al.
    2025, arXiv:2504.05228).

    utility_k = (1 - p) / (1 - p^k) sum_i p^(i-1) 1[no earlier sample of the class of i] u_i over the k samples, in the
    order of their rows. Higher is better; in [0, 1]. If all samples are distinct, it is the mean of u with more weight
    on the first ones. NoveltyBench grades u from 1 to 10. Here u is in [0, 1], since with a negative u a repetition
    would be worth more than a new sample.

    Args:
        classes: (n,) integers, the class of each sample within its group, as from `equivalent`.
        scores: (n,) the utility u of each sample, in [0, 1].
        groups: (n,) integers; groups in any order, the rows of a group in the order in which the reader sees them.
        patience: p, in [0, 1].

    Returns:
        The group ids, ascending, and their utilities; NaN for a group of one.

    Raises:
        ValueError: scores that are NaN (says how many, and the first row) or outside [0, 1] (names the first row),
            a patience outside [0, 1], or wrong shapes.
    """
    if not 0 <= patience <= 1:
        raise ValueError(f"patience: expected a number in [0, 1], got {patience}")
    scores = finite_numbers("scores", scores, len(classes))
    outside = (scores < 0) | (scores > 1)
    if outside.any():
        row = outside.argmax()
        raise ValueError(f"scores: row {row} is {scores[row]:g}; utilities are in [0, 1]")
    new = _new_in(classes, groups)

    def utility(rows: np.ndarray) -> np.ndarray:
        weight = float(patience) ** np.arange(rows.shape[1])
        return (new(rows) * scores[rows]) @ (weight / weight.sum())

    return by_group(utility, groups, len(classes))


def _cosines(vectors: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from row indices (k, m) to cosines (k, m, m). Raises ValueError for a row without a direction."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number):
        raise ValueError(f"vectors: expected numbers of shape (n, d), got {vectors.dtype} of {vectors.shape}")
    length = np.sqrt(np.vecdot(vectors, vectors, dtype=np.float64))
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        raise ValueError(f"vectors: row {bad.argmax()} is zero, or holds NaN or infinity; it has no direction")

    def cosines(rows: np.ndarray) -> np.ndarray:
        unit = vectors[rows] / length[rows][:, :, None]
        return unit @ unit.transpose(0, 2, 1)

    return cosines


def _effective_number(share: np.ndarray, order: float) -> np.ndarray:
    """(k, m) shares, each row summing to 1 -> (k,) exponential of their Renyi entropy."""
    if abs(order - 1) < 1e-6:  # closer to 1, the power below is dominated by rounding
        return np.exp(-xlogy(share, share).sum(axis=1))
    largest = share.max(axis=1)
    if order == math.inf:
        return 1 / largest
    power = np.where(share > 0, (share / largest[:, None]) ** order, 0.0).sum(axis=1)  # at most m, for any order
    return np.exp((np.log(power) + order * np.log(largest)) / (1 - order))  # each term alone may overflow


def _new_in(classes: np.ndarray, groups: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from row indices (k, m) to (k, m) booleans: whether no earlier row of the group is of its class."""
    classes = np.asarray(classes)
    if classes.shape != np.shape(groups):
        raise ValueError(f"classes: expected shape {np.shape(groups)}, got {classes.shape}")

    def new(rows: np.ndarray) -> np.ndarray:
        same = classes[rows][:, :, None] == classes[rows][:, None, :]
        return ~np.tril(same, -1).any(axis=2)

    return new


def finite_numbers(name: str, values: np.ndarray, n: int) -> np.ndarray:
    """(n,) float64, all of them finite."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n,):
        raise ValueError(f"{name}: expected shape {(n,)}, got {values.shape}")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} of {n} are NaN or infinite, the first in row {bad.argmax()}")
    return values
