"""What a model writes in a world with known modes -> where its probability went."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ddpo_lib.modeworld import World, plot_probabilities, read_mode, voice_probabilities
from ddpo_lib.published import verdict
from ddpo_lib.stats import compare, holm, plain

MEASURES = ("rare_plots", "rare_good", "rare_voices", "plot_entropy", "voice_entropy", "flawed", "none")
RARE = 3  # the rarest third of the modes is called rare


def read_modes(texts: pd.Series) -> pd.DataFrame:
    """A row a text: `plot voice flawed` as `modeworld.Mode` has them, -1 and False where the text is none of them."""
    modes = [read_mode(text) for text in texts]
    rows = [(-1, -1, False) if mode is None else tuple(mode) for mode in modes]
    return pd.DataFrame(rows, columns=["plot", "voice", "flawed"], index=texts.index)


def measure(modes: pd.DataFrame, world: World) -> dict:
    """Shares of the modes among texts, and what they come to.

    Args:
        modes: `plot voice flawed` a row a text, as `read_modes` gives them or `modeworld.write_corpus` has them.
        world: its `plots` and `voices` are counted.

    Returns:
        `texts`; `none`, the share that the grammar cannot write; and of the others: `flawed`, `plots` (K,) and
        `voices` (V,) shares, the commonest of the world first, `rare_plots` and `rare_voices`, the share of the rarest
        third (one mode at least), `rare_good`, the share that has a rare plot and no flaw, and for `plot` and `voice`
        `_entropy` in bits and `_coverage`, the share of the modes that occur. NaN where nothing can be read.
    """
    known = modes[modes["plot"] >= 0]
    plots, voices = _shares(known["plot"], world.plots), _shares(known["voice"], world.voices)
    rare = known["plot"] >= world.plots - rare_modes(world.plots)
    return {
        "texts": len(modes),
        "none": 1 - len(known) / len(modes),
        "flawed": float(known["flawed"].mean()),
        "plots": plots.tolist(),
        "voices": voices.tolist(),
        "rare_plots": float(plots[-rare_modes(world.plots) :].sum()),
        "rare_voices": float(voices[-rare_modes(world.voices) :].sum()),
        "rare_good": float((rare & ~known["flawed"].astype(bool)).mean()),
        "plot_entropy": entropy(plots),
        "voice_entropy": entropy(voices),
        "plot_coverage": float((plots > 0).mean()),
        "voice_coverage": float((voices > 0).mean()),
    }


def true_shares(world: World) -> dict:
    """What `measure` would give for endless texts of the world itself, where it does not hang on their number."""
    plots, voices = plot_probabilities(world), voice_probabilities(world)
    return {
        "plots": plots.tolist(),
        "voices": voices.tolist(),
        "rare_plots": float(plots[-rare_modes(world.plots) :].sum()),
        "rare_voices": float(voices[-rare_modes(world.voices) :].sum()),
        "plot_entropy": entropy(plots),
        "voice_entropy": entropy(voices),
        "flawed": world.flawed,
    }


def rare_modes(number: int) -> int:
    """How many of so many modes are called rare."""
    return max(1, number // RARE)


def entropy(shares: np.ndarray) -> float:
    """Entropy in bits of shares that sum to 1; NaN for NaN."""
    if np.isnan(shares).any():
        return float("nan")
    positive = shares[shares > 0]
    return float(np.abs((positive * np.log2(positive)).sum()))


def _shares(found: pd.Series, number: int) -> np.ndarray:
    """(number,) shares of 0, 1, ... among what was found; a mode that the world does not have counts in the whole."""
    counts = np.bincount(found, minlength=number)[:number]
    return counts / len(found) if len(found) else np.full(number, np.nan)


def summarise(table: pd.DataFrame, *, baseline: str, draws: int, confidence: float, seed: int) -> dict:
    """Means over seeds for every row, and differences to one of them, paired by seed.

    Args:
        table: rows of one world, as `worlds.join` writes them.
        baseline: the row that the others are compared with.
        draws, confidence, seed: of the bootstrap over seeds; p is corrected over all rows (`stats.compare`).

    Returns:
        Under "rows", by row and measure, a mapping with the fields of `stats.Interval`, whose `prompts` are seeds here;
        under "differences" likewise those of `stats.Difference`.
    """
    rows = list(dict.fromkeys(table["row"]))
    seeds = sorted(table["seed"].unique())
    cube = np.stack(
        [
            table.pivot(index="row", columns="seed", values=measure).reindex(index=rows, columns=seeds).to_numpy(float)
            for measure in MEASURES
        ],
        axis=1,
    )
    options = {"draws": draws, "confidence": confidence, "seed": seed}
    found = compare(cube, baseline=rows.index(baseline), **options)
    result = {
        "rows": {row: dict(zip(MEASURES, means, strict=True)) for row, means in zip(rows, found.means, strict=True)},
        "differences": {rows[i]: dict(zip(MEASURES, row, strict=True)) for i, row in found.differences.items()},
    }
    return plain(result)


def judge_claims(table: pd.DataFrame, claims: list[dict], *, draws: int, confidence: float, seed: int) -> list[dict]:
    """The claims of `published.yaml` under `worlds`, each with its paired difference over seeds and its verdict.

    Args:
        table: as `worlds.join` writes it.
        claims: those whose rows the table has are judged; p is corrected over them (Holm).
        draws, confidence, seed: of the bootstrap over seeds.

    Returns:
        The judged claims, each with `difference`, the fields of `stats.Difference` (its `prompts` are seeds), and
        `verdict`.
    """
    known = set(table["row"])
    judged = [claim for claim in claims if {claim["row"], claim["against"]} <= known]
    found = []
    for claim in judged:
        sides = [table[table["row"] == claim[side]].set_index("seed")[claim["measure"]] for side in ("against", "row")]
        values = pd.concat(sides, axis=1).to_numpy(float).T[:, None, :]
        compared = compare(values, baseline=0, draws=draws, confidence=confidence, seed=seed)
        found.append(plain(compared.differences[1][0]))
    p = holm(np.array([np.nan if f["p"] is None else f["p"] for f in found]))
    result = []
    for claim, difference, corrected in zip(judged, found, p.tolist(), strict=True):
        difference["p_corrected"] = None if np.isnan(corrected) else corrected
        answer = verdict(difference, claim["expect"], claim.get("margin", 0.0))
        result.append({**claim, "difference": difference, "verdict": answer})
    return result


class Grid(NamedTuple):
    """What `worlds.join` left in a folder."""

    table: pd.DataFrame  # a row a row of the grid and seed
    traces: pd.DataFrame  # a row a measurement through training
    truth: dict  # by world, of `true_shares`
    made: dict  # the manifest: when, where, how long


def read_grid(folder: Path) -> Grid:
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("modes", "traces")]
    return Grid(
        *tables, *(json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in ("truth", "manifest"))
    )


def fullest(here: Grid, kept: Path) -> tuple[Grid, bool]:
    """This run's grid, or the one kept with the project where that has more seeds; and whether it is this run's.

    Args:
        here: of the run.
        kept: the folder of the kept one, which may be missing.
    """
    if not kept.is_dir():
        return here, True
    other = read_grid(kept)
    return (other, False) if other.table["seed"].nunique() > here.table["seed"].nunique() else (here, True)
