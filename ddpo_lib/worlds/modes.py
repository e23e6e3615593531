"""What a model writes in a world with known modes -> where its probability went."""

import numpy as np
import pandas as pd

from ddpo_lib.worlds.modeworld import World, is_faithful, plot_probabilities, read_mode, voice_probabilities

RARE = 3  # the rarest third of the modes is called rare


def read_modes(stories: pd.DataFrame) -> pd.DataFrame:
    """What stories are, by their `prompt` and `text`.

    Returns:
        A row a story: `plot voice flawed` as `modeworld.Mode` has them, and `faithful`, whether it is about its
        prompt's hero, place and object; -1 and False where the grammar cannot write the text.
    """
    rows = []
    for prompt, text in zip(stories["prompt"], stories["text"], strict=True):
        mode = read_mode(text)
        rows.append((-1, -1, False, False) if mode is None else (*mode, is_faithful(text, prompt)))
    return pd.DataFrame(rows, columns=["plot", "voice", "flawed", "faithful"], index=stories.index)


def measure(modes: pd.DataFrame, world: World) -> dict:
    """Shares of the modes among texts, and what they come to.

    Args:
        modes: a row a text, as `read_modes` gives them.
        world: its `plots` and `voices` are counted.

    Returns:
        `texts`; `none`, the share that the grammar cannot write; and of the others: `flawed` and `faithful`, `plots`
        (K,) and `voices` (V,) shares, the commonest of the world first, `rare_plots` and `rare_voices`, the share of
        the rarest third (one mode at least), `rare_good`, the share of rare plots among those without a flaw, and for
        `plot` and `voice` `_entropy` in bits and `_coverage`, the share of the modes that occur. NaN where nothing can
        be read.
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
