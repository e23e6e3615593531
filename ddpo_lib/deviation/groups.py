"""Rows of one prompt -> groups: their sizes, and a number for each of them.

A *group* is the set of responses to one prompt, winners and losers alike. `groups` is always an integer array with
one id a row; rows come in any order, and no n x n matrix is ever built.
"""

from collections.abc import Callable, Iterator

import numpy as np

TOGETHER = 4096  # rows of whole groups that are worked on at once: 32 MB of float64 in 1,024 dimensions


def index_groups(groups: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Group ids as 0..G-1 for each row, and the size of each group."""
    if groups.shape != (n,) or (n and not np.issubdtype(groups.dtype, np.integer)):
        raise ValueError(f"groups: expected {n} integers, got shape {groups.shape} of {groups.dtype}")
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return inverse, sizes


def by_group(
    value: Callable[[np.ndarray], np.ndarray | list[float]], groups: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """A number for every group of two rows or more.

    Args:
        value: row indices (k, m) of k groups of m rows, in the order in which they stand -> k numbers.
        groups: (n,) integers, rows in any order.
        n: how many rows there are.

    Returns:
        The group ids, ascending, and their numbers as float64; NaN for a group of one.
    """
    inverse, sizes = index_groups(np.asarray(groups), n)
    values = np.full(len(sizes), np.nan)
    for rows in rows_by_size(inverse, sizes, TOGETHER):
        if rows.shape[1] > 1:
            values[inverse[rows[:, 0]]] = value(rows)
    return np.unique(groups), values


def rows_by_size(inverse: np.ndarray, sizes: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """Row indices, (k, m), of k groups of m rows: as many as `limit` rows hold, or one group that is larger."""
    smallest = np.min_scalar_type(len(sizes))  # up to 16 bits sort in linear time
    order = np.argsort(inverse.astype(smallest), kind="stable")
    first = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        starts = first[sizes == size]
        together = max(1, limit // size)
        for at in range(0, len(starts), together):
            yield order[starts[at : at + together, None] + np.arange(size)]
