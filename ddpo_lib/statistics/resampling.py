"""Numbers per prompt -> resampled numbers, their percentile intervals and p-values.

`stats` says what is resampled and why.
"""

import numpy as np
from scipy.stats import norm, t

FLOATS = 2**22  # 32 MiB: most numbers in memory at once, besides the values and the resampled or simulated means


def resample(parts: np.ndarray, wholes: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Ratio of the sums of `parts` and `wholes`, for each column and each draw of prompts and seeds.

    A draw takes n - 1 of n prompts and s - 1 of s seeds, with replacement. A single prompt or seed is in every draw.
    The draws depend only on the numbers of prompts, seeds and draws and on `seed`, not on the columns.

    Args:
        parts, wholes: (prompts, seeds, columns) finite floats.
        draws, seed: as in `bootstrap_ratio`.

    Returns:
        (draws, columns) floats, NaN where parts and wholes of a draw both sum to 0.
    """
    prompts, seeds, columns = parts.shape
    both = np.concatenate([parts, wholes], axis=2).reshape(prompts, seeds * 2 * columns)
    of_prompts, of_seeds = np.random.default_rng(seed).spawn(2)
    drawn = np.empty((draws, columns))
    step = max(1, FLOATS // (4 * prompts + 2 * both.shape[1]))
    for start in range(0, draws, step):
        block = drawn[start : start + step]
        sums = draw_counts(of_prompts, len(block), prompts) @ both
        sums = draw_counts(of_seeds, len(block), seeds)[:, None, :] @ sums.reshape(len(block), seeds, 2 * columns)
        with np.errstate(invalid="ignore"):
            np.divide(sums[:, 0, :columns], sums[:, 0, columns:], out=block)
    return drawn


def ends(drawn: np.ndarray, freedom: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of the intervals of resampled numbers: their expanded percentiles.

    Args:
        drawn: (draws, columns). NaN means that the draw has no value. It could lie anywhere, so it widens both ends.
        freedom: (columns,) degrees of freedom.
        confidence: as in `bootstrap_ratio`.

    Returns:
        Two (columns,) arrays; both NaN where no draw is as rare as the percentile, or no resample of so few prompts is.
    """
    level = norm.cdf(t.ppf((1 - confidence) / 2, freedom))
    rank = np.floor(level * (len(drawn) + 1))
    known = (rank >= 1) & (level >= _rarest(freedom))
    at = np.where(known, rank, 1).astype(int)[None] - 1
    unknown = np.isnan(drawn)
    low = np.take_along_axis(np.sort(np.where(unknown, -np.inf, drawn), axis=0), at, axis=0)[0]
    high = np.take_along_axis(np.sort(np.where(unknown, np.inf, drawn), axis=0), len(drawn) - 1 - at, axis=0)[0]
    known &= np.isfinite(low) & np.isfinite(high)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def p_values(drawn: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Two-sided p-value for zero in each column: 1 - confidence of the widest interval of `ends` that excludes zero.

    Args:
        drawn, freedom: as in `ends`.
    """
    beyond = np.minimum((~(drawn > 0)).sum(axis=0), (~(drawn < 0)).sum(axis=0))
    tail = np.maximum((beyond + 1) / (len(drawn) + 1), _rarest(freedom))
    return 2 * t.cdf(norm.ppf(np.minimum(tail, 0.5)), freedom)


def p_error(p: np.ndarray | float, draws: int) -> np.ndarray | float:
    """Monte-Carlo standard error of a p-value from `p_values`.

    p is about twice the share p / 2 of draws beyond zero, which has the standard error sqrt(p / 2 (1 - p / 2) / draws).
    """
    return np.sqrt(p * (2 - p) / draws)


def draw_counts(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """(draws, n) floats: how often each of n items comes in n - 1 draws with replacement; once if n is 1."""
    if n == 1:
        return np.ones((draws, 1))
    drawn = rng.integers(0, n, (draws, n - 1)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _rarest(freedom: np.ndarray) -> np.ndarray:
    """Chance of the rarest resample of n = freedom + 1 prompts: the same one at each of n - 1 draws."""
    freedom = np.maximum(freedom, 0.0)
    return (freedom + 1.0) ** -freedom
