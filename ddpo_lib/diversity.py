"""A prompt's samples -> diversity measures. numpy alone."""

import numpy as np

from ddpo_lib.deviation import mean_distance


def pairwise_distance(vectors: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean pairwise cosine distance within each group (paper, evaluation: diversity among a prompt's samples).

    It is the mean over a group of each member's mean distance to the others. Higher is more diverse; 0 for identical
    vectors.

    Args:
        vectors: (n, d), rows of any length but zero.
        groups: (n,) integers, rows in any order.

    Returns:
        The group ids, ascending, and their distances in [0, 2] as float64; NaN for a group of one.
    """
    ids, inverse = np.unique(groups, return_inverse=True)
    distance = mean_distance(vectors, groups)
    return ids, np.bincount(inverse, distance) / np.bincount(inverse)
