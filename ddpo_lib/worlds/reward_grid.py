"""Rows of small models that learned from rewards -> one table with seeds, what each rule rewards, and verdicts."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.reward_settings import Rewards
from ddpo_lib.profiles.world_settings import MAIN_WORLD, WORLD_SPACES
from ddpo_lib.rewards.advantages import grpo
from ddpo_lib.rewards.deviation_reward import BLANK
from ddpo_lib.rewards.rules import RULES, cosine_distances, shape
from ddpo_lib.spaces.embed import COUNTED
from ddpo_lib.worlds import modes
from ddpo_lib.worlds.grids import fuller
from ddpo_lib.worlds.reward_rows import measure_all

CLAIMS = Path(__file__).with_name("reward_claims.yaml")  # what was expected before the grid was run
SFT = "sft"  # the row of the models that all others start from
RARE, OTHER, FLAWED, BROKEN = "good, rare plot", "good, other plot", "flawed", "broken"  # kinds of samples
SPACE, GROUP = "semantic", 8  # of the table that shows what a rule rewards before any training


class RewardGrid(NamedTuple):
    """The files that `join` wrote to a folder."""

    table: pd.DataFrame  # one row per row and seed
    panels: pd.DataFrame  # one row per rule, division and kind of sample: the mean advantage
    settings: Rewards  # with which it was made
    main: dict  # the fields of its world
    made: dict  # the manifest: when, where, how long


@cache
def expected() -> list[dict]:
    """The content of `reward_claims.yaml`: claims as `grids.decide_rows` takes them, each with a `letter`."""
    return yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))


def gather(rows: dict[tuple[str, int], str], folder: Path, run: Run) -> None:
    """One table of the measures of rows.

    Args:
        rows: (name of a row, seed) -> its artifact.
    """
    table = []
    for (name, seed), artifact in rows.items():
        found = run.json(artifact, "modes.json")
        steps = found["quality"]
        facts = {"row": name, "seed": seed, "flat": found["flat"], "first": steps[0], "last": steps[-1]}
        table.append({**facts, **found["row"], "seconds": run.manifest(artifact)["seconds"]})
    pd.DataFrame(table).to_parquet(folder / "rewards.parquet")


def join(profile: Profile, parts: list[str], starts: dict[int, str], folder: Path, run: Run) -> None:
    """Join the tables of `gather`, add the models after SFT, and write what each rule rewards among their samples.

    Args:
        parts: artifacts of `gather`.
        starts: by seed, the artifact of its world.
    """
    samples = {seed: run.table(start, "samples.parquet") for seed, start in starts.items()}
    sft = [{"row": SFT, "seed": seed, **measure_all(texts, profile, seed)} for seed, texts in samples.items()]
    rows = [run.table(part, "rewards.parquet") for part in parts]
    pd.concat([pd.DataFrame(sft), *rows], ignore_index=True).to_parquet(folder / "rewards.parquet")
    plots = modes.rare_modes(len(sft[0]["plots"])), len(sft[0]["plots"])
    told = [advantages_by_kind(texts, plots) for texts in samples.values()]
    joined = pd.concat(told, ignore_index=True).groupby(["rule", "scaled", "kind"], as_index=False, sort=False)
    joined.agg(advantage=("advantage", "mean"), samples=("advantage", "size")).to_parquet(folder / "panels.parquet")
    write_json(folder / "settings.json", profile.rewards.model_dump())
    write_json(folder / "main.json", profile.worlds.kinds[MAIN_WORLD])


def advantages_by_kind(texts: pd.DataFrame, plots: tuple[int, int]) -> pd.DataFrame:
    """The advantage of each sample under each rule, with and without division by the group's spread.

    The groups are samples of one prompt, GROUP of them each; what is left of a prompt's samples is not used.

    Args:
        texts: samples of a model, with `prompt` and `text`.
        plots: how many plots are called rare, and how many there are.

    Returns:
        One row per sample, rule and division: `rule scaled kind advantage`.
    """
    told = modes.read_modes(texts)
    good = told["faithful"] & ~told["flawed"].astype(bool)
    rare = told["plot"] >= plots[1] - plots[0]
    whole = (told["plot"] >= 0) & told["faithful"]
    kind = np.select([good & rare, good, whole], [RARE, OTHER, FLAWED], BROKEN)
    vectors = COUNTED[WORLD_SPACES[SPACE]]([text if text.strip() else BLANK for text in texts["text"]])
    found = []
    for _, rows in texts.reset_index(drop=True).groupby("prompt", sort=False).indices.items():
        for start in range(0, len(rows) - GROUP + 1, GROUP):
            group = rows[start : start + GROUP]
            distances = cosine_distances(vectors[group])
            for rule in RULES:
                rewards = shape(rule, good.to_numpy(float)[group], distances)
                for scaled in (True, False):
                    values = {"kind": kind[group], "advantage": grpo(rewards, scaled=scaled)}
                    found.append(pd.DataFrame({"rule": rule, "scaled": scaled, **values}))
    return pd.concat(found, ignore_index=True)


def read_rewards(folder: Path) -> RewardGrid:
    table, panels = (pd.read_parquet(folder / f"{name}.parquet") for name in ("rewards", "panels"))
    settings, main, made = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("settings", "main", "manifest")
    )
    return RewardGrid(table, panels, Rewards.model_validate(settings), main, made)


def fullest(here: RewardGrid | None, kept: Path) -> tuple[RewardGrid | None, bool]:
    """As `grids.fuller`: the grids must have the same world and training settings, and all rows of the run's."""

    def alike(here: RewardGrid, other: RewardGrid) -> bool:
        mine, theirs = ((grid.main, grid.settings.model_dump(exclude={"seeds", "rows"})) for grid in (here, other))
        return mine == theirs and here.settings.rows.items() <= other.settings.rows.items()

    return fuller(here, kept, read_rewards, alike)
