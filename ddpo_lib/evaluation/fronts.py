"""Arms sampled at several temperatures -> quality-diversity fronts, their hypervolumes, and arms at equal diversity.

A point is (diversity, quality), the means over prompts at one temperature; in both, higher is better. Draws, intervals
and p are those of `stats`.

A front is a maximum over noisy points. So its hypervolume is biased upwards, and more so in resamples, which contain
the noise twice. A simulation of 300 data sets shows how much. Five temperatures have the same true point, with area
2.25. Both coordinates have noise of 0.3 per prompt and of 0.5 per prompt and temperature.

- With 16 prompts the mean estimate is 2.67, and the middle of its 95% interval is 2.92. With 100 prompts they are 2.41
  and 2.49. The intervals contain the truth in 42% and 37% of the data sets.
- If the five points lie far apart along the front, the intervals contain the truth in 97% and 98%.
- The interval of the difference of two arms with five such points each contains the truth in 96% and 99%. If one arm
  has one such point and the other five, it does so in 69% and 66% of 400 data sets.

So compare arms over the same number of temperatures, and read differences rather than single hypervolumes.
"""

from dataclasses import dataclass

import numpy as np

from ddpo_lib.statistics.intervals import Interval, Tested, holm
from ddpo_lib.statistics.resampling import ends, p_error, p_values, resample


@dataclass(frozen=True)
class Resampled(Tested):
    """A difference of hypervolumes; its p is never below the smallest that the draws and prompts can show.

    Attributes:
        p_error: Monte-Carlo standard error of p (`resampling.p_error`); `intervals.undecided` reads it.
        p_corrected: by Holm over all arms but the baseline.
    """

    p_error: float
    p_corrected: float


@dataclass(frozen=True)
class Fronts:
    """The result of `compare_fronts`.

    Attributes:
        reference: (diversity, quality), the corner from which area is measured.
        points: (arms, temperatures, 2) of (diversity, quality), NaN where an arm was not sampled.
        hypervolumes: of each arm.
        differences: of every arm but the baseline, to the baseline.
    """

    reference: tuple[float, float]
    points: np.ndarray
    hypervolumes: tuple[Interval, ...]
    differences: dict[int, Resampled]


@dataclass(frozen=True)
class Matched(Tested):
    """An arm's quality at one temperature minus that of the baseline's curve at the same diversity.

    Attributes:
        mean: NaN if the baseline's curve does not reach the arm's diversity; low, high and p are then NaN too.
        p_error: Monte-Carlo standard error of p (`resampling.p_error`).
        outside: share of resamples in which the baseline's curve does not reach the arm's diversity. The difference in
            them is unknown, so they count against both ends of the interval. If their share exceeds the tail beyond one
            end, both ends are NaN.
    """

    p_error: float
    outside: float


