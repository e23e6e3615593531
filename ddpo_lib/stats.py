"""Scores -> intervals, resampled by prompt: responses to one prompt are not independent, prompts are."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over prompts, or a ratio of two sums over them, and its percentile bootstrap interval."""

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
    values = _finite("values", values)
    return bootstrap_ratio(values, np.ones(len(values)), draws=draws, confidence=confidence, seed=seed)


def bootstrap_ratio(parts: np.ndarray, wholes: np.ndarray, *, draws: int, confidence: float, seed: int) -> Interval:
    """Sum of `parts` over sum of `wholes`, with a percentile interval from resampling prompts.

    For a share of things of which a prompt has many, few or none: a prompt counts by its whole. Prompts whose whole is
    zero have nothing to say, and are neither drawn nor counted.

    Args:
        parts: (prompts,) finite floats.
        wholes: (prompts,) finite floats, none negative.
        draws, confidence, seed: as in `bootstrap_mean`.

    Raises:
        ValueError: wrong shapes, a number that is not finite (names the first), a negative whole, or all of them zero.
    """
    parts, wholes = _finite("parts", parts), _finite("wholes", wholes)
    if parts.shape != wholes.shape or (wholes < 0).any() or not wholes.any():
        raise ValueError(f"wholes: expected {len(parts)} numbers >= 0, not all of them zero")
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(parts), (draws, len(parts)))
    ratios = parts[drawn].sum(axis=1) / wholes[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(parts.sum() / wholes.sum()), float(low), float(high), len(parts))


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if values.size == 0 or bad.size:
        what = "no values" if values.size == 0 else f"entry {bad[0]} is {values[bad[0]]}"
        raise ValueError(f"{name}: {what}; expected finite numbers, one a prompt")
    return values
