"""Rows of small models in worlds of known modes, over seeds -> means, differences, and verdicts on the claims."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.evaluation.published import decide_family
from ddpo_lib.profiles.world_settings import MAIN_WORLD, Worlds
from ddpo_lib.statistics.intervals import compare

MEASURES = ("rare_plots", "rare_good", "rare_voices", "plot_entropy", "voice_entropy", "flawed", "faithful", "none")


class Grid(NamedTuple):
    """The files that `collect.join` wrote to a folder."""

    table: pd.DataFrame  # one row per row of the grid and seed
    traces: pd.DataFrame  # one row per measurement during training
    truth: dict  # by world, from `modes.true_shares`
    base: dict  # `modes.measure` of the model that all worlds start from
    settings: Worlds  # with which it was made
    made: dict  # the manifest: when, where, how long


def read_grid(folder: Path) -> Grid:
    table, traces = (pd.read_parquet(folder / f"{name}.parquet") for name in ("modes", "traces"))
    truth, base, settings, made = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("truth", "base", "settings", "manifest")
    )
    return Grid(table, traces, truth, base, Worlds.model_validate(settings), made)


def fullest(here: Grid, kept: Path) -> tuple[Grid, bool]:
    """As `fuller`: the grids must have the same main world and training settings, and all rows of the run's."""

    def alike(here: Grid, other: Grid) -> bool:
        same = _shared(here.settings) == _shared(other.settings)
        return same and _rows(here.settings).items() <= _rows(other.settings).items()

    return fuller(here, kept, read_grid, alike)


def fuller(here: Any, kept: Path, read: Callable[[Path], Any], alike: Callable[[Any, Any], bool]) -> tuple[Any, bool]:
    """This run's grid, or the stored one if it has more seeds; and whether the grid is this run's.

    Args:
        here: the grid of the run, with a `table` that has a column `seed`; None if its profile makes none. Then the
            stored one is used, if there is one.
        kept: the folder of the grid stored with the project; it may be missing.
        read: reads a stored grid.
        alike: of (here, stored), whether the stored grid has the same settings, and all that the run's has.
    """
    if not (kept / "manifest.json").is_file():
        return here, True
    other = read(kept)
    if here is None:
        return other, False
    more = other.table["seed"].nunique() > here.table["seed"].nunique()
    return (other, False) if more and alike(here, other) else (here, True)


def _rows(settings: Worlds) -> dict[str, str]:
    """By name, the settings of each row, except whether it is traced."""
    return {name: row.model_dump_json(exclude={"traced"}) for name, row in settings.rows.items()}


def _shared(settings: Worlds) -> dict:
    """The settings in which two grids must agree for their rows to be the same."""
    different = {"seeds", "trace", "rows", "kinds"}
    return settings.model_dump(exclude=different) | {"main": settings.kinds[MAIN_WORLD]}


def summarise_rows(
    table: pd.DataFrame, *, baseline: str, confidence: float, measures: Sequence[str] = MEASURES
) -> dict:
    """Means over seeds for every row, and differences to one of them, paired by seed.

    Args:
        table: the rows of one world that `collect.join` writes.
        baseline: the row that the others are compared with.
        confidence: of the t intervals over seeds.
        measures: columns of the table.

    Returns:
        Under "rows", by row and measure, a mapping with the fields of `intervals.Interval`, whose `prompts` are seeds
        here; under "differences" likewise those of `intervals.Difference`.
    """
    rows = list(dict.fromkeys(table["row"]))
    seeds = sorted(table["seed"].unique())
    cube = np.stack(
        [
            table.pivot(index="row", columns="seed", values=measure).reindex(index=rows, columns=seeds).to_numpy(float)
            for measure in measures
        ],
        axis=1,
    )
    at = rows.index(baseline)
    found = compare(cube, against=[None if row == baseline else at for row in rows], confidence=confidence)
    result = {
        "rows": {row: dict(zip(measures, means, strict=True)) for row, means in zip(rows, found.means, strict=True)},
        "differences": {rows[i]: dict(zip(measures, row, strict=True)) for i, row in found.differences.items()},
    }
    return plain(result)


def paired(table: pd.DataFrame, row: str, against: str, measure: str, *, confidence: float) -> dict:
    """One row of the grid minus another, in a column of the table: the fields of `intervals.Difference`, by seed.

    The rows may be of different worlds. The `prompts` of the difference are seeds.
    """
    sides = [table[table["row"] == name].set_index("seed")[measure] for name in (against, row)]
    values = pd.concat(sides, axis=1).to_numpy(float).T[:, None, :]
    return plain(compare(values, against=[None, 0], confidence=confidence).differences[1][0])


def decide_rows(table: pd.DataFrame, claims: list[dict], *, confidence: float) -> list[dict]:
    """The claims of `published.yaml` under `worlds`, each with its paired difference over seeds and its verdict.

    Args:
        table: the table that `collect.join` writes.
        claims: those whose rows the table contains are decided, as one family.
        confidence: of the t intervals over seeds.

    Returns:
        The claims, each with `difference`, the fields of `intervals.Difference` (its `prompts` are seeds), and the
        fields that `published.decide_family` adds.
    """
    known = set(table["row"])
    decided = [claim for claim in claims if {claim["row"], claim["against"]} <= known]
    sides = [(claim["row"], claim["against"], claim["measure"]) for claim in decided]
    found = [paired(table, *names, confidence=confidence) for names in sides]
    return decide_family(
        [{**claim, "difference": difference} for claim, difference in zip(decided, found, strict=True)]
    )
