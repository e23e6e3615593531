"""Fronts, hypervolumes, and arms at equal diversity."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ddpo_lib.base.files import plain
from ddpo_lib.evaluation.fronts import compare_fronts, hypervolume, matched
from ddpo_lib.evaluation.published import verdict
from ddpo_lib.statistics.intervals import bootstrap_ratio

SETTINGS = {"draws": 1000, "confidence": 0.95, "seed": 0}
POINTS = arrays(np.float64, st.tuples(st.integers(1, 7), st.just(2)), elements=st.integers(-3, 9).map(float))
STAIRS = [[1, 3], [2, 2], [3, 1]]  # diversity, quality


def sweeps(points: list, prompts: int = 20, noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Quality and diversity (arms, prompts, temperatures) around each arm's points (arms, temperatures, 2)."""
    rng = np.random.default_rng(seed)
    points = np.asarray(points, dtype=float)[:, None]
    values = points + rng.normal(0, noise, (len(points), prompts, *points.shape[2:]))
    return {"quality": values[..., 1], "diversity": values[..., 0]}


# Points


def test_a_hypervolume_worked_by_hand():
    assert hypervolume(STAIRS, (0, 0)) == 6  # columns of width 1 and heights 3, 2, 1
    assert hypervolume(STAIRS, (1, 1)) == 1  # only (2, 2) is better than the corner in both
    assert hypervolume([[4, 5]], (1, 3)) == 6
    assert hypervolume([[4, 5], [math.nan, 9]], (1, 3)) == 6
    assert hypervolume(STAIRS, (5, 0)) == 0
    assert hypervolume([STAIRS, [[4, 5]] * 3], (0, 0)).tolist() == [6, 20]


@given(POINTS, st.randoms())
def test_a_hypervolume_does_not_depend_on_the_order_of_points(points, random):
    area = hypervolume(points, (0, 0))
    assert hypervolume(points[random.sample(range(len(points)), len(points))], (0, 0)) == area
    # unit squares whose far corner some point reaches
    cells = [any(a >= i and b >= j for a, b in points) for i in range(1, 10) for j in range(1, 10)]
    assert area == sum(cells)


@given(POINTS, st.tuples(st.integers(-3, 9), st.integers(-3, 9)))
def test_a_point_more_never_takes_area_and_a_dominated_one_adds_none(points, new):
    before, after = hypervolume(points, (0, 0)), hypervolume(np.vstack([points, new]), (0, 0))
    assert after >= before
    if any(a >= new[0] and b >= new[1] for a, b in points):
        assert after == before
    elif min(new) > 0:
        assert after > before


# Arms


def test_fronts_worked_by_hand():
    fronts = compare_fronts(**sweeps([STAIRS, [[2, 3], [3, 3], [1, 4]]]), baseline=0, **SETTINGS)
    assert fronts.reference == (1, 1)
    assert fronts.points[1].tolist() == [[2, 3], [3, 3], [1, 4]]
    assert [h.mean for h in fronts.hypervolumes] == [1, 4]
    difference = fronts.differences[1]
    assert (difference.mean, difference.low, difference.high, difference.prompts) == (3, 3, 3, 20)
    assert difference.p < 0.01
    assert compare_fronts(**sweeps([STAIRS]), reference=(0, 0), baseline=0, **SETTINGS).hypervolumes[0].mean == 6


def test_a_single_temperature_has_the_area_of_its_means():
    table = sweeps([[[2, 3]], [[2, 3]]], noise=0.4)
    table["diversity"][...] = 2
    fronts = compare_fronts(**table, reference=(0, 0), baseline=0, **SETTINGS)
    plain = bootstrap_ratio(table["quality"][0, :, 0], np.ones(20), **SETTINGS)
    found = fronts.hypervolumes[0]
    assert (found.mean, found.low, found.high) == pytest.approx((2 * plain.mean, 2 * plain.low, 2 * plain.high))
    paired = bootstrap_ratio(2 * (table["quality"][1, :, 0] - table["quality"][0, :, 0]), np.ones(20), **SETTINGS)
    difference = fronts.differences[1]
    assert (difference.mean, difference.low, difference.high) == pytest.approx((paired.mean, paired.low, paired.high))


def test_arms_that_lack_prompts_or_temperatures():
    table = sweeps([STAIRS, STAIRS, STAIRS, STAIRS], noise=0.3)
    whole = compare_fronts(**table, reference=(0, 0), baseline=0, **SETTINGS)
    table["quality"][1, :5, 0] = math.nan  # five prompts are incomplete
    table["diversity"][2, :, 1:] = math.nan  # one temperature only
    holed = compare_fronts(**table, reference=(0, 0), baseline=0, **SETTINGS)
    assert [h.prompts for h in holed.hypervolumes] == [20, 15, 20, 20]
    assert [d.prompts for d in holed.differences.values()] == [15, 20, 20]
    assert holed.hypervolumes[0] == whole.hypervolumes[0]
    assert holed.differences[3].low == whole.differences[3].low
    assert holed.hypervolumes[2].mean == pytest.approx(hypervolume(whole.points[2, :1], (0, 0)))
    own = {name: values[:2, 5:] for name, values in table.items()}
    alone = compare_fronts(**own, reference=(0, 0), baseline=0, **SETTINGS)
    assert holed.differences[1].mean == pytest.approx(alone.differences[1].mean)


