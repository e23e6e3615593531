"""A corpus and samples -> the table of a map, with each response's deviation and places in the plane, and its picture.

A map is fitted to the corpus's responses. Samples of models are then placed in it, without changing it.
"""

import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

from ddpo_lib.base.run_folder import threads
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.report.figures import COLOURS, mark, name
from ddpo_lib.report.layout import lay_out, lay_out_groups

MOST = 10_000  # most responses of the corpus on a map
MAP_MARKS = ("s", "D", "^", "v", "<", "P", "*", "H", "p")  # for arms; circles are the corpus
SPLIT_NAMES = {"train": "corpus, to train on", "test": "corpus, held out"}
VECTOR_MARKS = 5_000  # more marks are drawn as pixels, since a browser draws many vector marks slowly
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


def map_marks(names: list[str]) -> dict[str, tuple[str, bool]]:
    """The mark of each split or arm on a map, and whether it is open. All are different as long as there are marks.

    Circles are the corpus, and open circles its held-out part. An arm has its usual mark, or another if that is in use.
    """
    given = {"train": ("o", False), "test": ("o", True)}
    free = [(sign, is_open) for is_open in (False, True) for sign in MAP_MARKS]
    for arm in sorted(set(names) - set(given), key=lambda arm: (mark(arm) not in MAP_MARKS, names.index(arm))):
        given[arm] = next((choice for choice in free if choice[0] == mark(arm)), free[0])
        if len(free) > 1:
            free.remove(given[arm])
    return {arm: given[arm] for arm in names}


def people_first(who: str) -> tuple[bool, bool, str]:
    """A sort key: the corpus's training split, its held-out split, then arms by name."""
    return who not in SPLIT_NAMES, who != "train", who


def draw_map(axes: plt.Axes, points: pd.DataFrame, space: str, *, own: bool = False) -> None:
    """Draw responses at their places in a space's map; with `own`, in the map of their own prompt.

    Colour shows the deviation, size the score, and the mark the split or arm of a response.

    Args:
        axes: to draw on.
        points: of `explore.make_points`.
        space: the name of one of its spaces.
        own: whether to draw the map of a single prompt; all points are then of that prompt.
    """
    x, y = (f"{'prompt ' if own else ''}{axis} {space}" for axis in "xy")
    score = points["score"]
    span = score.max() - score.min()
    size = 0.25 + 0.75 * ((score - score.min()) / span if span > 0 else score * 0).fillna(0)
    most = 110 if own else float(np.clip(40_000 / len(points), 6, 60))
    deviation = points[f"deviation {space}"]
    panels = [each for each in axes.figure.axes if each.get_label() != "<colorbar>"]
    marks = len(points) * len(panels)  # of the whole figure, if its panels show maps
    palette = mpl.colormaps["cividis"].with_extremes(bad=COLOURS["gold"])  # a response alone under its prompt
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(deviation.min(), deviation.max()), palette)
    for who, (sign, is_open) in map_marks(sorted(points["who"].unique(), key=people_first)).items():
        rows = points[points["who"] == who]
        painted = colours.to_rgba(rows[f"deviation {space}"])
        axes.scatter(
            rows[x],
            rows[y],
            s=most * size[rows.index],
            facecolors="none" if is_open else painted,
            edgecolors=painted,
            linewidths=1.1 if is_open else 0,
            marker=sign,
            label=f"{SPLIT_NAMES.get(who) or name(who)} ({len(rows)})",
            rasterized=marks > VECTOR_MARKS,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.figure.colorbar(colours, ax=axes, shrink=0.6, label=f"{space} deviation  (rarer →)")
