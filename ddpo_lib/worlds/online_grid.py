"""Rows that learn online, over seeds -> one table of the last rounds, one of all rounds, and verdicts on expectations.

The expectations of `online_world.yaml` were written before the rows were made.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.profiles.online_settings import OnlineWorld
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.worlds import modes
from ddpo_lib.worlds.grids import fuller
from ddpo_lib.worlds.small_models import world_of

EXPECTED = Path(__file__).with_name("online_world.yaml")
SUMMED = ("samples", "left_out", "pairs", "steps", "sampling_seconds", "training_seconds")  # over the rounds of a row


class OnlineGrid(NamedTuple):
    """The files that `join` wrote to a folder."""

    table: pd.DataFrame  # one row per row of the grid and seed, from `last_rounds`
    rounds: pd.DataFrame  # one row per row of the grid, seed and round
    truth: dict  # of the main world, from `modes.true_shares`
    settings: OnlineWorld
    world: dict  # the other settings that the rows depend on
    made: dict  # the manifest: when, where, how long


@cache
def expectations() -> list[dict]:
    """What was expected of the rows, in the form of the claims of `published.yaml`, each with `why`."""
    return yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))


def gather(rows: dict[tuple[str, int], str], folder: Path, run: Run) -> None:
    """One table of the rounds of all rows.

    Args:
        rows: (name of a row, seed) -> its artifact.
    """
    parts = [
        run.table(made, "rounds.parquet").assign(row=name, seed=seed, world=MAIN_WORLD)
        for (name, seed), made in rows.items()
    ]
    pd.concat(parts, ignore_index=True).to_parquet(folder / "rounds.parquet")


def join(profile: Profile, parts: list[str], folder: Path, run: Run) -> None:
    """Join the tables of `gather`, and write the rows' last rounds, the settings and the true shares.

    Args:
        parts: artifacts of `gather`.
    """
    rounds = pd.concat([run.table(part, "rounds.parquet") for part in parts], ignore_index=True)
    rounds.to_parquet(folder / "rounds.parquet")
    last_rounds(rounds).to_parquet(folder / "modes.parquet")
    write_json(folder / "settings.json", {"online_world": profile.online_world.model_dump(), **shared(profile)})
    write_json(folder / "truth.json", modes.true_shares(world_of(profile.worlds, MAIN_WORLD, 0)))


def shared(profile: Profile) -> dict:
    """The settings of a profile, besides its rows and seeds, that decide what a row is."""
    world = profile.worlds.model_dump(exclude={"seeds", "trace", "rows", "kinds", "preference_prompts"})
    plan = profile.online_world.model_dump(exclude={"seeds", "rows"})
    return {"world": world | {"main": profile.worlds.kinds[MAIN_WORLD]}, "gap": profile.data.gap, "plan": plan}


def last_rounds(rounds: pd.DataFrame) -> pd.DataFrame:
    """One row per row of the grid and seed: the measures of the last round, and those of `SUMMED` in total.

    The row "sft" is the model before any round. `late_gain` is the gain in entropy over plots in the last round minus
    that in the first: below 0 if the gain slows down; NaN for a row that is measured only once. `seconds_per_pair` and
    `samples_per_pair` are what a pair cost: sampling and training (processor time), without measuring.

    Args:
        rounds: the table of `gather`.
    """
    found = []
    for (row, seed), of in rounds.sort_values("round").groupby(["row", "seed"], sort=False):
        entropy, last = of["plot_entropy"].to_numpy(), of.iloc[-1].to_dict()
        total = of[list(SUMMED)].sum().to_dict()
        each = total["sampling_seconds"] + total["training_seconds"]
        late = entropy[-1] - entropy[-2] - (entropy[1] - entropy[0]) if len(of) > 2 else float("nan")
        cost = {"seconds_per_pair": each / total["pairs"], "samples_per_pair": total["samples"] / total["pairs"]}
        found.append({**last, **total, **cost, "late_gain": late, "row": row, "seed": seed})
    first = rounds[rounds["round"] == 0].drop_duplicates("seed").assign(row="sft")
    return pd.concat([first, pd.DataFrame(found)], ignore_index=True)


def read_grid(folder: Path) -> OnlineGrid:
    table, rounds = (pd.read_parquet(folder / f"{name}.parquet") for name in ("modes", "rounds"))
    truth, settings, made = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("truth", "settings", "manifest")
    )
    plan = OnlineWorld.model_validate(settings.pop("online_world"))
    return OnlineGrid(table, rounds, truth, plan, settings, made)


def fullest(here: OnlineGrid | None, profile: Profile, kept: Path) -> tuple[OnlineGrid | None, bool]:
    """As `grids.fuller`: the stored grid must have the settings of `profile`, and all rows of the run's."""

    def alike(here: OnlineGrid, other: OnlineGrid) -> bool:
        return shared(profile) == other.world and here.settings.rows.items() <= other.settings.rows.items()

    return fuller(here, kept, read_grid, alike)
