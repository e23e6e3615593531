"""Known preferences -> answers of simulated annotators, to test the analysis of votes. Never shown as people's."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

from ddpo_lib.people.human_eval import STORIES
from ddpo_lib.people.two_way_intervals import Spread
from ddpo_lib.people.votes import QUESTIONS

SECONDS = 90.0  # median time of simulated annotators per item
ALIKE, DIFFERENT = Spread(0.0, 0.0), Spread(0.3, 0.1)  # simulated items and annotators without, and with, differences


def assign(items: int, labels: int, per_annotator: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The item and the annotator of each label. Items are assigned at random; no annotator gets an item twice.

    Args:
        items: their number.
        labels: labels per item.
        per_annotator: items per annotator, at most the number of items; the last annotator may get fewer.

    Returns:
        Two (items * labels,) integer arrays, with items and annotators numbered from 0.
    """
    rng = np.random.default_rng(seed)
    order = np.empty(0, dtype=int)
    for _ in range(labels):
        open_batch = order[len(order) - len(order) % per_annotator :]
        round_ = rng.permutation(items)
        order = np.concatenate([order, round_[np.argsort(np.isin(round_, open_batch), kind="stable")]])
    return order, np.arange(len(order)) // per_annotator


def simulate_choices(
    first: float,
    second: float,
    items: np.ndarray,
    annotators: np.ndarray,
    *,
    spread: Spread = ALIKE,
    left: np.ndarray | None = None,
    side: float = 0.0,
    studies: int = 1,
    seed: int,
) -> np.ndarray:
    """Choices of annotators with a known preference, by an ordered probit model.

    A label's latent preference is normal with variance 1; `spread` gives the shares of items and annotators in it. The
    label is the first arm above one threshold, the second arm below another, and a tie in between. Over items,
    annotators and sides, a label is the first arm with probability `first` and the second with probability `second`.

    Args:
        first, second: probabilities.
        items, annotators: (labels,), as `assign` gives them.
        spread: shares of the latent variance.
        left: (labels,) whether the first arm is on the left.
        side: how much the latent preference for an arm rises if it is on the left.
        studies: the number of independent studies, each with its own items and annotators.
        seed: of the draws.

    Returns:
        (studies, labels) of 1 (first), -1 (second), 0 (tie).
    """
    rng = np.random.default_rng(seed)
    parts = (
        np.sqrt(share) * rng.standard_normal((studies, codes.max() + 1))[:, codes]
        for share, codes in zip(spread, (items, annotators), strict=True)
    )
    shift = side * np.where(left, 1.0, -1.0) if left is not None else 0.0
    own = np.sqrt(1 - sum(spread)) * rng.standard_normal((studies, len(items)))
    latent = sum(parts, own) + shift
    return (latent > _threshold(first, side)).astype(int) - (latent < -_threshold(second, side))


def simulate(
    *,
    items: int = 100,
    labels: int = 3,
    per_annotator: int = 25,
    quality: tuple[float, float] = (0.45, 0.45),
    diversity: tuple[float, float] = (0.62, 0.26),
    spread: Spread = DIFFERENT,
    side: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """A table of answers in the form of a study, by simulated annotators. It must not be shown as people's.

    Args:
        items, labels, per_annotator: as in `assign`.
        quality, diversity: probabilities of a label for the first and for the second arm; the rest are ties.
        spread, side: as in `simulate_choices`, the same for both questions.
        seed: of all random draws.
    """
    rng = np.random.default_rng(seed)
    item, annotator = assign(items, labels, per_annotator, seed=seed)
    left = (rng.random(items) < 0.5)[item]
    table = pd.DataFrame(
        {
            "item": [f"item-{i:04d}" for i in item],
            "prompt_id": [f"prompt-{i:04d}" for i in item],
            "annotator": [f"simulated-{a:03d}" for a in annotator],
            "first_side": np.where(left, "left", "right"),
        }
    )
    names = np.array(["tie", "first", "second"])  # by code, -1 from the end
    for question, rates in zip(QUESTIONS, (quality, diversity), strict=True):
        drawn = {"spread": spread, "left": left, "side": side, "seed": int(rng.integers(2**31))}
        (choices,) = simulate_choices(*rates, item, annotator, **drawn)
        table[question] = names[choices]
        table[f"{question}_side"] = np.where(choices == 0, "tie", np.where((choices > 0) == left, "left", "right"))
    place = pd.Series(rng.integers(1, STORIES + 1, len(table)), dtype="Int64")
    place += STORIES * (table["quality_side"] == "right")
    table.insert(6, "story", place.mask(table["quality"] == "tie"))
    table["seconds"] = SECONDS * np.exp(0.5 * rng.standard_normal(len(table)))
    table["attention"] = False
    table["passed"] = pd.array([pd.NA] * len(table), dtype="boolean")
    return table


def _threshold(share: float, side: float) -> float:
    """The threshold with `share` above it, for a normal variable shifted up or down by `side`, equally often."""
    if side == 0 or share in (0, 1):
        return float(norm.isf(share))
    edge = abs(norm.isf(share)) + abs(side) + 1
    return brentq(lambda at: (norm.sf(at - side) + norm.sf(at + side)) / 2 - share, -edge, edge)
