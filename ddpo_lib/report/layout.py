"""Vectors -> places in the plane, close to places of similar vectors: UMAP on exact neighbours.

Machine code that umap-learn compiles in each process, for several seconds, is kept in the cache folder.
"""

import warnings
from functools import cache

import numpy as np

from ddpo_lib.base.store import cache_folder

FEWEST = 5  # fewest vectors for a map
NEIGHBOURS = 15
BLOCK = 1024  # rows that are compared with as many others at once


def lay_out(vectors: np.ndarray, later: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of vectors in a map, by UMAP on cosine distance (McInnes et al. 2018, arXiv:1802.03426).

    Args:
        vectors: (n, d) rows of any length but zero, n >= 5; the map is fitted on them.
        later: (m, d), placed in the fitted map; m may be 0.
        seed: the same seed gives the same map.

    Returns:
        (n, 2) and (m, 2) float32. Only nearness has a meaning; directions, units and distances between far groups have
        none. A place of `vectors` does not depend on `later`. A place of `later` depends on the whole batch: UMAP
        divides the strengths of a row's links by the strongest link of the batch. So place all rows that one map shows
        in one call, and do not compare their places with those of another call.

    Raises:
        ValueError: there are fewer than 5 vectors.
    """
    if len(vectors) < FEWEST:
        raise ValueError(f"vectors: a map needs {FEWEST} or more, got {len(vectors)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns of its fallbacks for small groups, and of a search not its own
        map_ = _fitted(_umap(), vectors, min(NEIGHBOURS, len(vectors) - 1), random_state=seed, transform_seed=seed)
        return map_.embedding_, map_.transform(later) if len(later) else np.empty((0, 2), dtype=np.float32)


def lay_out_groups(
    vectors: np.ndarray, groups: np.ndarray, later: np.ndarray, later_groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places of vectors in the map of their own group; each group has a map of its own.

    Args:
        vectors, later, seed: as in `lay_out`.
        groups, later_groups: (n,) and (m,) integers.

    Returns:
        (n, 2) and (m, 2) float32; NaN if the group has fewer than 5 of `vectors`.
    """
    places, later_places = (np.full((len(rows), 2), np.nan, dtype=np.float32) for rows in (vectors, later))
    for group in np.unique(groups):
        own, its = np.flatnonzero(groups == group), np.flatnonzero(later_groups == group)
        if len(own) >= FEWEST:
            places[own], later_places[its] = lay_out(vectors[own], later[its], seed)
    return places, later_places


class Neighbours:
    """Exact search of the nearest rows by cosine distance.

    UMAP's `transform` calls `query` as it calls that of an index of pynndescent, whose search is approximate and takes
    longer to compile than this takes to search 10,000 rows.
    """

    _angular_trees = False  # `transform` reads it, to choose an `epsilon`

    def __init__(self, vectors: np.ndarray):
        """Args: (n, d) rows of any length but zero."""
        self.rows = _unit(vectors)

    def among_themselves(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` rows nearest to each row, itself first: (n, count) indices and float32 distances, ascending."""
        nearest = _Nearest(len(self.rows), count)
        for first in range(0, len(self.rows), BLOCK):
            block = self.rows[first : first + BLOCK]
            for second in range(first, len(self.rows), BLOCK):
                similarity = block @ self.rows[second : second + BLOCK].T
                if first == second:
                    np.fill_diagonal(similarity, np.inf)
                else:
                    nearest.add(second, similarity.T, first)
                nearest.add(first, similarity, second)
        return nearest.sorted()

    def query(self, vectors: np.ndarray, count: int, epsilon: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The `count` rows nearest to each of other vectors, as `among_themselves` gives them. An exact search needs no
        `epsilon`."""
        nearest, vectors = _Nearest(len(vectors), count), _unit(vectors)
        for first in range(0, len(vectors), BLOCK):
            for second in range(0, len(self.rows), BLOCK):
                nearest.add(first, vectors[first : first + BLOCK] @ self.rows[second : second + BLOCK].T, second)
        return nearest.sorted()


class _Nearest:
    """The most similar of the columns seen so far, for each row."""

    def __init__(self, rows: int, count: int):
        self.count = count
        self.similarity = np.full((rows, count), -np.inf, dtype=np.float32)
        self.column = np.zeros((rows, count), dtype=np.int64)

    def add(self, row: int, similarity: np.ndarray, column: int) -> None:
        """Take in a block of similarities that begins at a row and a column."""
        rows, width = slice(row, row + len(similarity)), similarity.shape[1]
        best = np.argpartition(similarity, max(0, width - self.count), axis=1)[:, -self.count :]
        values = np.concatenate([self.similarity[rows], np.take_along_axis(similarity, best, 1)], axis=1)
        columns = np.concatenate([self.column[rows], best + column], axis=1)
        best = np.argpartition(values, values.shape[1] - self.count, axis=1)[:, -self.count :]
        self.similarity[rows] = np.take_along_axis(values, best, 1)
        self.column[rows] = np.take_along_axis(columns, best, 1)

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and cosine distances, (rows, count), the nearest first; a row's own column is at distance 0."""
        order = np.argsort(-self.similarity, axis=1, kind="stable")
        distance = np.clip(1 - np.take_along_axis(self.similarity, order, 1), 0, None)
        return np.take_along_axis(self.column, order, 1), distance


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _fitted(umap: type, vectors: np.ndarray, count: int, **options):
    """A UMAP of vectors, each linked to its `count` nearest, itself among them."""
    search = Neighbours(vectors)
    known = (*search.among_themselves(count), search)
    return umap(n_neighbors=count, metric="cosine", n_jobs=1, precomputed_knn=known, **options).fit(vectors)


@cache
def _umap() -> type:
    """UMAP's class, with all that `lay_out` needs compiled, or read from disk where an earlier process kept it."""
    import numba
    from filelock import FileLock
    from umap import UMAP, layouts, umap_

    folder = cache_folder() / "umap"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # numba's files mix up two processes that compile a function for unlike types
            before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
            # not all: numba's files do not tell the sequential function from its parallel twin, whose result varies
            one_epoch = layouts._get_optimize_layout_euclidean_single_epoch_fn(parallel=False)
            for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths, one_epoch):
                function.enable_caching()
            numba.config.CACHE_DIR = before
            rows = np.random.default_rng(0).normal(size=(FEWEST + 1, 3)).astype(np.float32)
            _fitted(UMAP, rows[:FEWEST], 2, n_epochs=12, random_state=0).transform(rows[FEWEST:])
    except OSError:  # no place on disk; then they are compiled when they are called
        pass
    return UMAP
