"""Scores -> intervals, differences and tests. Responses to one prompt are not independent; prompts are, and seeds are.

There is one rule. A mean over prompts, over seeds, or over prompts crossed with seeds has Student's t interval, since
seeds are few. Any other number (a ratio of sums, a front, a rank correlation of all responses) is resampled by prompt.

With several training seeds, every seed answers the same prompts. A value is then a mean plus an effect of its prompt,
an effect of its seed and a residual. The variance of the mean is (MS_prompt + MS_seed - MS_residual) / (prompts x
seeds), from the mean squares of the two-way layout. Its degrees of freedom are Satterthwaite's (1946) over the three
mean squares, and no fewer than the smaller of prompts - 1 and seeds - 1. If MS_seed is not above MS_residual, seeds
show no effect, and the interval is the plain t interval over prompts (Bancroft 1944 calls it sometimes pooling). With
more seeds than prompts, prompts and seeds change roles. With one seed, the interval is the plain t interval over
prompts; over seeds alone, it is the plain t interval over seeds. If values are missing, the mean is over the others,
and `crossed` uses a form of the mean squares that allows gaps.

The table shows how many of 100 intervals at 95% contain the truth. Its columns are the variance that seeds give the
mean, in multiples of the variance that prompts give it, with or without their residuals. The cases are 16, 36 or 136
prompts, normal values, and a residual with 0.25, 1, 2 or 8 times the variance of prompts or with all of the variance.
For each case 6,000 mean squares are drawn, and the coverage follows from them; `simulate_coverage` draws the values::

    seeds    0 to 0.3 times    1 times     2 to 3 times    10 times    30 times
    2        95 to 97          91 to 96    87 to 95        87 to 90    88 to 90
    3        95 to 97          93 to 96    92 to 95        92 to 93    93 to 94
    5        95 to 97          95 to 96    94 to 96        94 to 95    95
    10       95 to 97          95          95              95          95

Two seeds cannot show how much seeds differ. Other rules are worse. With three seeds, their coverage is:

- All three mean squares in every case, with a variance no smaller than what prompts alone or seeds alone give: up to 99
  where seeds do not differ.
- Pooling unless MS_seed is significant at 0.5, 0.25 or 0.1: up to 97.5, 96 or 95.5 where seeds do not differ, but down
  to 94, 92 or 89 at 1 times and 93, 90 or 86 at 2 to 3 times.
- Degrees of freedom over the components of variance: down to 92 and 89.
- The bootstrap that draws prompts and seeds (Owen 2007; 16 or 136 prompts, residual 0.25 or 2, 400 data sets per case):
  83 to 98 at 0 to 1 times and 46 to 51 at 3 times; 93 to 97 with five seeds or more.

Over 2 to 10 seeds alone, the coverage is 95. Exponential values lower it: over 10, 16 and 30 prompts it is 89, 92 and
93, as with resampled prompts. With a fifth of the values missing it is 93 to 97 (3 or 5 seeds, up to 3 times).

A number that is not a mean is resampled. A draw takes n - 1 of n prompts with replacement, so that the variance of the
resamples is unbiased (McCarthy and Snowden 1985; Rao and Wu 1988). The ends are the percentiles at Phi(-t), with t from
Student's distribution with n - 1 degrees of freedom, and not at (1 - confidence) / 2 = Phi(-z) (Hesterberg 2015, the
expanded percentile; drawing n - 1 replaces his factor sqrt(n / (n - 1))). Both ends are NaN if an interval would be
narrow and misleading: with fewer than five prompts at 95%, where no resample is as rare as the percentile; with one
prompt at any confidence; and with fewer draws than the percentile needs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, norm, t

from ddpo_lib.base.resampling import FLOATS, ends, resample

LEVELS, SHARES = np.array(np.polynomial.legendre.leggauss(16)) / 2  # of the quantiles over which `half_width` averages
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


class Crossed(NamedTuple):
    """Means over prompts crossed with seeds, each an array with a number per column."""

    mean: np.ndarray
    error: np.ndarray  # standard error of the mean; NaN for one value
    freedom: np.ndarray  # degrees of freedom of the error; NaN for one value
    prompts: np.ndarray
    seeds: np.ndarray


class Components(NamedTuple):
    """Where the variance of a value comes from; each part is >= 0, in the square of the value's units."""

    prompt: float
    seed: float
    residual: float


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
    low, high = _student(found, confidence)
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
    low, high = _student(found, confidence)
    intervals = list(zip(found.mean.tolist(), low.tolist(), high.tolist(), found.prompts.tolist(), strict=True))

    first = arms * measures  # the columns from here on are differences
    mean, error, freedom, _, seeds = (part[first:] for part in found)
    p = p_at(mean, error, freedom)
    effect = effect_sizes(_mean_over(cells[first:], 2).T)
    parts = zip(p, effect, needed_prompts(effect), seeds, error, freedom, strict=True)
    differences = [
        Difference(*interval, float(p), float(effect), float(needed), int(count), float(error), float(freedom))
        for interval, (p, effect, needed, count, error, freedom) in zip(intervals[first:], parts, strict=True)
    ]
    return Comparison(
        _rows([Interval(*interval) for interval in intervals[:first]], measures),
        dict(zip(compared, _rows(differences, measures), strict=True)),
    )