def test_fronts_without_a_common_prompt_have_no_difference():
    table = sweeps([STAIRS, STAIRS])
    table["quality"][0, :10], table["quality"][1, 10:] = math.nan, math.nan
    difference = compare_fronts(**table, baseline=0, **SETTINGS).differences[1]
    assert difference.prompts == 0
    assert math.isnan(difference.mean)
    assert math.isnan(difference.p)


def test_nearly_tied_points_raise_a_hypervolume_and_not_the_difference_of_two_alike():
    tied = [[[0.5, 0.5]] * 5] * 2
    alone, apart, middle = [], [], []
    for seed in range(150):
        table = sweeps(tied, 16, 0.5, seed)
        fronts = compare_fronts(**table, reference=(-1, -1), baseline=0, **SETTINGS)
        found, difference = fronts.hypervolumes[1], fronts.differences[1]
        alone.append(found.low <= 1.5**2 <= found.high)
        middle.append((found.mean, (found.low + found.high) / 2))
        apart.append(difference.low <= 0 <= difference.high)
    estimate, resampled = np.mean(middle, axis=0)
    assert 1.5**2 + 0.3 < estimate < resampled - 0.1
    assert np.mean(alone) < 0.6
    assert np.mean(apart) > 0.9


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("quality", (1, 3, 2), math.inf, "quality: arm 1, prompt 3, temperature 2 is inf"),
        ("diversity", 0, math.nan, "arm 0 has no prompt"),
    ],
)
def test_sweeps_that_cannot_be_compared_are_named(name, at, value, message):
    table = sweeps([STAIRS, STAIRS])
    table[name][at] = value
    with pytest.raises(ValueError, match=message):
        compare_fronts(**table, baseline=0, **SETTINGS)
    with pytest.raises(ValueError, match="alike"):
        compare_fronts(table["quality"], table["diversity"][:, :4], baseline=0, **SETTINGS)


# At equal diversity


@pytest.mark.parametrize(("point", "expected"), [((1.5, 4), 1.5), ((2, 2), 0), ((3, 0), -1), ((1, 3), 0)])
def test_an_arm_against_the_baselines_curve_worked_by_hand(point, expected):
    table = sweeps([[STAIRS[2], STAIRS[0], STAIRS[1]], [[9, 9], point, [9, 9]]])
    found = matched(**table, arm=1, temperature=1, baseline=0, **SETTINGS)
    assert (found.mean, found.low, found.high, found.outside) == (expected, expected, expected, 0)
    assert found.prompts == 20
    assert (found.p < 0.01) == (expected != 0)


def test_where_the_baseline_is_not_as_diverse_nothing_is_said():
    found = matched(**sweeps([STAIRS, [[3.5, 3]] * 3]), arm=1, temperature=0, baseline=0, **SETTINGS)
    assert all(math.isnan(value) for value in (found.mean, found.low, found.high, found.p))
    assert found.outside == 1


def test_a_resampled_p_tells_its_own_error_and_whether_more_draws_could_move_it():
    table = sweeps([STAIRS, np.add(STAIRS, (0, 0.1))], noise=0.3)
    few, many = (
        matched(**table, arm=1, temperature=1, baseline=0, **SETTINGS | {"draws": draws}) for draws in (200, 3200)
    )
    for found, draws in ((few, 200), (many, 3200)):
        assert found.p_error == pytest.approx(math.sqrt(found.p * (2 - found.p) / draws))
    fronts = compare_fronts(**table, baseline=0, **SETTINGS)
    difference = fronts.differences[1]
    assert difference.p_error == pytest.approx(math.sqrt(difference.p * (2 - difference.p) / SETTINGS["draws"]))
    close = plain(difference) | {"p": 0.045, "p_corrected": 0.045, "p_error": 0.004}
    assert verdict(close | {"low": 0.1, "high": 0.9}, "higher") == "not enough data"


def test_draws_beyond_the_curve_count_against_both_ends():
    table = sweeps([STAIRS, [[2.95, 3]] * 3], noise=0.3)
    found = matched(**table, arm=1, temperature=0, baseline=0, **SETTINGS)
    assert 0.1 < found.outside < 0.9
    assert found.mean > 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.p > found.outside


def test_the_gain_at_equal_diversity_is_covered():
    line = np.stack([np.linspace(0.3, 0.7, 5), 1 - np.linspace(0.3, 0.7, 5)], axis=1)
    arms = [line, line + np.array([0, 0.2])]
    covered = []
    for seed in range(200):
        found = matched(**sweeps(arms, 16, 0.12, seed), arm=1, temperature=2, baseline=0, **SETTINGS)
        covered.append(found.low <= 0.2 <= found.high)
    assert np.mean(covered) > 0.89


def test_a_curve_takes_two_temperatures_and_a_point_its_prompts():
    table = sweeps([STAIRS, STAIRS])
    table["quality"][0, :, 1:] = math.nan
    table["quality"][1, :, 2] = math.nan
    with pytest.raises(ValueError, match="arm 0 was sampled at one temperature"):
        matched(**table, arm=1, temperature=0, baseline=0, **SETTINGS)
    with pytest.raises(ValueError, match="arm 1 has no prompt at temperature 2"):
        matched(**table, arm=1, temperature=2, baseline=1, **SETTINGS)
