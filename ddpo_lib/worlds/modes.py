"""Texts that a model writes in a world with known modes -> the share of each mode."""

import numpy as np
import pandas as pd

from ddpo_lib.worlds.grammar import is_faithful, read_mode
from ddpo_lib.worlds.modeworld import World, plot_probabilities, voice_probabilities

RARE = 3  # one mode in this many, the rarest, is called rare


def read_modes(stories: pd.DataFrame) -> pd.DataFrame:
    """The modes of stories, from their `prompt` and `text`.

    Returns:
        One row per story: `plot voice flawed` as in `grammar.Mode`, and `faithful`, whether it is about its prompt's
        hero, place and object; -1 and False if the grammar cannot write the text.
    """
    rows = []
    for prompt, text in zip(stories["prompt"], stories["text"], strict=True):
        mode = read_mode(text)
        rows.append((-1, -1, False, False) if mode is None else (*mode, is_faithful(text, prompt)))
    return pd.DataFrame(rows, columns=["plot", "voice", "flawed", "faithful"], index=stories.index)


def measure(modes: pd.DataFrame, world: World) -> dict:
    """Shares of the modes among texts, and statistics of these shares.

    Args:
        modes: one row per text, from `read_modes`.
        world: its `plots` and `voices` are counted.

    Returns:
        `texts`, their number, and `none`, the share that the grammar cannot write. Among the other texts: the shares
        `flawed` and `faithful`; the shares `plots` (K,) and `voices` (V,), the most common of the world first;
        `rare_plots` and `rare_voices`, the share of the rarest third (at least one mode); `rare_good`, the share of
        rare plots among texts without a flaw; for `plot` and `voice` `_entropy` in bits and `_coverage`, the share of
        the modes that occur. NaN if no text can be read.
    """
    known = modes[modes["plot"] >= 0]
    plots, voices = _shares(known["plot"], world.plots), _shares(known["voice"], world.voices)
    good = known[~known["flawed"].astype(bool)]
    good_plots = _shares(good["plot"], world.plots)
    return {
        "texts": len(modes),
        "none": 1 - len(known) / len(modes),
        "flawed": float(known["flawed"].mean()),
        "faithful": float(known["faithful"].mean()),
        "plots": plots.tolist(),
        "voices": voices.tolist(),
        "rare_plots": float(plots[-rare_modes(world.plots) :].sum()),
        "rare_voices": float(voices[-rare_modes(world.voices) :].sum()),
        "rare_good": float(good_plots[-rare_modes(world.plots) :].sum()),
        "plot_entropy": entropy(plots),
        "voice_entropy": entropy(voices),
        "plot_coverage": float((plots > 0).mean()),
        "voice_coverage": float((voices > 0).mean()),
    }


def true_shares(world: World) -> dict:
    """The values of `measure` for infinitely many texts of the world: its shares, its entropies and `flawed`."""
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
    """How many of `number` modes are called rare."""
    return max(1, number // RARE)


def entropy(shares: np.ndarray) -> float:
    """Entropy in bits of shares that sum to 1; NaN for NaN."""
    if np.isnan(shares).any():
        return float("nan")
    positive = shares[shares > 0]
    return float(np.abs((positive * np.log2(positive)).sum()))


def _shares(found: pd.Series, number: int) -> np.ndarray:
    """(number,) shares of 0, 1, ... among the modes found; modes that the world lacks count in the denominator."""
    counts = np.bincount(found, minlength=number)[:number]
    return counts / len(found) if len(found) else np.full(number, np.nan)