def crossed(cells: np.ndarray) -> Crossed:
    """Mean of each column over prompts x seeds, and its standard error for new prompts and new seeds.

    Let r be the residuals from the mean of N values of n prompts and s seeds. Prompts give the mean the variance
    n / (n - 1) sum_prompts (sum r)^2 / N^2. Seeds give it the same with s and the sums per seed. Both contain the
    variance of what is left of r after the means of prompts and seeds, sum left^2 / (N - n - s + 1) / N, which is
    counted once. Without gaps these are the mean squares over prompts x seeds.

    Args:
        cells: (columns, prompts, seeds), NaN where a value is missing.

    Returns:
        One number per column in each array; the mean of a column without values is NaN.
    """
    there = ~np.isnan(cells)
    total = there.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, cells, 0.0).sum(axis=(1, 2)) / total
        residual = np.where(there, cells - mean[:, None, None], 0.0)
        by_prompt, prompts = _between(residual.sum(axis=2), there.any(axis=2), total)
        by_seed, seeds = _between(residual.sum(axis=1), there.any(axis=1), total)
        left = np.where(there, residual, np.nan)
        for axis in (2, 1):
            left = left - np.expand_dims(_mean_over(left, axis), axis)
        spare = np.maximum(total - prompts - seeds + 1, 0)
        alone = np.where(spare > 0, np.nansum(left**2, axis=(1, 2)) / np.maximum(spare, 1) / total, 0.0)
        variance, freedom = _total(by_prompt, by_seed, alone, prompts - 1, seeds - 1, spare)
    several = total > 1
    return Crossed(
        mean, np.where(several, np.sqrt(variance), np.nan), np.where(several, freedom, np.nan), prompts, seeds
    )


def p_at(mean: np.ndarray, error: np.ndarray, freedom: np.ndarray, null: np.ndarray | float = 0.0) -> np.ndarray:
    """Two-sided p for a true mean of `null`, from Student's t. If the error is 0, p is 1 at `null` and 0 elsewhere."""
    off = np.abs(np.asarray(mean, dtype=np.float64) - null)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2 * t.sf(np.where(off == 0, 0.0, off / error), freedom)


