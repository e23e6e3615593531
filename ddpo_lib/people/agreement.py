"""How far the labels of an item agree: Krippendorff's alpha (2011), the share of agreeing pairs, and the majority.

Alpha is computed here because its interval needs it thousands of times, and because the package `krippendorff` is under
the GPL. The tests compare both.
"""

from typing import TypedDict

import numpy as np
import pandas as pd

from ddpo_lib.statistics.resampling import ends, resample

CODES = {"first": 1, "second": -1, "tie": 0}


class Estimate(TypedDict):
    """A number and the ends of its interval; None if there is none."""

    mean: float | None
    low: float | None
    high: float | None


class Agreement(TypedDict):
    """`alpha` is Krippendorff's for nominal labels, None if all labels are equal. `pairs` is the share of agreeing
    pairs among the pairs of labels of one item. Then follow the numbers of items whose labels all agree
    (`unanimous`), of others with a `majority`, and of those with `neither`."""

    alpha: Estimate
    pairs: float | None
    unanimous: int
    majority: int
    neither: int


def count_labels(answers: pd.DataFrame, question: str) -> pd.DataFrame:
    """The number of labels of each kind: one row per item, in columns 1, -1 and 0."""
    table = pd.crosstab(answers["item"], answers[question].map(CODES))
    return table.reindex(columns=list(CODES.values()), fill_value=0)


def majority(answers: pd.DataFrame, question: str) -> pd.Series:
    """By item, the answer of more than half of its labels: 1 the first arm, -1 the second; 0 otherwise."""
    counts = count_labels(answers, question)
    most = counts.to_numpy().argmax(axis=1)
    clear = counts.to_numpy().max(axis=1) * 2 > counts.to_numpy().sum(axis=1)
    return pd.Series(np.where(clear, counts.columns.to_numpy()[most], 0), index=counts.index)


def agreement(counts: np.ndarray, *, draws: int, confidence: float, seed: int) -> dict:
    """The fields of `Agreement`, from (items, kinds of label) counts as in `alpha`."""
    several = counts[counts.sum(axis=1) > 1]
    labels, most = several.sum(axis=1), several.max(axis=1, initial=0)
    pairs = (several * (several - 1)).sum(axis=1) / (labels * (labels - 1))
    clear = 2 * most > labels
    return {
        "alpha": alpha_interval(counts, draws=draws, confidence=confidence, seed=seed),
        "pairs": float(pairs.mean()) if len(pairs) else None,
        "unanimous": int((most == labels).sum()),
        "majority": int((clear & (most < labels)).sum()),
        "neither": int((~clear).sum()),
    }


def alpha(counts: np.ndarray) -> float:
    """Krippendorff's alpha of nominal labels (2011): 1 - observed / expected disagreement.

    It is 1 if the labels of every item agree, and about 0 if labels are random.

    Args:
        counts: (items, kinds of label), the number of labels of each kind; items with fewer than two are skipped.

    Returns:
        Alpha; NaN if all labels are equal, or no item has two.
    """
    parts = _alpha_parts(counts)
    return float(_alpha(parts.mean(axis=0)[None], len(parts))[0]) if len(parts) else float("nan")


def alpha_interval(counts: np.ndarray, *, draws: int, confidence: float, seed: int) -> dict:
    """`alpha` with an interval from resampling items, as in `stats`; the fields of `Estimate`."""
    parts = _alpha_parts(counts)
    low = high = np.array([np.nan])
    if len(parts) > 1:
        ones = np.ones((len(parts), 1, parts.shape[1]))
        drawn = resample(parts[:, None, :], ones, draws=draws, seed=seed)
        low, high = ends(_alpha(drawn, len(parts))[:, None], np.array([len(parts) - 1.0]), confidence)
    return {"mean": alpha(counts), "low": float(low[0]), "high": float(high[0])}


def _alpha_parts(counts: np.ndarray) -> np.ndarray:
    """(items, 1 + kinds): an item's disagreeing pairs over (its labels - 1), and its labels of each kind."""
    counts = np.asarray(counts, float)
    counts = counts[counts.sum(axis=1) > 1]
    labels = counts.sum(axis=1)
    apart = (labels**2 - (counts**2).sum(axis=1)) / (labels - 1)
    return np.column_stack([apart, counts])


def _alpha(means: np.ndarray, items: int) -> np.ndarray:
    """Alpha from (draws, 1 + kinds) means over items of `_alpha_parts`."""
    apart, kinds = means[:, 0], means[:, 1:]
    labels = kinds.sum(axis=1)
    chance = items * (labels**2 - (kinds**2).sum(axis=1)) / (items * labels - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance > 1e-12, 1 - apart / chance, np.nan)
