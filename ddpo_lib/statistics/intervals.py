"""Scores -> intervals, differences and tests. Responses to one prompt are not independent; prompts are, and seeds are.

There is one rule. A mean over prompts, over seeds, or over prompts crossed with seeds has Student's t interval, since
seeds are few. Any other number (a ratio of sums, a front, a rank correlation of all responses) is resampled by prompt.

The variance of a mean over prompts crossed with seeds is that of `crossed`, which lists how often the intervals contain
the truth. With one seed, the interval is the plain t interval over prompts; over seeds alone, it is the plain t
interval over seeds.

A number that is not a mean is resampled. A draw takes n - 1 of n prompts with replacement, so that the variance of the
resamples is unbiased (McCarthy and Snowden 1985; Rao and Wu 1988). The ends are the percentiles at Phi(-t), with t from
Student's distribution with n - 1 degrees of freedom, and not at (1 - confidence) / 2 = Phi(-z) (Hesterberg 2015, the
expanded percentile; drawing n - 1 replaces his factor sqrt(n / (n - 1))). Both ends are NaN if an interval would be
narrow and misleading: with fewer than five prompts at 95%, where no resample is as rare as the percentile; with one
prompt at any confidence; and with fewer draws than the percentile needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from ddpo_lib.statistics.crossed import crossed, mean_over, t_ends
from ddpo_lib.statistics.resampling import ends, resample

CHANCE, ALPHA = 0.8, 0.05  # of the paired t test that `Difference.needed` plans, two-sided


@dataclass(frozen=True)
class Interval:
    """A mean, or another number made of means over prompts, and its interval.

    Attributes:
        mean: the number itself, from all prompts.
        low, high: the interval; both NaN where the data give none (this module's docstring says when).
        prompts: number of prompts that it is computed from.
    """

    mean: float
    low: float
    high: float
    prompts: int


@dataclass(frozen=True)
class Tested(Interval):
    """A difference, and a test of whether it is zero.

    Attributes:
        p: two-sided p-value for a difference of zero. If there is an interval, p is below 1 - confidence exactly when
            the interval excludes zero. NaN if the data give no p-value.
    """

    p: float


@dataclass(frozen=True)
class Difference(Tested):
    """A paired difference of means.

    Attributes:
        effect: Cohen's d_z, the mean of the prompts' differences over their standard deviation; infinite if all prompts
            differ by the same amount, 0 if the mean difference is 0, NaN for fewer than two prompts.
        needed: number of prompts with which a paired t test detects half this effect with a chance of 80% at a
            two-sided 5% (Guenther 1981); two or more, and infinite for an effect of 0. More prompts do not reduce
            the variance that comes from seeds.
        seeds: number of seeds that it is computed from.
        error: standard error of the mean. It is 0 if all prompts differ by the same amount; p is then 0, or 1 if that
            amount is 0.
        freedom: degrees of freedom of its t distribution.
    """

    effect: float
    needed: float
    seeds: int
    error: float
    freedom: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: `means[arm][measure]`, and `differences[arm][measure]` for every arm with a twin."""

    means: tuple[tuple[Interval, ...], ...]
    differences: dict[int, tuple[Difference, ...]]


def mean_interval(values: np.ndarray, *, confidence: float) -> Interval:
    """Mean of one value per prompt, or per seed, with Student's t interval.

    For a difference between two arms, pass the differences per prompt.

    Args:
        values: (prompts,) finite floats.
        confidence: 0.95 for a 95% interval.

    Returns:
        The mean and its interval, whose ends are NaN for a single value.

    Raises:
        ValueError: no value, or one that is not finite (names the first).
    """
    values = _finite("values", values)
    found = crossed(values[None, :, None])
    low, high = t_ends(found, confidence)
    return Interval(float(found.mean[0]), float(low[0]), float(high[0]), len(values))


def bootstrap_ratio(parts: np.ndarray, wholes: np.ndarray, *, draws: int, confidence: float, seed: int) -> Interval:
    """Sum of `parts` over sum of `wholes`, with a percentile interval from resampling prompts.

    Use it for a share of items, where one prompt has many items and another has few or none. A prompt counts in
    proportion to its whole. Prompts whose whole is zero are neither drawn nor counted.

    Args:
        parts: (prompts,) finite floats.
        wholes: (prompts,) finite floats, none negative.
        draws: number of resamples.
        confidence: 0.95 for a 95% interval.
        seed: seed of the resampling.

    Returns:
        The ratio and its interval. The ends are NaN if too few prompts count to give an interval.

    Raises:
        ValueError: wrong shapes, a number that is not finite (names the first), a negative whole, or all of them zero.
    """
    parts, wholes = _finite("parts", parts), _finite("wholes", wholes)
    if parts.shape != wholes.shape or (wholes < 0).any() or not wholes.any():
        raise ValueError(f"wholes: expected {len(parts)} numbers >= 0, not all of them zero")
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    drawn = resample(parts[:, None, None], wholes[:, None, None], draws=draws, seed=seed)
    low, high = ends(drawn, np.array([len(parts) - 1.0]), confidence)
    return Interval(float(parts.sum() / wholes.sum()), float(low[0]), float(high[0]), len(parts))


def compare(values: np.ndarray, *, against: Sequence[int | None], confidence: float) -> Comparison:
    """Means per arm and measure, and paired differences between each arm and its twin.

    An arm's twin is the arm that it is compared with. Seed k of an arm is paired with seed k of its twin. For an arm
    without seeds of its own, repeat its values at each seed; its mean then has the interval of one seed. A mean is over
    all values of the arm. A difference is over the prompts and seeds that the arm and its twin have in common.

    Args:
        values: (arms, measures, prompts) or (arms, measures, prompts, seeds), NaN where an arm lacks a prompt or seed.
        against: for each arm the number of its twin, or None for an arm that is not compared.
        confidence: 0.95 for a 95% interval.

    Raises:
        ValueError: wrong shape, no value for an arm and measure, an infinite value (names arm, measure, prompt), or a
            twin that is not another arm.
    """
    values = _checked(np.asarray(values, dtype=np.float64))
    arms, measures = values.shape[:2]
    if len(against) != arms or any(twin is not None and not 0 <= twin < arms for twin in against):
        raise ValueError(f"against: expected a number below {arms} or None for each of {arms} arms, got {against}")
    if alone := [arm for arm, twin in enumerate(against) if twin == arm]:
        raise ValueError(f"against: arm {alone[0]} is compared with itself; give another arm, or None")
    compared = {arm: twin for arm, twin in enumerate(against) if twin is not None}
    cells = np.concatenate([values, values[list(compared)] - values[list(compared.values())]])
    cells = cells.reshape(-1, *values.shape[2:])
    found = crossed(cells)
    low, high = t_ends(found, confidence)
    intervals = list(zip(found.mean.tolist(), low.tolist(), high.tolist(), found.prompts.tolist(), strict=True))

    first = arms * measures  # the columns from here on are differences
    mean, error, freedom, _, seeds = (part[first:] for part in found)
    p = p_at(mean, error, freedom)
    effect = effect_sizes(mean_over(cells[first:], 2).T)
    parts = zip(p, effect, needed_prompts(effect), seeds, error, freedom, strict=True)
    differences = [
        Difference(*interval, float(p), float(effect), float(needed), int(count), float(error), float(freedom))
        for interval, (p, effect, needed, count, error, freedom) in zip(intervals[first:], parts, strict=True)
    ]
    return Comparison(
        _rows([Interval(*interval) for interval in intervals[:first]], measures),
        dict(zip(compared, _rows(differences, measures), strict=True)),
    )


def p_at(mean: np.ndarray, error: np.ndarray, freedom: np.ndarray, null: np.ndarray | float = 0.0) -> np.ndarray:
    """Two-sided p for a true mean of `null`, from Student's t. If the error is 0, p is 1 at `null` and 0 elsewhere."""
    off = np.abs(np.asarray(mean, dtype=np.float64) - null)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * t.sf(np.where(off == 0, 0.0, off / error), freedom)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction: the chance of at least one false finding in the family is at most the chosen level.

    The k-th smallest of m is multiplied by m - k + 1, raised to the result of any smaller one, and cut at 1.

    Args:
        p: (tests,) floats from 0 to 1. NaN means that the test could not be made; it stays NaN and is not counted.

    Returns:
        (tests,) in the order given.
    """
    p = np.asarray(p, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def effect_sizes(differences: np.ndarray) -> np.ndarray:
    """Cohen's d_z of each column of (prompts, columns), NaN where a prompt is missing; see `Difference.effect`."""
    mean, variance, count = _moments(differences)
    spread = np.sqrt(variance * count)
    alike = spread <= 1e-12 * np.abs(mean)  # the spread is rounding alone
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(alike, np.copysign(np.inf, mean), mean / spread)
    return np.where(count < 2, np.nan, np.where(mean == 0, 0.0, effect))


def needed_prompts(effect: np.ndarray) -> np.ndarray:
    """Number of prompts needed to detect half of each effect; see `Difference.needed`."""
    level, chance = norm.ppf(1 - ALPHA / 2), norm.ppf(CHANCE)
    with np.errstate(divide="ignore"):
        return np.maximum(2, np.ceil(((level + chance) / (np.asarray(effect) / 2)) ** 2 + level**2 / 2))


def undecided(value: Mapping, level: float = ALPHA) -> str | None:
    """A remark if a resampled p is within two of its Monte-Carlo standard errors of the level; otherwise None.

    Args:
        value: has `p` and `p_error`, and `p_corrected` if p was corrected. The corrected p is then compared, and its
            error is scaled in proportion. A p without `p_error` was not resampled, and the result is None.
        level: the level that p is compared with.
    """
    p, error = value.get("p"), value.get("p_error")
    if p is None or error is None:
        return None
    corrected = value.get("p_corrected")
    if corrected is not None and p > 0:
        p, error = corrected, error * corrected / p
    if abs(p - level) > 2 * error:
        return None
    return f"p {p:.4f} is within two Monte-Carlo standard errors ({error:.4f} each) of {level:g}: more draws can decide"


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of each column, variance of that mean (0 for one row) and number of rows, with NaN left out."""
    there = ~np.isnan(rows)
    count = there.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, rows, 0.0).sum(axis=0) / count
    squares = np.where(there, rows - mean, 0.0) ** 2
    return mean, squares.sum(axis=0) / np.maximum(count - 1, 1) / np.maximum(count, 1), count


def _rows(cells: list, width: int) -> tuple[tuple, ...]:
    return tuple(tuple(cells[start : start + width]) for start in range(0, len(cells), width))


def _checked(values: np.ndarray) -> np.ndarray:
    """The values as (arms, measures, prompts, seeds). Each arm and measure must have a value; none may be infinite."""
    if values.ndim not in (3, 4):
        raise ValueError(f"values: expected (arms, measures, prompts[, seeds]), got {values.ndim} dimensions")
    values = values if values.ndim == 4 else values[..., None]
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        arm, measure, prompt, seed = infinite[0]
        raise ValueError(
            f"values: arm {arm}, measure {measure}, prompt {prompt} is {values[arm, measure, prompt, seed]}; "
            "expected finite numbers, or NaN for a missing value"
        )
    empty = np.argwhere(np.isnan(values).all(axis=(2, 3)))
    if len(empty):
        raise ValueError(f"values: arm {empty[0][0]}, measure {empty[0][1]} has no value for any prompt")
    return values


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if values.size == 0 or bad.size:
        what = "no values" if values.size == 0 else f"entry {bad[0]} is {values[bad[0]]}"
        raise ValueError(f"{name}: {what}; expected finite numbers, one per prompt")
    return values