def hypervolume(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The area that the points dominate, measured from the reference.

    Args:
        points: (..., points, 2) of diversity and quality; a point with NaN adds nothing.
        reference: (2,), the corner from which area is measured.

    Returns:
        (...) floats, in units of diversity times quality; 0 if no point exceeds the reference in both.
    """
    above = np.asarray(points, dtype=np.float64) - reference
    above = np.where((above > 0).all(axis=-1, keepdims=True), above, 0.0)
    order = np.argsort(-above[..., 0], axis=-1)[..., None]
    diversity, quality = np.moveaxis(np.take_along_axis(above, order, axis=-2), -1, 0)
    steps = diversity - np.concatenate([diversity[..., 1:], np.zeros_like(diversity[..., :1])], axis=-1)
    return (steps * np.maximum.accumulate(quality, axis=-1)).sum(axis=-1)


def compare_fronts(
    quality: np.ndarray,
    diversity: np.ndarray,
    *,
    reference: tuple[float, float] | None = None,
    baseline: int,
    draws: int,
    confidence: float,
    seed: int,
) -> Fronts:
    """Hypervolume of each arm's front, and paired differences to the baseline's, all from the same draws of prompts.

    Args:
        quality, diversity: (arms, prompts, temperatures), NaN where an arm lacks a prompt or was not sampled at a
            temperature. A prompt counts for an arm if it has both numbers at every temperature of the arm. It counts
            for a difference if this holds for both arm and baseline.
        reference: (diversity, quality), the corner from which area is measured; by default the least diversity and the
            worst quality among all arms' points. It is fixed before prompts are drawn. With the default, an arm's
            extreme points add little, and another set of arms may change every number. To compare runs, pass one
            reference for all.
        baseline: the number of the arm to compare with.
        draws, confidence, seed: as in `intervals.bootstrap_ratio`.

    Returns:
        The fronts; each `p_corrected` is by Holm over all arms but the baseline.

    Raises:
        ValueError: the shapes differ, a number is infinite (names arm, prompt, temperature), or an arm has no prompt.
    """
    values = _checked(quality, diversity)
    arms = len(values)
    others = [arm for arm in range(arms) if arm != baseline % arms]
    counted = _complete(values)
    common = counted[others] & counted[baseline]
    # each arm over its own prompts; then each other arm, and the baseline, over the prompts that both have
    sweeps = np.concatenate([values, values[others], values[[baseline] * len(others)]])
    masks = np.concatenate([counted, common, common])
    means, drawn = _means(sweeps, masks, draws, seed)
    if reference is None:
        reference = tuple(np.nanmin(means[:arms], axis=(0, 1)).tolist())

    area, drawn_area = (_area(points, reference) for points in (means, drawn))
    area[arms:][np.tile(~common.any(axis=1), 2)] = np.nan  # no prompt in common
    first, last = slice(arms, arms + len(others)), slice(arms + len(others), None)
    apart, drawn_apart = area[first] - area[last], drawn_area[:, first] - drawn_area[:, last]
    freedom = counted.sum(axis=1) - 1.0, common.sum(axis=1) - 1.0
    p = p_values(drawn_apart, freedom[1])
    intervals = zip(area[:arms], *ends(drawn_area[:, :arms], freedom[0], confidence), strict=True)
    limits = ends(drawn_apart, freedom[1], confidence)
    differences = zip(apart, *limits, common.sum(axis=1), p, p_error(p, draws), holm(p), strict=True)
    return Fronts(
        (float(reference[0]), float(reference[1])),
        means[:arms],
        tuple(Interval(*map(float, i), int(n)) for i, n in zip(intervals, counted.sum(axis=1), strict=True)),
        {
            arm: Resampled(float(mean), float(low), float(high), int(n), *map(float, rest))
            for arm, (mean, low, high, n, *rest) in zip(others, differences, strict=True)
        },
    )


def matched(
    quality: np.ndarray,
    diversity: np.ndarray,
    *,
    arm: int,
    temperature: int,
    baseline: int,
    draws: int,
    confidence: float,
    seed: int,
) -> Matched:
    """The quality of an arm minus that of the baseline at the temperature that gives it the same diversity.

    Straight lines join the baseline's points in order of diversity; the curve is not extended beyond them.

    Args:
        quality, diversity: as in `compare_fronts`; the baseline needs at least two temperatures.
        arm, temperature: the numbers of the arm and of the temperature of its point.
        baseline: the number of the arm whose points make the curve.
        draws, confidence, seed: as in `intervals.bootstrap_ratio`.

    Returns:
        The difference over the prompts that have the arm's point and every temperature of the baseline; `prompts` is
        their number.

    Raises:
        ValueError: as `compare_fronts`; or the baseline has one temperature, or the arm was not sampled at this one.
    """
    values = _checked(quality, diversity)
    swept = ~np.isnan(values[baseline]).all(axis=0).any(axis=-1)
    if swept.sum() < 2:
        raise ValueError(f"baseline: arm {baseline} was sampled at one temperature; a curve needs two or more")
    both = np.concatenate([values[arm][:, [temperature]], values[baseline][:, swept]], axis=1)[None]
    if np.isnan(both[0, :, 0]).any(axis=1).all():
        raise ValueError(f"temperature: arm {arm} has no prompt at temperature {temperature}")
    counted = ~np.isnan(both).any(axis=(2, 3))
    prompts = int(counted.sum())
    means, drawn = _means(both, counted, draws, seed)
    apart, drawn_apart = _over_curve(means)[0], _over_curve(drawn[:, 0])
    low = high = p = np.array([np.nan])
    if not np.isnan(apart):
        freedom = np.array([prompts - 1.0])
        (low, high), p = ends(drawn_apart[:, None], freedom, confidence), p_values(drawn_apart[:, None], freedom)
    outside = float(np.isnan(drawn_apart).mean())
    error = p_error(float(p[0]), draws)
    return Matched(float(apart), float(low[0]), float(high[0]), prompts, float(p[0]), float(error), outside)


def _over_curve(points: np.ndarray) -> np.ndarray:
    """(n, points, 2) -> (n,): quality of the first point minus that of the curve through the others; NaN beyond it."""
    at, quality = points[:, 0, 0], points[:, 0, 1]
    order = np.argsort(points[:, 1:, 0], axis=1)[..., None]
    x, y = np.moveaxis(np.take_along_axis(points[:, 1:], order, axis=1), -1, 0)
    left = np.clip((x <= at[:, None]).sum(axis=1) - 1, 0, x.shape[1] - 2)[:, None]
    (x0, y0), (x1, y1) = (
        (np.take_along_axis(x, i, axis=1)[:, 0], np.take_along_axis(y, i, axis=1)[:, 0]) for i in (left, left + 1)
    )
    share = np.divide(at - x0, x1 - x0, out=np.ones_like(at), where=x1 > x0)
    reached = (x[:, 0] <= at) & (at <= x[:, -1])
    return np.where(reached, quality - (y0 + share * (y1 - y0)), np.nan)


def _area(points: np.ndarray, reference: tuple[float, float]) -> np.ndarray:
    """Hypervolumes; NaN if no point of a sweep is known, as in a draw without its prompts."""
    return np.where(np.isnan(points).all(axis=(-2, -1)), np.nan, hypervolume(points, reference))


def _means(values: np.ndarray, masks: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(sweeps, temperatures, 2) means over prompts, and (draws, sweeps, temperatures, 2) of the resamples.

    Args:
        values: (sweeps, prompts, temperatures, 2), NaN where a sweep has no value.
        masks: (sweeps, prompts), the prompts that count.
        draws, seed: as in `resampling.resample`.
    """
    there = masks[:, :, None, None] & ~np.isnan(values)
    sweeps, prompts, temperatures, _ = values.shape
    wholes = there.astype(np.float64).transpose(1, 0, 2, 3).reshape(prompts, 1, -1)
    parts = np.where(there, values, 0.0).transpose(1, 0, 2, 3).reshape(prompts, 1, -1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a sweep lacks a temperature or has no prompt
        means = parts.sum(axis=(0, 1)) / wholes.sum(axis=(0, 1))
    drawn = resample(parts, wholes, draws=draws, seed=seed)
    return means.reshape(sweeps, temperatures, 2), drawn.reshape(draws, sweeps, temperatures, 2)


def _complete(values: np.ndarray) -> np.ndarray:
    """(arms, prompts): which prompts have both numbers at every temperature that the arm was sampled at."""
    missing = np.isnan(values)
    sampled = ~missing.all(axis=1, keepdims=True)
    return ~(missing & sampled).any(axis=(2, 3)) & sampled.any(axis=(2, 3))


def _checked(quality: np.ndarray, diversity: np.ndarray) -> np.ndarray:
    """(arms, prompts, temperatures, 2): diversity and quality; both are NaN if one is."""
    quality, diversity = np.asarray(quality, dtype=np.float64), np.asarray(diversity, dtype=np.float64)
    if quality.shape != diversity.shape or quality.ndim != 3:
        raise ValueError(
            f"quality, diversity: expected (arms, prompts, temperatures) alike, got {quality.shape}, {diversity.shape}"
        )
    values = np.stack([diversity, quality], axis=-1)
    infinite = np.argwhere(np.isinf(values))
    if len(infinite):
        arm, prompt, temperature, which = infinite[0]
        raise ValueError(
            f"{('diversity', 'quality')[which]}: arm {arm}, prompt {prompt}, temperature {temperature} is "
            f"{values[tuple(infinite[0])]}; expected a finite number, or NaN if there is none"
        )
    values = np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, values)
    empty = np.flatnonzero(~_complete(values).any(axis=1))
    if empty.size:
        raise ValueError(f"quality, diversity: arm {empty[0]} has no prompt with both at every temperature of the arm")
    return values
