"""Vectors -> maps (UMAP): a place in the plane for each response, close to responses of similar meaning or style.

The map is fitted to the corpus's responses. Samples of models are then placed in it, without changing it.
"""

import warnings

import numpy as np
import pandas as pd

from ddpo_lib.deviation.distances import mean_distance

MOST = 10_000  # most responses of the corpus on a map
FEWEST = 5  # fewest responses for a map of one prompt
NEIGHBOURS = 15
SMALL = 4096  # from this number on, UMAP searches neighbours approximately unless they are given


def lay_out(vectors: np.ndarray, later: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of vectors in a map, by UMAP on cosine distance (McInnes et al. 2018, arXiv:1802.03426).

    Args:
        vectors: (n, d) rows of any length but zero, n >= 5; the map is fitted on them.
        later: (m, d), placed in the fitted map; m may be 0.
        seed: the same seed gives the same map.

    Returns:
        (n, 2) and (m, 2) float32. Only nearness has a meaning; directions, units and distances between far groups have
        none.

    Raises:
        ValueError: there are fewer than 5 vectors.
    """
    if len(vectors) < FEWEST:
        raise ValueError(f"vectors: a map needs {FEWEST} or more, got {len(vectors)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns of its fallbacks for small groups
        from umap import UMAP

        neighbours = min(NEIGHBOURS, len(vectors) - 1)
        known = {}
        if len(vectors) >= SMALL and not len(later):  # exact, and faster than compiling UMAP's own search
            known["precomputed_knn"] = _nearest(vectors, neighbours)
        umap = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, transform_seed=seed, n_jobs=1, **known)
        places = umap.fit_transform(vectors)
        return places, umap.transform(later) if len(later) else np.empty((0, 2), dtype=np.float32)


def distance_from(vectors: np.ndarray, groups: np.ndarray, others: np.ndarray, other_groups: np.ndarray) -> np.ndarray:
    """Mean cosine distance of each vector to all `others` of its group.

    Args:
        vectors: (n, d) unit rows.
        groups: (n,) integers.
        others: (m, d) unit rows.
        other_groups: (m,) integers; each of `groups` is among them.

    Returns:
        (n,) float64 in [0, 2].
    """
    ids, inverse, sizes = np.unique(other_groups, return_inverse=True, return_counts=True)
    means = np.zeros((len(ids), others.shape[1]))
    np.add.at(means, inverse, others)
    means /= sizes[:, None]
    return 1 - np.vecdot(vectors.astype(np.float64), means[np.searchsorted(ids, groups)])


def draw_prompts(corpus: pd.DataFrame, most: int = MOST, seed: int = 0) -> np.ndarray:
    """Row numbers of a corpus: all, or if there are more, `most`: those of random prompts, the last one in part."""
    if len(corpus) <= most:
        return np.arange(len(corpus))
    codes, names = pd.factorize(corpus["prompt_id"])
    rng = np.random.default_rng(seed)
    turn = rng.permutation(len(names))[codes]
    return np.sort(np.lexsort((rng.random(len(codes)), turn))[:most])


def make_points(
    corpus: pd.DataFrame,
    vectors: dict[str, np.ndarray],
    samples: dict[str, pd.DataFrame],
    sample_vectors: dict[str, dict[str, np.ndarray]],
    seed: int,
) -> pd.DataFrame:
    """The table from which maps are drawn (`interactive.py` describes its columns).

    Args:
        corpus: n responses, as `read_corpus` returns them.
        vectors: a space -> (n, d) unit rows.
        samples: an arm -> its samples, with `prompt_id prompt text`; prompts outside the corpus are left out.
        sample_vectors: an arm -> a space -> unit rows, one per sample.
        seed: of the layout.

    Returns:
        The corpus's rows, then each arm's. Deviation is the mean distance to the corpus's other responses to the same
        prompt; for a sample, to all of the corpus's responses to it.
    """
    points = corpus[["prompt_id", "prompt", "text", "score"]].assign(who=corpus["split"].to_numpy())
    parts = [points]
    inside = {arm: made["prompt_id"].isin(points["prompt_id"]).to_numpy() for arm, made in samples.items()}
    for arm, made in samples.items():
        parts.append(made.loc[inside[arm], ["prompt_id", "prompt", "text"]].assign(score=np.nan, who=arm))
    table = pd.concat(parts, ignore_index=True)
    codes = pd.factorize(table["prompt_id"])[0]
    n = len(corpus)
    for space, own in vectors.items():
        later = np.concatenate([sample_vectors[arm][space][inside[arm]] for arm in samples] or [own[:0]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a single response has no deviation; the map still shows it
            deviation = mean_distance(own, codes[:n])
        table[f"deviation {space}"] = np.concatenate([deviation, distance_from(later, codes[n:], own, codes[:n])])
        table[[f"x {space}", f"y {space}"]] = np.concatenate(lay_out(own, later, seed))
        table[[f"prompt x {space}", f"prompt y {space}"]] = _by_prompt(own, later, codes, seed)
    return table


def _by_prompt(own: np.ndarray, later: np.ndarray, codes: np.ndarray, seed: int) -> np.ndarray:
    """(n + m, 2): each response's place in the map of its own prompt; NaN if the prompt has too few responses."""
    places = np.full((len(codes), 2), np.nan, dtype=np.float32)
    every = np.concatenate([own, later])
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        mine, its = rows[rows < len(own)], rows[rows >= len(own)]
        if len(mine) >= FEWEST:
            places[mine], places[its] = lay_out(every[mine], every[its], seed)
    return places


def _nearest(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosine distances of the k nearest rows, the row itself first; exact."""
    from sklearn.neighbors import NearestNeighbors

    distances, indices = (
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(vectors).kneighbors(vectors)
    )
    return indices, distances.astype(np.float32)
