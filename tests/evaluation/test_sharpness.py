"""Variances of a paired difference, and what other numbers of prompts, samples and seeds would give."""

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.evaluation import sharpness
from ddpo_lib.statistics.intervals import compare

PROMPTS, SEEDS = 400, 40


@pytest.fixture(scope="module")
def by_set():
    """Differences with variance 0.01 between prompts, 0.04 between seeds, and 0.02 + 0.16 / samples besides."""
    rng, parts = np.random.default_rng(0), []
    of_prompt, of_seed = rng.normal(0, 0.1, (PROMPTS, 1)), rng.normal(0, 0.2, SEEDS)
    for samples in (2, 4, 8):
        rest = rng.normal(0, np.sqrt(0.02 + 0.16 / samples), (PROMPTS, SEEDS))
        table = pd.DataFrame(1.0 + of_prompt + of_seed + rest).stack().rename_axis(["prompt_id", "seed"])
        found = table.rename("semantic").reset_index().assign(arm="ddpo-both", samples=samples)
        parts += [found, found.assign(arm="dpo", semantic=0.0)]
    return pd.concat(parts, ignore_index=True)


def test_components_of_variance_are_those_that_were_put_in(by_set):
    found = sharpness.variances(by_set, "ddpo-both", "dpo", "semantic")
    assert found["samples"].tolist() == [2, 4, 8]
    assert found["residual"].to_numpy() == pytest.approx([0.10, 0.06, 0.04], rel=0.05)
    assert found["prompt"].to_numpy() == pytest.approx([0.01] * 3, rel=0.3)
    assert found["seed"].to_numpy() == pytest.approx([0.04] * 3, rel=0.6)


def test_arms_are_compared_over_the_seeds_that_both_have(by_set):
    once = by_set[(by_set["arm"] == "dpo") & (by_set["seed"] > 0)].index
    found = sharpness.variances(by_set.drop(once), "ddpo-both", "dpo", "semantic")
    assert found["seeds"].tolist() == [1, 1, 1] and found["prompts"].tolist() == [PROMPTS] * 3
    assert found["seed"].tolist() == found["residual"].tolist() == [0.0] * 3  # one seed cannot tell them apart


def test_the_residual_at_other_numbers_of_samples_is_on_the_line(by_set):
    found = sharpness.variances(by_set, "ddpo-both", "dpo", "semantic")
    assert sharpness.at_samples(found, 64)[2] == pytest.approx(0.02 + 0.16 / 64, rel=0.15)
    assert sharpness.at_samples(found, 8)[2] == pytest.approx(found["residual"].iloc[-1], rel=0.05)


def test_neither_part_of_the_residual_is_negative(by_set):
    found = sharpness.variances(by_set, "ddpo-both", "dpo", "semantic")
    falls = found.assign(residual=[0.4, 0.1, 0.03])  # falls faster than 1 / samples
    assert sharpness.at_samples(falls, 16)[2] == pytest.approx(0.015)
    rises = found.assign(residual=[0.1, 0.11, 0.12])
    assert sharpness.at_samples(rises, 64)[2] == pytest.approx(0.12)


def test_a_projection_is_the_half_width_that_runs_of_that_size_have():
    rng = np.random.default_rng(3)
    parts = {"prompt": 0.02, "seed": 0.0002, "residual": 0.08}
    found = pd.DataFrame([{"samples": 8, "prompts": 36, "seeds": 3, "mean": 0.0, **parts}])
    of_prompt, of_seed, residual = np.sqrt(list(parts.values()))
    differences = rng.normal(0, of_prompt, (2000, 36, 1)) + rng.normal(0, of_seed, (2000, 1, 3))
    runs = compare((differences + rng.normal(0, residual, (2000, 36, 3)))[None], against=[None], confidence=0.95)
    measured = np.mean([(run.high - run.low) / 2 for run in runs.means[0]])
    assert sharpness.project(found, 36, 8, 3, 0.95) == pytest.approx(measured, rel=0.02)


def test_more_of_anything_is_sharper(by_set):
    found = sharpness.variances(by_set, "ddpo-both", "dpo", "semantic")
    here = sharpness.project(found, 100, 8, 5, 0.95)
    for more in ((200, 8, 5), (100, 16, 5), (100, 8, 10)):
        assert sharpness.project(found, *more, 0.95) < here


def test_costs_come_from_the_artifacts_of_the_two_arms():
    seconds = {
        "sft": 60.0, "sft-seed1": 60.0, "arm-dpo": 100.0, "arm-dpo-seed1": 110.0, "arm-ddpo-both": 100.0,
        "arm-ddpo-both-seed1": 90.0, "arm-orpo": 999.0, "samples-dpo": 40.0, "samples-dpo-seed1": 40.0,
        "samples-ddpo-both": 40.0, "samples-ddpo-both-seed1": 40.0, "samples-sft": 999.0,
    }  # fmt: skip
    cost = sharpness.costs_of(seconds, "ddpo-both", "dpo", prompts=10, samples=8, seeds=2)
    assert cost.training == 260 and cost.sampling == pytest.approx(1.0)
    assert cost.minutes(10, 8, 2) == pytest.approx((520 + 160) / 60)
