"""A part of a page: the shares of the modes of a world while arms train, as bars under a slider.

`modes_through_training.js` draws it. Every number in it is computed here: the script only chooses which to show.
"""

from typing import Any

import numpy as np
import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.interactive.parts import arm_look, part
from ddpo_lib.statistics.intervals import mean_interval
from ddpo_lib.worlds.grids import Grid
from ddpo_lib.worlds.modes import entropy, rare_modes
from ddpo_lib.worlds.modeworld import PLOTS, VOICES

KINDS = {"plots": PLOTS, "voices": VOICES}


def page(grid: Grid, world: str, *, confidence: float, still: str, caption: str) -> str:
    """The part as HTML, for a page beside a folder `_static/` that contains `parts.assets()`.

    A row is shown after each part of its training (`trace` of the settings) after which it was measured in every seed.

    Args:
        grid: some of its rows are traced.
        world: the name of one of its worlds; only rows of this world are shown.
        confidence: of the intervals over seeds.
        still: HTML for print and for readers without scripts.
        caption: a sentence below the part.

    Returns:
        A `figure` element.

    Raises:
        ValueError: no row of this world is traced.
    """
    traces = grid.traces[grid.traces["world"] == world] if len(grid.traces) else grid.traces
    if traces.empty:
        raise ValueError(f"world: no row of {world!r} was measured during training")
    traces = traces.assign(stop=(traces["share"] * grid.settings.trace).round().astype(int))
    traces = traces.drop_duplicates(["row", "seed", "stop"], keep="last")
    rows = [name for name in grid.settings.rows if name in set(traces["row"])]
    each = traces.groupby("stop").size()
    stops = each.index[each == traces[["row", "seed"]].drop_duplicates().shape[0]].tolist()
    seeds = sorted(int(seed) for seed in traces["seed"].unique())
    views = [seeds, *([seed] for seed in seeds)] if len(seeds) > 1 else [seeds]
    data = {
        "kinds": [_kind(name, grid.truth[world][name]) for name in KINDS],
        "views": [_view(traces[traces["seed"].isin(of)], stops) for of in views],
        "arms": [
            arm_look(row) | {"views": [[_stop(traces, row, of, stop, confidence) for stop in stops] for of in views]}
            for row in rows
        ],
    }
    return part("modes_through_training", plain(data), still=still, caption=caption)


def _kind(name: str, truth: list[float]) -> dict[str, Any]:
    """A kind of modes: names in the order of their shares in the world, and how many of the last are rare."""
    number = len(truth)
    return {"name": name, "modes": KINDS[name][:number], "rare": rare_modes(number), "most": np.log2(number)}


def _view(traces: pd.DataFrame, stops: list[int]) -> dict[str, Any]:
    """The name of some seeds, and for each stop the shares of the training after which they were measured."""
    seeds = sorted(traces["seed"].unique())
    name = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    shares = [traces.loc[traces["stop"] == stop, "share"] for stop in stops]
    ends = [[f"{end:.0%}" for end in (of.min(), of.max())] for of in shares]
    return {"name": name, "trained": [low if low == high else f"{low} to {high}" for low, high in ends]}


def _stop(traces: pd.DataFrame, row: str, seeds: list[int], stop: int, confidence: float) -> dict[str, Any]:
    """What is shown of a row after one part of its training: means over seeds, with intervals if there are several."""
    of = traces[(traces["row"] == row) & (traces["stop"] == stop) & traces["seed"].isin(seeds)].sort_values("seed")
    found = {}
    for name in KINDS:
        shares = np.stack(of[name].to_numpy())
        rare = shares[:, -rare_modes(shares.shape[1]) :].sum(axis=1)
        bits = np.array([entropy(one) for one in shares])
        found[name] = {
            "shares": shares.mean(axis=0).tolist(),
            "entropy": _mean(bits, confidence, "{:.2f}"),
            "rare": _mean(rare, confidence, "{:.1%}"),
        }
    return found


def _mean(values: np.ndarray, confidence: float, style: str) -> str:
    """A mean over seeds as a text, with its interval if there are several."""
    if np.isnan(values).any():
        return "unknown: in a seed, no text could be read"
    found = mean_interval(values, confidence=confidence)
    mean, low, high = (style.format(number) for number in (found.mean, found.low, found.high))
    return mean if len(values) == 1 else f"{mean} [{low}, {high}]"
