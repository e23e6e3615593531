"""Resampling: `resampling.resample` and `resampling.ends` against `scipy.stats.bootstrap`, which knows one number at a
time.

Ours gives as many numbers with their intervals as arms have means and differences to one of them, for every measure,
from the same draws. SciPy gives one such number with its percentile interval, from as many draws. What is compared is
the time for a number with its interval.
"""

import statistics
from functools import partial

import numpy as np
from scipy.stats import bootstrap

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed
from ddpo_lib.statistics.resampling import ends, resample

CONFIDENCE = 0.95


def rows(draws: int = 10_000, prompts: int = 1_000, arms: int = 10, measures: int = 8, repeats: int = 3) -> list[Row]:
    """The table: time and memory for all arms and measures, and time a number beside SciPy's."""
    numbers = (2 * arms - 1) * measures
    samples = take_turns(
        {"ours": partial(ours, prompts, numbers, draws), "scipy": partial(scipy, prompts, draws)}, repeats
    )
    seconds = [sample.seconds for sample in samples["ours"]]
    ratios = [theirs.seconds / (our / numbers) for theirs, our in zip(samples["scipy"], seconds, strict=True)]
    theirs = statistics.median(sample.seconds for sample in samples["scipy"])
    measured, spread = median_and_spread(ratios, "{:.0f}x")
    each = f" ({statistics.median(seconds) / numbers * 1e3:.1f} ms against {theirs * 1e3:.0f} ms)"
    what = f"{draws:,} bootstrap draws over {prompts:,} prompts, {arms} arms, {measures} measures"
    peaks = [sample.peak / 2**20 for sample in samples["ours"]]
    return [
        Row(what, "the clock", "under 10 s", *median_and_spread(seconds, "{:.2f} s"), statistics.median(seconds) < 10),
        Row(what, "peak memory of the process", "", *median_and_spread(peaks, "{:.0f} MiB"), None),
        Row(
            what,
            f"scipy.stats.bootstrap on one arm and measure, whole: time a number with its interval, {numbers} of ours",
            "",
            measured + each,
            spread,
            None,
        ),
    ]


def ours(prompts: int, numbers: int, draws: int) -> Sample:
    values, freedom = random_values(prompts, 1, numbers), np.full(numbers, prompts - 1.0)
    ones = np.ones(values.shape)
    return timed(lambda: ends(resample(values, ones, draws=draws, seed=0), freedom, CONFIDENCE))


def scipy(prompts: int, draws: int) -> Sample:
    values = random_values(prompts)
    options = {"n_resamples": draws, "confidence_level": CONFIDENCE, "method": "percentile", "rng": 0}
    return timed(lambda: bootstrap((values,), np.mean, vectorized=True, **options).confidence_interval)


def random_values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


if __name__ == "__main__":
    print(table(rows()))
