"""Values of prompts crossed with seeds -> means, and their variance for new prompts and new seeds.

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
For each case 6,000 mean squares are drawn, and the coverage follows from them; `simulate_coverage` of
`evaluation.precision` draws the values::

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
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Crossed(NamedTuple):
    """Means over prompts crossed with seeds, each an array with a number per column."""

    mean: np.ndarray
    error: np.ndarray  # standard error of the mean; NaN for one value
    freedom: np.ndarray  # degrees of freedom of the error; NaN for one value
    prompts: np.ndarray
    seeds: np.ndarray


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
            left = left - np.expand_dims(mean_over(left, axis), axis)
        spare = np.maximum(total - prompts - seeds + 1, 0)
        alone = np.where(spare > 0, np.nansum(left**2, axis=(1, 2)) / np.maximum(spare, 1) / total, 0.0)
        variance, freedom = total_variance(by_prompt, by_seed, alone, prompts - 1, seeds - 1, spare)
    several = total > 1
    return Crossed(
        mean, np.where(several, np.sqrt(variance), np.nan), np.where(several, freedom, np.nan), prompts, seeds
    )


def t_ends(found: Crossed, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of the t intervals."""
    half = t.ppf((1 + confidence) / 2, found.freedom) * found.error
    return found.mean - half, found.mean + half


def _between(sums: np.ndarray, there: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance that rows give the mean of `total` values, from (columns, rows) sums of residuals; number of rows."""
    count = there.sum(axis=1)
    return (sums**2).sum(axis=1) * count / np.maximum(count - 1, 1) / total**2, count


def total_variance(
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


def mean_over(cells: np.ndarray, axis: int) -> np.ndarray:
    """Means over an axis, with NaN left out; NaN where all values are NaN."""
    there = ~np.isnan(cells)
    with np.errstate(invalid="ignore"):
        return np.where(there, cells, 0.0).sum(axis=axis) / there.sum(axis=axis)
