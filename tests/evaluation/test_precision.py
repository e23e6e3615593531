"""Components of variance, the width of intervals that follows from them, and simulated coverage."""

import numpy as np
import pytest

from ddpo_lib.evaluation.precision import Components, components, half_width, simulate_coverage
from ddpo_lib.statistics.intervals import compare


@pytest.mark.parametrize("prompt", [0, 0.125, 1])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("ratio", [0, 0.3, 1])
def test_intervals_of_values_that_are_mostly_noise_are_not_too_wide(prompt, seeds, ratio):
    seed = ratio * (prompt + 1 / seeds) / 36 * seeds
    assert 0.93 <= simulate_coverage(Components(prompt, seed, 1), 36, seeds, 0.95, sets=20_000) <= 0.97


@pytest.mark.parametrize(
    ("shape", "ratio"), [((16, 1), 0), ((136, 3), 0), ((136, 3), 1), ((136, 3), 3), ((10, 1), 0), ((16, 5), 3)]
)
def test_simulated_coverage_is_what_the_docstring_says(shape, ratio):
    prompts, seeds = shape
    share = simulate_coverage(Components(1, ratio * seeds / prompts, 0.25), prompts, seeds, 0.95, sets=4000)
    assert 0.93 <= share <= 0.97


def test_simulated_coverage_shows_what_one_seed_hides():
    assert simulate_coverage(Components(1, 0.5, 0), 16, 1, 0.95, sets=1000) < 0.6
    assert simulate_coverage(Components(1, 0, 0.5), 16, 3, 0.5, sets=4000) == pytest.approx(0.5, abs=0.05)


def test_simulated_coverage_uses_the_interval_of_compare():
    whole = simulate_coverage(Components(1, 0.2, 0.5), 12, 3, 0.8, sets=300, seed=4)
    rng, (of_prompt, of_seed, residual) = np.random.default_rng(4), np.sqrt((1, 0.2, 0.5))
    cells = rng.normal(0, of_prompt, (300, 12, 1)) + rng.normal(0, of_seed, (300, 1, 3))
    cells += rng.normal(0, residual, (300, 12, 3))
    means = compare(cells[None], against=[None], confidence=0.8).means[0]
    assert np.mean([interval.low <= 0 <= interval.high for interval in means]) == whole


def test_components_are_found_again():
    rng, truth = np.random.default_rng(7), (2.0, 0.5, 1.0)
    of_prompt, of_seed, residual = np.sqrt(truth)
    found = [
        components(rng.normal(0, of_prompt, (30, 1)) + rng.normal(0, of_seed, 8) + rng.normal(0, residual, (30, 8)))
        for _ in range(400)
    ]
    assert np.mean(found, axis=0) == pytest.approx(truth, rel=0.06)
    assert components(np.array([[1.0], [3]])) == (2, 0, 0)  # one seed: all is the prompt's
    with pytest.raises(ValueError, match="two prompts or more"):
        components([[1.0, 2]])


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        *[((16, 1), (1, 0, 0.5)), ((136, 3), (1, 0.01, 0.5)), ((16, 5), (1, 0.1, 0.5)), ((3, 6), (1, 0.1, 0.5))],
        *[((36, 3), (0, 0, 1)), ((36, 3), (1, 0.01, 1)), ((36, 3), (1, 1, 1)), ((36, 3), (1, 0, 0))],
    ],
)
def test_the_half_width_foretold_is_that_of_data_sets_on_average(shape, parts):
    rng, (of_prompt, of_seed, residual) = np.random.default_rng(8), np.sqrt(parts)
    prompts, seeds = shape
    values = rng.normal(0, of_prompt, (2000, prompts, 1)) + rng.normal(0, of_seed, (2000, 1, seeds))
    means = compare((values + rng.normal(0, residual, (2000, *shape)))[None], against=[None], confidence=0.95).means[0]
    found = np.mean([(interval.high - interval.low) / 2 for interval in means])
    assert half_width(Components(*parts), prompts, seeds, 0.95) == pytest.approx(found, rel=0.04)
    assert half_width(Components(0, 0, 0), prompts, seeds, 0.95) == 0
