"""Vectors -> the reliability of deviation, and the number of responses per prompt at which it is high enough.

`groups` is as in `deviation`. Prompts are the units of every interval (`stats`), and the random splits are made per
prompt (`by_prompt`).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ddpo_lib.deviation.weighting import TIE
from ddpo_lib.evaluation.by_prompt import ENDS, generator_of, interval_columns, rows_by_prompt
from ddpo_lib.statistics.intervals import bootstrap_ratio

AT_ONCE = 2**20  # numbers of the vectors of some splits, or of one, that are taken at once: 8 MB


def split_half(
    vectors: np.ndarray,
    groups: np.ndarray,
    sizes: Sequence[int],
    *,
    splits: int = 20,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """The reliability of deviation: the same responses are compared with two panels without a common response.

    The responses of a prompt are cut to n at random. Two disjoint panels of h = max(1, (n - 1) // 3) responses are
    drawn; the rest are measured. r is the correlation, within prompts, between the measured responses' mean distances
    to the first and to the second panel. It is the sum of the covariances over prompts and splits, over the sum of the
    mean variances of the two panels. So a prompt counts by its variance, and one with an outlier counts more.

    r is the reliability with a panel of h. The deviation in a prompt of n uses n - 1 other responses. Spearman and
    Brown's formula gives its reliability: k r / (1 + (k - 1) r) with k = (n - 1) / h, where a negative r counts as 0.

    The measured responses are in neither panel. If instead each half of the responses were the panel of the other, the
    n^2/4 distances between the halves would count in both deviations. Each has a share of 2/n^2 in the mean over the n
    responses against either half. With pure noise of variance s these means would have a covariance of s/n^2. The
    centred deviations would then have a covariance of -s/n^2 per response and a variance of about 2s/n, so a
    correlation near -1/(2n).

    For responses drawn independently around a mean direction m with covariance C, r is m'Cm / (m'Cm + trace(C^2)/h).
    It is 0 if the responses have no common direction, and large if they have a strong one.

    Args:
        vectors: (responses, d) floats of any length but zero.
        groups: (responses,) integers.
        sizes: the values of n, 4 or more; one that no prompt reaches gives no row.
        splits: how often each prompt is cut and split.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the splits.

    Returns:
        One row per size: `n prompts r r_low r_high reliability reliability_low reliability_high`. `prompts` counts
        those whose deviations differ; if there is none, r is NaN.

    Raises:
        ValueError: a size is below 4: two responses are measured, by two panels of at least one.
    """
    if any(n < 4 for n in sizes):
        raise ValueError(f"sizes: expected 4 or more, got {min(sizes)}; two panels need a response each, and two more")
    sums = {n: [] for n in sizes}  # per prompt: covariance and variance
    for group, rows in rows_by_prompt(groups, vectors):
        unit = vectors[rows].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        order = generator_of(seed, group).permuted(np.tile(np.arange(len(rows)), (splits, 1)), axis=1)
        for n in (n for n in sizes if n <= len(rows)):
            sums[n].append(_halves(unit, order[:, :n]))
    rows = []
    for n, prompts in sums.items():
        if prompts:
            covariance, variance = np.transpose(prompts)
            r = None
            if variance.any():
                r = bootstrap_ratio(covariance, variance, draws=draws, confidence=confidence, seed=seed)
            row = {"n": n, "prompts": r.prompts if r else 0, **interval_columns("r", r)}
            rows.append(row | {f"reliability{end}": _lengthened(row[f"r{end}"], n) for end in ENDS})
    return pd.DataFrame(rows)


def needed(row: Mapping[str, float], target: float = 0.7) -> dict[str, float]:
    """Responses per prompt at which deviation reaches a reliability, by Spearman and Brown's formula.

    Args:
        row: of `split_half`.
        target: the reliability, above 0 and below 1.

    Returns:
        `needed needed_low needed_high`: whole numbers of 3 or more, since two responses deviate equally; infinity if r
        is not above zero. `needed_low` comes from the high end of r.
    """
    values = [_size_for(row[f"r{end}"], row["n"], target) for end in ("", "_high", "_low")]
    return {f"needed{end}": value for end, value in zip(ENDS, values, strict=True)}


def _halves(unit: np.ndarray, order: np.ndarray) -> tuple[float, float]:
    """Sums over splits of the covariance of two panels' deviations and of their mean variance, for one prompt.

    The mean distance to a panel is 1 less the product with the panel's mean vector, so there is no m x m matrix.

    Args:
        unit: (m, d) unit vectors of the prompt's responses.
        order: (splits, n) row numbers of it; the first h are one panel, the next h the other, the rest are measured.
    """
    h = _panel(order.shape[1])
    deviations = []
    for splits in np.array_split(order, min(len(order), -(-order.size * unit.shape[1] // AT_ONCE))):
        vectors = unit[splits]
        panels = np.stack([vectors[:, :h].mean(axis=1), vectors[:, h : 2 * h].mean(axis=1)])
        deviations.append(1 - np.matvec(vectors[:, 2 * h :], panels))
    one, other = np.concatenate(deviations, axis=1)
    one, other = (deviation - deviation.mean(axis=1, keepdims=True) for deviation in (one, other))
    variance = np.square([one, other]).sum() / 2
    if variance <= one.size * TIE**2:
        return 0.0, 0.0  # all distances are equal up to rounding
    return float((one * other).sum()), float(variance)


def _panel(n: int) -> int:
    return max(1, (n - 1) // 3)


def _lengthened(r: float, n: int) -> float:
    """Spearman and Brown's formula: from the panel of a prompt of n to the n - 1 other responses."""
    k, r = (n - 1) / _panel(n), float(np.maximum(r, 0.0))
    return k * r / (1 + (k - 1) * r)


def _size_for(r: float, n: int, target: float) -> float:
    if not r > 0:
        return math.inf
    others = _panel(n) * target * (1 - r) / (r * (1 - target))
    return max(3, math.ceil(1 + others - 1e-9))