def components(values: np.ndarray) -> Components:
    """Variance of a value that comes from its prompt, from its seed and from neither, by the mean squares.

    An estimate below zero is set to 0. One seed cannot separate the three: all of the variance is then the prompt's.

    Args:
        values: (prompts, seeds) finite floats, two prompts or more.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values: expected (prompts, seeds) finite numbers of two prompts or more, got {values.shape}")
    prompts, seeds = values.shape
    by_prompt = values.mean(axis=1).var(ddof=1)
    if seeds == 1:
        return Components(float(by_prompt), 0.0, 0.0)
    by_seed = values.mean(axis=0).var(ddof=1)
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    residual = (left**2).sum() / ((prompts - 1) * (seeds - 1))
    return Components(
        *(max(0.0, float(v)) for v in (by_prompt - residual / seeds, by_seed - residual / prompts, residual))
    )


def half_width(components: Components, prompts: int, seeds: int, confidence: float) -> float:
    """Half the width that `compare`'s interval has on average, for normal values without gaps.

    Intervals of single data sets vary around it, most with few seeds.

    Args:
        components: variances of prompt, seed and residual, of a value or of a difference.
        prompts: two or more.
        seeds: one or more. One seed cannot show how much seeds vary, so the interval leaves that variance out.
        confidence: 0.95 for a 95% interval.
    """
    prompt, seed, residual = components
    if seeds == 1:
        prompt, seed, residual = prompt + residual, 0.0, 0.0  # over prompts alone
    alone = residual / (prompts * seeds)
    means = prompt / prompts + alone, seed / seeds + alone, alone
    free = prompts - 1, seeds - 1, (prompts - 1) * (seeds - 1)
    drawn = np.meshgrid(*(chi2.ppf(LEVELS + 0.5, max(of, 1)) / max(of, 1) for of in free), indexing="ij")
    variance, freedom = _total(*(mean * of for mean, of in zip(means, drawn, strict=True)), *free)
    halves = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return float(np.einsum("abc,a,b,c", halves, SHARES, SHARES, SHARES))


def simulate_coverage(
    components: Components, prompts: int, seeds: int, confidence: float, sets: int = 4000, seed: int = 0
) -> float:
    """Share of simulated data sets for which the interval of `compare` contains the true mean.

    Args:
        components: variances of the normal effects of prompt and seed and of the residual. The seed's effect is drawn
            also for one seed, where the interval leaves its variance out.
        prompts, seeds: numbers of prompts and seeds in each data set.
        confidence: confidence of the interval.
        sets: number of data sets.
        seed: seed of the simulation.
    """
    rng = np.random.default_rng(seed)
    of_prompt, of_seed, residual = np.sqrt(components)
    step = max(1, FLOATS // (prompts * seeds))
    held = 0
    for start in range(0, sets, step):
        count = min(step, sets - start)
        cells = rng.normal(0, of_prompt, (count, prompts, 1)) + rng.normal(0, of_seed, (count, 1, seeds))
        low, high = _student(crossed(cells + rng.normal(0, residual, (count, prompts, seeds))), confidence)
        held += int(((low <= 0) & (high >= 0)).sum())
    return held / sets


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


def plain(value):
    """A result as JSON accepts it: dataclasses become mappings, tuples become lists, NaN and infinity become None."""
    if is_dataclass(value):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


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


def _student(found: Crossed, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of the t intervals."""
    half = t.ppf((1 + confidence) / 2, found.freedom) * found.error
    return found.mean - half, found.mean + half


def _between(sums: np.ndarray, there: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance that rows give the mean of `total` values, from (columns, rows) sums of residuals; number of rows."""
    count = there.sum(axis=1)
    return (sums**2).sum(axis=1) * count / np.maximum(count - 1, 1) / total**2, count


def _total(
    by_prompt: np.ndarray, by_seed: np.ndarray, alone: np.ndarray, of_prompt: int, of_seed: int, of_alone: int
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of a mean, and its degrees of freedom, by the rule of this module's docstring.

    Args:
        by_prompt, by_seed, alone: mean squares over the number of values.
        of_prompt, of_seed, of_alone: their degrees of freedom.
    """
    by_more = (of_prompt > of_seed) | ((of_prompt == of_seed) & (by_prompt >= by_seed))
    more, fewer = np.where(by_more, by_prompt, by_seed), np.where(by_more, by_seed, by_prompt)
    of_more, of_fewer = np.maximum(of_prompt, of_seed), np.minimum(of_prompt, of_seed)
    differ = fewer > alone
    variance = more + np.where(differ, fewer - alone, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = ((more, of_more), (fewer, of_fewer), (alone, of_alone))
        spread = sum(part**2 / np.maximum(of, 1) for part, of in parts)
        freedom = np.where(differ, np.maximum(variance**2 / spread, of_fewer), of_more)
    return variance, freedom.astype(np.float64)


def _mean_over(cells: np.ndarray, axis: int) -> np.ndarray:
    """Means over an axis, with NaN left out; NaN where all values are NaN."""
    there = ~np.isnan(cells)
    with np.errstate(invalid="ignore"):
        return np.where(there, cells, 0.0).sum(axis=axis) / there.sum(axis=axis)


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
