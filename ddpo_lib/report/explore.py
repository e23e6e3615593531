"""A corpus and samples -> the table of a map: each response's deviation, and its places in the plane.

A map is fitted to the corpus's responses. Samples of models are then placed in it, without changing it.
"""

import warnings

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from ddpo_lib.base.run_folder import threads
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.report.layout import lay_out, lay_out_groups

MOST = 10_000  # most responses of the corpus on a map
SEVERAL = 4000  # from this number of responses on, spaces are laid out in parallel; starting a process takes seconds


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
    """The table from which maps are drawn (`interactive.deviation_map` describes its columns).

    Args:
        corpus: n responses, as `read_corpus` returns them.
        vectors: a space -> (n, d) unit rows.
        samples: an arm -> its samples, with `prompt_id prompt text`; prompts outside the corpus are left out.
        sample_vectors: an arm -> a space -> unit rows, one per sample.
        seed: of the layout.

    Returns:
        The corpus's rows, then each arm's. Deviation is the mean distance to the corpus's other responses to the same
        prompt; for a sample, to all of the corpus's responses to it. Samples do not change the places of the corpus. A
        sample's place depends on the samples of every arm, as `lay_out` says: with another arm, all of them move.
    """
    points = corpus[["prompt_id", "prompt", "text", "score"]].assign(who=corpus["split"].to_numpy())
    parts = [points]
    inside = {arm: made["prompt_id"].isin(points["prompt_id"]).to_numpy() for arm, made in samples.items()}
    for arm, made in samples.items():
        parts.append(made.loc[inside[arm], ["prompt_id", "prompt", "text"]].assign(score=np.nan, who=arm))
    table = pd.concat(parts, ignore_index=True)
    codes = pd.factorize(table["prompt_id"])[0]
    n = len(corpus)
    later = {
        space: np.concatenate([sample_vectors[arm][space][inside[arm]] for arm in samples] or [own[:0]])
        for space, own in vectors.items()
    }
    places = _lay_out_spaces(vectors, later, codes, seed)
    for (space, own), (whole, by_prompt) in zip(vectors.items(), places, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a single response has no deviation; the map still shows it
            deviation = mean_distance(own, codes[:n])
        others = distance_from(later[space], codes[n:], own, codes[:n])
        table[f"deviation {space}"] = np.concatenate([deviation, others])
        table[[f"x {space}", f"y {space}"]] = np.concatenate(whole)
        table[[f"prompt x {space}", f"prompt y {space}"]] = np.concatenate(by_prompt)
    return table


def _lay_out_spaces(vectors: dict[str, np.ndarray], later: dict[str, np.ndarray], codes: np.ndarray, seed: int) -> list:
    """For each space, the places in the map of the corpus and those in the maps of the prompts."""
    tasks = []
    for space, own in vectors.items():
        tasks.append(delayed(lay_out)(own, later[space], seed))
        tasks.append(delayed(lay_out_groups)(own, codes[: len(own)], later[space], codes[len(own) :], seed))
    processes = min(threads(), len(tasks)) if len(codes) >= SEVERAL else 1
    done = Parallel(n_jobs=processes)(tasks)
    if processes > 1:  # joblib keeps its processes and their memory for five minutes, and a child process waits for it
        get_reusable_executor().shutdown()
    return list(zip(done[::2], done[1::2], strict=True))
