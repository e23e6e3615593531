"""Rows of one prompt -> groups: their sizes, and a number for each of them.

A *group* is the set of all responses to one prompt, both winners and losers. `groups` is always an integer array with
one id per row. Rows can be in any order, and no n x n matrix is built.
"""

from collections.abc import Callable, Iterator

import numpy as np

TOGETHER = 4096  # rows of whole groups that are processed at once: 32 MB of float64 in 1,024 dimensions


def index_groups(groups: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row as a number from 0 to G - 1, (n,), and the size of each group, (G,).

    Raises:
        ValueError: `groups` is not (n,) integers.
    """
    if groups.shape != (n,) or (n and not np.issubdtype(groups.dtype, np.integer)):
        raise ValueError(f"groups: expected {n} integers, got shape {groups.shape} of {groups.dtype}")
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return inverse, sizes


def by_group(
    value: Callable[[np.ndarray], np.ndarray | list[float]], groups: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """A number for each group of at least two rows.

    Args:
        value: row indices (k, m) of k groups of m rows, ascending within a group -> k numbers.
        groups: (n,) integers, rows in any order.
        n: number of rows.

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
    """Row indices, (k, m), of k groups of m rows: as many groups as fit into `limit` rows, or one larger group."""
    smallest = np.min_scalar_type(len(sizes))  # integers of up to 16 bits are sorted in linear time
    order = np.argsort(inverse.astype(smallest), kind="stable")
    first = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        starts = first[sizes == size]
        together = max(1, limit // size)
        for at in range(0, len(starts), together):
            yield order[starts[at : at + together, None] + np.arange(size)]
