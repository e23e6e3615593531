"""Vectors -> each response's mean distance to the other responses of its group; see `groups`. Needs only numpy."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ddpo_lib.deviation.groups import index_groups, rows_by_size

BLOCK = 2**19  # numbers that a core reads at once: 2 MB in float32, still in its cache when they are read again
PART = 128  # float32 products that are added in float32; the sums of these parts are added in float64
PLAIN = (1e-12, 1e12)  # lengths whose squares are neither too small nor too large for float32


def mean_distance(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean cosine distance of each response to the other responses of its group (paper, the definition of deviation).

    With u_i unit vectors, s their sum and n the size of the group, distance_i = 1 - (u_i . s - 1) / (n - 1),
    so the cost is linear in the number of responses, whatever the sizes of the groups. All cores share the work. The
    speed limit is one pass over memory: a vector is copied once into the cache, and used three times there. It is
    copied twice if its group contains more than BLOCK numbers. The function needs about 70 bytes per response and
    4 MB per core besides the vectors, so `vectors` can be a `np.memmap`.

    Vectors of float16 and float32 are multiplied in float32 and their products are added up in float64 part by part,
    which is accurate to about 1e-7, as such vectors are. Other numbers and lengths outside PLAIN stay in float64.

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

    dtype = np.float32 if vectors.dtype in (np.float16, np.float32) else np.float64
    length, dot = _lengths_and_dots(vectors, inverse, sizes, dtype)
    if dtype == np.float32 and not ((length > PLAIN[0]) & (length < PLAIN[1])).all():
        length, dot = _lengths_and_dots(vectors, inverse, sizes, np.float64)
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        raise ValueError(f"vectors: row {bad.argmax()} is zero, or holds NaN or infinity; it has no direction")
    distance = np.clip(1.0 - (dot / length - 1.0) / np.maximum(sizes - 1, 1)[inverse], 0.0, 2.0)

    alone = sizes[inverse] == 1
    if alone.any():
        distance[alone] = np.nan
        warnings.warn(f"{alone.sum()} of {len(alone)} responses are alone in their group: distance NaN", stacklevel=2)
    return distance


def _lengths_and_dots(
    vectors: np.ndarray, inverse: np.ndarray, sizes: np.ndarray, dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """Length of each row, and its dot product with the sum of its group's unit vectors, both (n,) float64.

    Threads share the work, since numpy's loops release the interpreter's lock. There is no matrix product here: it
    would start the threads of BLAS inside each of these threads, and they would wait for one another.

    Args:
        vectors, inverse, sizes: the rows, the number of each one's group, and the size of each group.
        dtype: of the products.
    """
    n, d = vectors.shape
    length, dot = np.empty(n), np.empty(n)
    limit = max(1, min(n, BLOCK // max(1, d)))
    own = threading.local()

    def start_thread() -> None:
        np.seterr(all="ignore")  # rows of zero or infinite length; the caller names them
        # reused: new pages cost more than the sums
        own.block, own.sums = np.empty((limit, d), dtype), np.empty((limit, d), dtype)

    def read(rows: np.ndarray) -> np.ndarray:
        block = own.block[: rows.size]
        if vectors.dtype == dtype:
            np.take(vectors, rows.reshape(-1), axis=0, out=block, mode="clip")  # other modes copy a second time
        else:
            block[...] = vectors[rows.reshape(-1)]
        return block.reshape(*rows.shape, d)

    def sums(rows: np.ndarray, block: np.ndarray) -> np.ndarray:
        length[rows] = np.sqrt(_dots(block, block))
        scale = (1.0 / length[rows]).astype(dtype)
        return np.einsum("km,kmd->kd", scale, block, out=own.sums[: len(rows)])

    def dots(rows: np.ndarray, block: np.ndarray, total: np.ndarray) -> None:
        dot[rows] = _dots(block, total[:, None, :])

    def whole_groups(stacks: list[np.ndarray]) -> None:
        for rows in stacks:
            block = read(rows)
            dots(rows, block, sums(rows, block))

    def sum_of_piece(rows: np.ndarray) -> np.ndarray:
        return sums(rows, read(rows)).copy()

    def dots_of_piece(rows: np.ndarray) -> None:
        dots(rows, read(rows), total[inverse[rows[0, 0]]].astype(dtype))

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


def _dots(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Dot products along the last axis, float64."""
    d = one.shape[-1]
    width = PART if one.dtype == np.float32 else max(d, 1)
    result = np.zeros(np.broadcast_shapes(one.shape, other.shape)[:-1])
    for start in range(0, d, width):
        result += np.vecdot(one[..., start : start + width], other[..., start : start + width])
    return result
