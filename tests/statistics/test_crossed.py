"""Intervals over prompts crossed with training seeds: worked by hand, and how often they contain the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from ddpo_lib.evaluation.precision import components
from ddpo_lib.statistics.intervals import compare, mean_interval

TWO = {"against": [None, 0], "confidence": 0.95}


def coverage(values: np.ndarray, truth: float) -> float:
    """How often the interval holds the truth, over data sets: (data sets, prompts) or (data sets, prompts, seeds)."""
    means = compare(values[None], against=[None], confidence=0.95).means[0]
    return float(np.mean([interval.low <= truth <= interval.high for interval in means]))


def with_seeds(data_sets: int, prompts: int, seeds: int, ratio: float) -> np.ndarray:
    """(data sets, prompts, seeds) around 0; seeds give the mean `ratio` times the variance that prompts give it."""
    rng = np.random.default_rng(9)
    of_prompts, noise = rng.normal(size=(data_sets, prompts, 1)), rng.normal(0, 0.5, (data_sets, prompts, seeds))
    return of_prompts + noise + rng.normal(0, math.sqrt(ratio * seeds / prompts), (data_sets, 1, seeds))


def test_the_crossed_interval_worked_by_hand():
    values = np.array([[1.0, 3], [2, 6], [6, 6]])  # three prompts by two seeds, mean 4
    # mean squares: prompts 2 (4 + 0 + 4) / 2 = 8, seeds 3 (1 + 1) = 6, residuals 0 0, -1 1, 1 -1: 4 / 2 = 2
    found = compare([np.zeros((1, 3, 2)), values[None]], **TWO).differences[1][0]
    assert found.mean == 4
    assert found.error == pytest.approx(math.sqrt((8 + 6 - 2) / 6))
    freedom = 12**2 / (8**2 / 2 + 6**2 / 1 + 2**2 / 2)
    assert found.freedom == pytest.approx(freedom)
    assert found.high == pytest.approx(4 + t.ppf(0.975, freedom) * math.sqrt(2))
    assert (found.prompts, found.seeds) == (3, 2)
    assert components(values) == pytest.approx((3, 4 / 3, 2))


@pytest.mark.parametrize("holed", [False, True])
def test_seeds_that_show_no_effect_leave_the_interval_over_prompts(holed):
    values = np.array([[1.0, -1], [-1, 1], [1.5, -0.5], [-0.5, 1.5], [3, 2]])  # mean squares 2.1, 0.4 and 1.65
    assert components(values).seed == 0
    prompts = 4 if holed else 5
    values = np.where(np.arange(5)[:, None] < prompts, values, math.nan)
    found = compare([np.zeros((1, 5, 2)), values[None]], **TWO).differences[1][0]
    alone = mean_interval(values[:prompts].mean(axis=1), confidence=0.95)
    assert (found.freedom, found.prompts, found.seeds) == (prompts - 1, prompts, 2)
    assert (found.low, found.mean, found.high) == pytest.approx((alone.low, alone.mean, alone.high))


def test_with_more_seeds_than_prompts_it_is_prompts_that_may_show_no_effect():
    values = np.array([[1.0, -1], [-1, 1], [1.5, -0.5], [-0.5, 1.5], [3, 2]]).T
    found = compare([np.zeros((1, 2, 5)), values[None]], **TWO).differences[1][0]
    alone = mean_interval(values.mean(axis=0), confidence=0.95)
    assert (found.low, found.high, found.freedom) == pytest.approx((alone.low, alone.high, 4))


def test_degrees_of_freedom_are_no_fewer_than_those_of_the_shorter_side():
    # prompts' means are alike, seeds' differ: Satterthwaite's degrees of freedom of the small remainder would be 0.2
    values = np.array([[3.6, -1, -0.6], [-1.4, 2, -0.5], [3.6, 0, -1.5], [0.6, 2, -0.6]])
    found = compare([np.zeros((1, 4, 3)), values[None]], **TWO).differences[1][0]
    by_prompt, by_seed = values.mean(axis=1).var(ddof=1) / 4, values.mean(axis=0).var(ddof=1) / 3
    alone = components(values).residual / 12
    assert by_prompt < alone < by_seed
    assert found.error == pytest.approx(math.sqrt(by_prompt + by_seed - alone))
    assert found.freedom == 2


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 5), st.booleans())
def test_the_order_of_prompts_and_of_seeds_changes_nothing(seed, n, seeds, holed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 1, n, seeds))
    values[:, :, 0, 0] = math.nan if holed and n * seeds > 3 else 0.0
    moved = values[:, :, rng.permutation(n)][..., rng.permutation(seeds)]
    one, other = (compare(v, **TWO).differences[1][0] for v in (values, moved))
    assert (one.mean, one.low, one.p, one.effect) == pytest.approx((other.mean, other.low, other.p, other.effect))


def test_prompts_and_seeds_are_treated_alike():
    values = np.random.default_rng(2).normal(size=(2, 1, 6, 4))
    one, turned = (compare(v, **TWO).differences[1][0] for v in (values, values.swapaxes(2, 3)))
    assert (one.low, one.freedom) == pytest.approx((turned.low, turned.freedom))


@pytest.mark.parametrize(
    ("seeds", "ratio", "least"),
    [
        *[(1, 0, 0.93), (2, 0, 0.93), (2, 1, 0.92), (2, 3, 0.89), (3, 0, 0.93), (3, 0.3, 0.93), (3, 3, 0.92)],
        *[(5, 1, 0.93), (5, 3, 0.93), (5, 30, 0.93), (10, 1, 0.93)],
    ],
)
def test_intervals_over_prompts_and_seeds_cover_the_truth(seeds, ratio, least):
    assert least <= coverage(with_seeds(1500, 16, seeds, ratio), 0) <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 6, 10])
def test_intervals_over_seeds_alone_cover_the_truth(seeds):
    values = np.random.default_rng(5).normal(size=(3000, seeds))
    assert 0.94 < coverage(values, 0) < 0.96


def test_prompts_alone_would_cover_too_little_where_seeds_differ():
    values = with_seeds(800, 16, 5, 3)
    assert coverage(values.mean(axis=2), 0) < 0.75


def test_values_that_are_missing_at_random_cost_no_coverage():
    values = with_seeds(1500, 16, 3, 1)
    values[np.random.default_rng(1).random(values.shape) < 0.2] = math.nan
    assert 0.93 <= coverage(values, 0) <= 0.975


def test_seeds_that_repeat_one_another_add_nothing():
    values = np.random.default_rng(10).normal(size=(2, 2, 14))
    one = compare(values, **TWO)
    repeated = compare(np.repeat(values[..., None], 4, axis=3), **TWO)
    for plain, crossed in zip(one.differences[1], repeated.differences[1], strict=True):
        assert (plain.low, plain.high, plain.effect) == pytest.approx((crossed.low, crossed.high, crossed.effect))


def test_arms_share_their_seeds():
    rng = np.random.default_rng(11)
    baseline = rng.normal(size=(1, 1, 20, 5)) + rng.normal(0, 3, (1, 1, 1, 5))
    values = np.concatenate([baseline, baseline + rng.normal(1, 0.1, (1, 1, 20, 5))])
    compared = compare(values, **TWO)
    difference, mean = compared.differences[1][0], compared.means[1][0]
    assert difference.high - difference.low < 0.2 < 2 < mean.high - mean.low
    assert (difference.prompts, difference.seeds) == (20, 5)


def test_a_seed_that_is_missing_is_left_out():
    values = np.random.default_rng(12).normal(size=(2, 1, 20, 3))
    values[1, 0, :, 2] = math.nan
    difference = compare(values, **TWO).differences[1][0]
    two = compare(values[..., :2], **TWO).differences[1][0]
    assert (difference.mean, difference.low, difference.seeds) == (pytest.approx(two.mean), pytest.approx(two.low), 2)
