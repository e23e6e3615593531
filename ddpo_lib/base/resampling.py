"""Numbers of prompts -> resampled numbers, their percentile intervals and p; see `stats` for what is resampled and
why."""

import numpy as np
from scipy.stats import norm, t

FLOATS = 2**22  # held at a time while resampling or simulating, 32 MiB, beside the values and the resampled means


def resample(parts: np.ndarray, wholes: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Sum of `parts` over that of `wholes`, for each column and draw of n - 1 of n prompts, and of s - 1 of s seeds.

    What is drawn depends on the numbers of prompts, seeds and draws and on the seed alone, not on the columns.

    Args:
        parts, wholes: (prompts, seeds, columns) finite floats; one seed, or one prompt, is always there.
        draws, seed: as in `bootstrap_ratio`.

    Returns:
        (draws, columns) floats, NaN where a draw holds nothing of a column.
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
        drawn: (draws, columns). NaN is a draw that says nothing: it may lie anywhere, and counts against both ends.
        freedom: (columns,) degrees of freedom.
        confidence: as in `bootstrap_ratio`.

    Returns:
        Two (columns,) arrays; both NaN where no draw, or no resample of so few prompts, is as rare as the percentile.
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
    """Two-sided p of zero for each column: 1 - confidence of the widest interval of `ends` that leaves zero out.

    Args:
        drawn, freedom: as in `ends`.
    """
    beyond = np.minimum((~(drawn > 0)).sum(axis=0), (~(drawn < 0)).sum(axis=0))
    tail = np.maximum((beyond + 1) / (len(drawn) + 1), _rarest(freedom))
    return 2 * t.cdf(norm.ppf(np.minimum(tail, 0.5)), freedom)


def p_error(p: np.ndarray | float, draws: int) -> np.ndarray | float:
    """Monte-Carlo standard error of a p of `p_values`: p is about twice the share p / 2 of draws beyond zero, which has
    the standard error sqrt(p / 2 (1 - p / 2) / draws)."""
    return np.sqrt(p * (2 - p) / draws)


def draw_counts(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """(draws, n) floats: how often each of n is among n - 1 drawn with replacement; a single one is always there."""
    if n == 1:
        return np.ones((draws, 1))
    drawn = rng.integers(0, n, (draws, n - 1)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _rarest(freedom: np.ndarray) -> np.ndarray:
    """Chance of the rarest resample of n = freedom + 1 prompts: the same one at each of n - 1 draws."""
    freedom = np.maximum(freedom, 0.0)
    return (freedom + 1.0) ** -freedom
