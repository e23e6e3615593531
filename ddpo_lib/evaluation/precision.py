"""Variances of prompts, seeds and residual -> how wide intervals are and how often they contain the truth."""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, t

from ddpo_lib.statistics.crossed import crossed, t_ends, total_variance
from ddpo_lib.statistics.resampling import FLOATS

LEVELS, SHARES = np.array(np.polynomial.legendre.leggauss(16)) / 2  # of the quantiles over which `half_width` averages


class Components(NamedTuple):
    """Where the variance of a value comes from; each part is >= 0, in the square of the value's units."""

    prompt: float
    seed: float
    residual: float


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
    """Half the width that `intervals.compare`'s interval has on average, for normal values without gaps.

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
    variance, freedom = total_variance(*(mean * of for mean, of in zip(means, drawn, strict=True)), *free)
    halves = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return float(np.einsum("abc,a,b,c", halves, SHARES, SHARES, SHARES))


def simulate_coverage(
    components: Components, prompts: int, seeds: int, confidence: float, sets: int = 4000, seed: int = 0
) -> float:
    """Share of simulated data sets for which the interval of `intervals.compare` contains the true mean.

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
        low, high = t_ends(crossed(cells + rng.normal(0, residual, (count, prompts, seeds))), confidence)
        held += int(((low <= 0) & (high >= 0)).sum())
    return held / sets
