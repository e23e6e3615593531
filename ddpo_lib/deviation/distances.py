"""Vectors -> each response's mean distance to the other responses of its group; see `groups`. Needs only numpy."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ddpo_lib.deviation.groups import index_groups, rows_by_size

BLOCK = 2**19  # numbers that a core converts to float64 at once: 4 MB, still in its cache when they are read again


def mean_distance(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean cosine distance of each response to the other responses of its group (paper, the definition of deviation).

    With u_i unit vectors, s their sum and n the size of the group, distance_i = 1 - (u_i . s - 1) / (n - 1),
    so the cost is linear in the number of responses, whatever the sizes of the groups. All cores share the work. The
    speed limit is one pass over memory: a vector is read once, converted to float64, and used three times in cache. It
    is read twice if its group contains more than BLOCK numbers. The function needs about 70 bytes per response and
    16 MB per core besides the vectors, so `vectors` can be a `np.memmap`.

    Args:
        vectors: (n, d) floats of any length but zero; rows are scaled to unit length here.
        groups: (n,) integers, the group of each row.

    Returns:
        (n,) float64 in [0, 2]. A response that is alone in its group gets NaN; a warning counts such responses.

    Raises:
        ValueError: wrong shapes, or a row that is zero or contains NaN or infinity (names the first such row).
    """
    vectors, groups = np.asarray(vectors), np.asarray(groups)
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number):
        raise ValueError(f"vectors: expected numbers of shape (n, d), got {vectors.dtype} of {vectors.shape}")
    inverse, sizes = index_groups(groups, len(vectors))

    length, dot = _lengths_and_dots(vectors, inverse, sizes)
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        raise ValueError(f"vectors: row {bad.argmax()} is zero, or holds NaN or infinity; it has no direction")
    distance = np.clip(1.0 - (dot / length - 1.0) / np.maximum(sizes - 1, 1)[inverse], 0.0, 2.0)

    alone = sizes[inverse] == 1
    if alone.any():
        distance[alone] = np.nan
        warnings.warn(f"{alone.sum()} of {len(alone)} responses are alone in their group: distance NaN", stacklevel=2)
    return distance


def _lengths_and_dots(vectors: np.ndarray, inverse: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of each row, and its dot product with the sum of its group's unit vectors, both (n,) float64.

    Threads share the work, since numpy's loops release the interpreter's lock. There is no matrix product here: it
    would start the threads of BLAS inside each of these threads, and they would wait for one another.
    """
    n, d = vectors.shape
    length, dot = np.empty(n), np.empty(n)
    limit = max(1, min(n, BLOCK // max(1, d)))
    own = threading.local()

    def start_thread() -> None:
        np.seterr(all="ignore")  # rows of zero or infinite length; the caller names them
        own.block, own.sums = np.empty((limit, d)), np.empty((limit, d))  # reused: new pages cost more than the sums

    def read(rows: np.ndarray) -> np.ndarray:
        block = own.block[: rows.size].reshape(*rows.shape, d)
        block[...] = vectors[rows]
        return block

    def sums(rows: np.ndarray, block: np.ndarray) -> np.ndarray:
        length[rows] = np.sqrt(np.vecdot(block, block))
        return np.einsum("km,kmd->kd", 1.0 / length[rows], block, out=own.sums[: len(rows)])

    def dots(rows: np.ndarray, block: np.ndarray, total: np.ndarray) -> None:
        dot[rows] = np.vecdot(block, total[:, None, :])

    def whole_groups(stacks: list[np.ndarray]) -> None:
        for rows in stacks:
            block = read(rows)
            dots(rows, block, sums(rows, block))

    def sum_of_piece(rows: np.ndarray) -> np.ndarray:
        return sums(rows, read(rows)).copy()

    def dots_of_piece(rows: np.ndarray) -> None:
        dots(rows, read(rows), total[inverse[rows[0, 0]]])

    cores = os.cpu_count() or 1
    stacks = list(rows_by_size(inverse, sizes, limit))
    small = [rows for rows in stacks if rows.size <= limit]
    large = [rows for rows in stacks if rows.size > limit]
    pieces = [piece for rows in large for piece in np.array_split(rows, -(-rows.size // limit), axis=1)]
    total = {inverse[rows[0, 0]]: np.zeros((1, d)) for rows in large}
    with ThreadPoolExecutor(cores, initializer=start_thread) as pool:
        list(pool.map(whole_groups, [small[part :: 4 * cores] for part in range(4 * cores)]))
        for piece, part in zip(pieces, pool.map(sum_of_piece, pieces), strict=True):
            total[inverse[piece[0, 0]]] += part
        list(pool.map(dots_of_piece, pieces))
    return length, dot
