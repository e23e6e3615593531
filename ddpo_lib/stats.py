"""Scores -> intervals, resampled by prompt: responses to one prompt are not independent, prompts are."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float
    prompts: int


def bootstrap_mean(values: np.ndarray, *, draws: int, confidence: float, seed: int) -> Interval:
    """Mean of one value a prompt, with a percentile interval from resampling prompts.

    For a difference between two arms give the differences by prompt: the same prompts are then drawn for both.

    Args:
        values: (prompts,) finite floats.
        draws: number of resamples.
        confidence: 0.95 for a 95% interval.
        seed: of the resampling.

    Raises:
        ValueError: no value, or one that is not finite (names the first).
    """
    values = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if values.size == 0 or bad.size:
        what = "no values" if values.size == 0 else f"entry {bad[0]} is {values[bad[0]]}"
        raise ValueError(f"values: {what}; expected finite numbers, one a prompt")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))
