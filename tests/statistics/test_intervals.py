"""Intervals that cover as they say, comparisons of arms, p, corrected p, effects, and prompts needed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import nct, t, ttest_1samp, ttest_rel

from ddpo_lib.statistics import resampling
from ddpo_lib.statistics.intervals import (
    bootstrap_ratio,
    compare,
    effect_sizes,
    holm,
    mean_interval,
    needed_prompts,
    p_at,
    undecided,
)
from ddpo_lib.statistics.resampling import ends, p_error, p_values, resample

SETTINGS = {"draws": 1000, "confidence": 0.95, "seed": 0}
TWO = {"against": [None, 0], "confidence": 0.95}
P_VALUES = arrays(np.float64, st.integers(1, 9), elements=st.floats(0, 1))


def bootstrap_mean(values, **changed):
    """The ratio whose wholes are one: a mean, resampled by prompt."""
    return bootstrap_ratio(values, np.ones(len(values)), **changed)


def coverage(values: np.ndarray, truth: float, confidence: float = 0.95) -> float:
    """How often the interval holds the truth, over data sets: (data sets, prompts)."""
    means = compare(values[None], against=[None], confidence=confidence).means[0]
    return float(np.mean([interval.low <= truth <= interval.high for interval in means]))


def resampled_coverage(values: np.ndarray, truth: float, confidence: float = 0.95) -> float:
    """The same of resampled intervals."""
    drawn = resample(values.T[:, None], np.ones((values.shape[1], 1, len(values))), draws=3000, seed=0)
    low, high = ends(drawn, np.full(len(values), values.shape[1] - 1.0), confidence)
    return float(np.mean((low <= truth) & (truth <= high)))


def simulated(kind: str, *shape: int) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(1)
    return (rng.normal(3, 2, shape), 3.0) if kind == "normal" else (rng.exponential(size=shape), 1.0)


# Resampled


def test_the_mean_is_exact_and_inside_its_interval():
    interval = bootstrap_mean([1.0, 2.0, 4.0, 9.0, 3.0, 5.0], **SETTINGS)
    assert interval.mean == 4.0
    assert interval.prompts == 6
    assert 1.0 <= interval.low < 4.0 < interval.high <= 9.0


def test_equal_values_have_an_interval_of_no_width():
    interval = bootstrap_mean([0.25] * 5, **SETTINGS)
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("n", [10, 16, 30])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_intervals_over_few_prompts_cover_the_truth_as_often_as_they_say(n, confidence):
    values, truth = simulated("normal", 2000, n)
    allowed = 3.5 * math.sqrt(confidence * (1 - confidence) / 2000)
    for covered in (coverage, resampled_coverage):
        assert abs(covered(values, truth, confidence) - confidence) < allowed


@pytest.mark.parametrize(("n", "least"), [(10, 0.89), (16, 0.9), (30, 0.915)])
def test_skewed_values_cost_some_coverage_and_less_of_it_than_the_plain_percentiles(n, least):
    values, truth = simulated("exponential", 2000, n)
    rng = np.random.default_rng(0)
    plain = values[:, rng.integers(0, n, (2000, n))].mean(axis=2)
    low, high = np.quantile(plain, [0.025, 0.975], axis=1)
    covered = resampled_coverage(values, truth)
    assert least < covered < 0.95
    assert covered > np.mean((low <= truth) & (truth <= high)) + 0.01


def test_the_resampled_interval_is_as_wide_as_students():
    values = np.random.default_rng(3).normal(size=(400, 12))
    drawn = resample(values.T[:, None], np.ones((12, 1, 400)), draws=10_000, seed=0)
    low, high = ends(drawn, np.full(400, 11.0), 0.95)
    students = 2 * t.ppf(0.975, 11) * values.std(axis=1, ddof=1) / math.sqrt(12)
    assert np.mean((high - low) / students) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("prompts", "confidence"), [(1, 0.1), (2, 0.95), (4, 0.95), (9, 1 - 1e-9)])
def test_too_few_prompts_have_a_mean_and_no_interval(prompts, confidence):
    interval = bootstrap_mean(np.arange(prompts), **SETTINGS | {"confidence": confidence})
    assert (interval.mean, interval.prompts) == ((prompts - 1) / 2, prompts)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_too_few_draws_for_the_percentile_give_no_interval():
    assert math.isnan(bootstrap_mean(np.arange(50), draws=30, confidence=0.95, seed=0).low)
    assert bootstrap_mean(np.arange(50), draws=60, confidence=0.95, seed=0).low > 0


def test_a_seed_fixes_the_interval():
    values = np.random.default_rng(2).normal(size=30)
    assert bootstrap_mean(values, **SETTINGS) == bootstrap_mean(values, **SETTINGS)
    assert bootstrap_mean(values, **SETTINGS) != bootstrap_mean(values, **SETTINGS | {"seed": 1})


def test_how_much_is_held_at_a_time_changes_nothing(monkeypatch):
    values, ones = np.random.default_rng(2).normal(size=(25, 4, 6)), np.ones((25, 4, 6))
    whole = resample(values, ones, draws=500, seed=0)
    monkeypatch.setattr(resampling, "FLOATS", 3000)
    assert resample(values, ones, draws=500, seed=0) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.0, 1.0, math.nan, math.nan], "entry 2 is nan"), ([math.inf, 1.0], "entry 0 is inf"), ([], "no values")],
)
def test_values_without_a_mean_are_named(values, message):
    with pytest.raises(ValueError, match=f"values: {message}"):
        mean_interval(values, confidence=0.95)
    with pytest.raises(ValueError, match=f"parts: {message}"):
        bootstrap_mean(values, **SETTINGS)


def test_a_ratio_of_sums_counts_each_prompt_by_its_whole_and_passes_over_empty_ones():
    interval = bootstrap_ratio([1, 0, 0, 0, 0, 0], [1, 3, 3, 3, 3, 0], **SETTINGS | {"draws": 20_000})
    assert (interval.mean, interval.prompts) == (1 / 13, 5)
    # Four of five are drawn, and the percentile is 0.28: none is the first in 41% of draws, all four in 0.16%, three
    # in 2.56%, where the ratio is 3 to 3 + 3.
    assert (interval.low, interval.high) == (0.0, 0.5)
    assert bootstrap_ratio([2, 4, 6, 8, 1], [4, 8, 12, 16, 2], **SETTINGS).low == 0.5


@pytest.mark.parametrize("wholes", [[1, 2, 3], [1, -1], [0, 0]])
def test_wholes_that_make_no_ratio_are_refused(wholes):
    with pytest.raises(ValueError, match="wholes: expected 2 numbers >= 0"):
        bootstrap_ratio([1, 2], wholes, **SETTINGS)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(5, 20), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.booleans())
def test_a_resampled_p_is_below_the_level_where_the_interval_leaves_zero_out_and_nowhere_else(
    seed, n, confidence, whole
):
    values = np.random.default_rng(seed).normal(0.3, 1, (n, 1, 4))
    values = np.round(values) if whole else values  # with ties, and draws of zero
    drawn, freedom = resample(values, np.ones(values.shape), draws=1000, seed=0), np.full(4, n - 1.0)
    for low, high, p in zip(*ends(drawn, freedom, confidence), p_values(drawn, freedom), strict=True):
        if not math.isnan(low):
            assert (p <= 1 - confidence + 1e-9) == (low > 0 or high < 0)


def test_a_resampled_p_says_no_more_than_prompts_and_draws_can():
    few, many = (
        p_values(
            resample(np.linspace(5, 6, n)[:, None, None], np.ones((n, 1, 1)), draws=1000, seed=0), np.array([n - 1.0])
        )
        for n in (4, 12)
    )
    # the rarest resample of four prompts is one prompt three times, at 1 in 64
    assert few == pytest.approx(2 * t.cdf(-2.1539, 3), abs=1e-4)
    # of 1000 draws none is beyond zero: it might be 1 in 1001
    assert many == pytest.approx(2 * t.cdf(-3.0905, 11), abs=1e-4)


def test_the_error_of_a_resampled_p_is_how_far_it_varies_over_seeds_of_the_resampling():
    values = np.random.default_rng(4).normal(0.45, 1, (40, 1, 1))
    p = [p_values(resample(values, np.ones(values.shape), draws=500, seed=s), np.array([39.0]))[0] for s in range(200)]
    assert 0.02 < np.mean(p) < 0.06
    assert np.std(p) == pytest.approx(p_error(np.mean(p), 500), rel=0.25)


def test_a_p_within_two_of_its_errors_of_the_level_is_undecided():
    assert undecided({"p": 0.046, "p_error": 0.003}) == (
        "p 0.0460 is within two Monte-Carlo standard errors (0.0030 each) of 0.05: more draws can decide"
    )
    assert undecided({"p": 0.043, "p_error": 0.003}) is None
    assert undecided({"p": 0.046}) is None  # not resampled
    assert undecided({"p": None, "p_error": None}) is None
    # corrected, 0.012 stands for 0.048, and its error is four times as large
    assert undecided({"p": 0.012, "p_error": 0.001, "p_corrected": 0.048})
    assert undecided({"p": 0.046, "p_error": 0.003, "p_corrected": 0.2}) is None


# Arms


def test_means_and_differences_worked_by_hand():
    baseline, arm = [1.0, 2, 3, 4, 5, 6], [2.0, 2, 4, 4, 6, 9]
    compared = compare([[baseline], [arm]], **TWO)
    assert [interval[0].mean for interval in compared.means] == [3.5, 4.5]
    assert compared.means[1][0] == mean_interval(arm, confidence=0.95)
    assert compared.differences.keys() == {1}
    difference = compared.differences[1][0]
    # squares of 0 -1 0 -1 0 2
    assert (difference.mean, difference.freedom, difference.prompts, difference.seeds) == (1.0, 5, 6, 1)
    assert difference.error == pytest.approx(math.sqrt(6 / 5 / 6))
    assert (difference.low, difference.high) == pytest.approx((1 - 2.570582 * 0.2**0.5, 1 + 2.570582 * 0.2**0.5))
    assert difference.effect == pytest.approx(1 / math.sqrt(6 / 5))


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.sampled_from([0.5, 0.95]))
def test_with_one_seed_everything_is_the_paired_t_test(seed, n, confidence):
    values = np.random.default_rng(seed).normal(size=(2, 3, n))
    compared = compare(values, against=[None, 0], confidence=confidence)
    for measure in range(3):
        ours, theirs = compared.differences[1][measure], ttest_rel(values[1, measure], values[0, measure])
        assert (ours.p, ours.freedom) == pytest.approx((theirs.pvalue, n - 1))
        assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval(confidence))
        alone = ttest_1samp(values[0, measure], 0).confidence_interval(confidence)
        assert (compared.means[0][measure].low, compared.means[0][measure].high) == pytest.approx(alone)


def test_each_arm_is_compared_with_its_own_twin():
    values = np.random.default_rng(3).normal(size=(4, 2, 9))
    compared = compare(values, against=[None, 0, None, 2], confidence=0.95)
    assert compared.differences.keys() == {1, 3}
    pair = compare(values[2:], **TWO)
    assert compared.differences[3] == pair.differences[1]
    assert compared.means[2:] == pair.means
    assert compare(values, against=[None] * 4, confidence=0.95).differences == {}


@pytest.mark.parametrize("against", [[None], [None, 3, 0], [None, -1, 0], [None, 1, 0]])
def test_a_twin_that_is_no_other_arm_is_refused(against):
    with pytest.raises(ValueError, match="against: "):
        compare(np.zeros((3, 1, 5)), against=against, confidence=0.95)


def test_an_arm_that_lacks_prompts_is_compared_over_those_in_common_and_takes_none_from_others():
    values = np.random.default_rng(4).normal(size=(3, 2, 20))
    settings = {"against": [None, 0, 0], "confidence": 0.95}
    full = compare(values, **settings)
    values[1, 0, 5:15] = math.nan
    values[0, 1, 0] = math.nan
    holed = compare(values, **settings)
    assert holed.differences[2][0] == full.differences[2][0]
    assert holed.means[2] == full.means[2]
    assert [d.prompts for d in holed.differences[1]] == [10, 19]
    there = ~np.isnan(values[1, 0])
    alone = compare(values[:2, :1, there], **TWO).differences[1][0]
    assert (holed.differences[1][0].mean, holed.differences[1][0].high) == pytest.approx((alone.mean, alone.high))
    assert holed.means[1][0].prompts == 10


def test_arms_without_a_common_prompt_have_no_difference():
    values = np.full((2, 1, 8), math.nan)
    values[0, 0, :4], values[1, 0, 4:] = 1, 2
    difference = compare(values, **TWO).differences[1][0]
    assert difference.prompts == 0
    assert all(math.isnan(v) for v in (difference.mean, difference.low, difference.p, difference.error))


def test_one_prompt_has_a_mean_and_no_interval():
    difference = compare([[[1.0]], [[3.0]]], **TWO).differences[1][0]
    assert (difference.mean, difference.prompts) == (2.0, 1)
    assert all(math.isnan(v) for v in (difference.low, difference.high, difference.p, difference.effect))


def test_differences_that_are_all_alike_have_no_error_and_a_p_of_nought_or_one():
    compared = compare([[[1.0, 2, 3]], [[2.0, 3, 4]], [[1.0, 2, 3]]], against=[None, 0, 0], confidence=0.95)
    up, same = compared.differences[1][0], compared.differences[2][0]
    assert (up.low, up.high, up.p, up.error) == (1, 1, 0, 0)
    assert (same.low, same.high, same.p, same.error) == (0, 0, 1, 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(1, 4), st.sampled_from([0.5, 0.8, 0.95]))
def test_p_is_below_the_level_where_the_interval_leaves_a_value_out_and_nowhere_else(seed, n, seeds, confidence):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5 * rng.normal(size=(2, 3, 1, 1)), 1, (2, 3, n, seeds))
    for difference in compare(values, against=[None, 0], confidence=confidence).differences[1]:
        assert (difference.p < 1 - confidence) == (difference.low > 0 or difference.high < 0)
        for value in (-0.3, 0.0, 0.4):
            p = p_at(difference.mean, difference.error, difference.freedom, value)
            assert (p < 1 - confidence) == (difference.low > value or difference.high < value)


def test_p_is_uniform_where_nothing_differs():
    values = np.random.default_rng(7).normal(size=(2, 1500, 16, 3))
    p = np.array([d.p for d in compare(values[..., 0], **TWO).differences[1]])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert abs(np.mean(p <= level) - level) < 3.5 * math.sqrt(level * (1 - level) / 1500)
    crossed = np.array([d.p for d in compare(values, **TWO).differences[1]])
    assert 0.03 - 3.5 * math.sqrt(0.03 * 0.97 / 1500) < np.mean(crossed < 0.05) < 0.05


def test_a_large_effect_has_a_small_p_however_few_the_seeds():
    """No smallest p: after Holm over sixteen claims, two seeds can still tell an effect that is large enough."""
    values = np.array([[[0.0, 0.1]], [[10_000.0, 10_000.3]]])
    assert 16 * compare(values, **TWO).differences[1][0].p < 0.05


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ((1, 0, 3), math.inf, "arm 1, measure 0, prompt 3 is inf"),
        ((2, 1), math.nan, "arm 2, measure 1 has no value for any prompt"),
    ],
)
def test_values_that_cannot_be_compared_are_named(at, value, message):
    values = np.zeros((3, 2, 5))
    values[at] = value
    with pytest.raises(ValueError, match=message):
        compare(values, against=[None, 0, 0], confidence=0.95)


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="got 2 dimensions"):
        compare(np.zeros((3, 4)), against=[None, 0, 0], confidence=0.95)


# Corrections, effects and prompts needed


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1, 1]
    assert holm([0.02, math.nan, 0.03]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    assert holm([]).shape == (0,)


@given(P_VALUES, st.randoms())
def test_holm_keeps_the_order_and_is_between_none_and_bonferroni(p, random):
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    assert holm(p[order]) == pytest.approx(corrected[order])


def test_effects_worked_by_hand():
    columns = np.array([[1, 2, 0, 7.0], [3, 2, 0, math.nan], [2, 2, 0, math.nan]])
    assert effect_sizes(columns) == pytest.approx([2, math.inf, 0, math.nan], nan_ok=True)
    assert effect_sizes(np.full((7, 1), -0.1)).tolist() == [-math.inf]  # whose sum is not seven times -0.1


@pytest.mark.parametrize("effect", [0.2, 0.35, 0.5, 0.8, 1.0, -1.4])
def test_prompts_needed_see_half_the_effect_in_four_of_five_cases(effect):
    def chance(n: float) -> float:
        edge, shift = t.ppf(0.975, n - 1), abs(effect) / 2 * math.sqrt(n)
        return nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift)

    needed = float(needed_prompts(effect))
    assert chance(needed) >= 0.7985
    assert chance(needed - 2) < 0.8


def test_prompts_needed_at_the_ends():
    assert needed_prompts([0.0, math.inf, -math.inf, math.nan]) == pytest.approx(
        [math.inf, 2, 2, math.nan], nan_ok=True
    )
