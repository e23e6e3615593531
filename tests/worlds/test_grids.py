"""Rows of a grid over seeds: paired differences, verdicts, and which of two grids is shown."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.worlds import grids


def grid(**rows):
    """A table as `collect.join` writes it: by row, the entropy over plots of its seeds; other measures are
    constant."""
    return pd.DataFrame(
        [
            {"row": row, "seed": seed, "world": "main", **dict.fromkeys(grids.MEASURES, 0.25), "plot_entropy": value}
            for row, values in rows.items()
            for seed, value in enumerate(values)
        ]
    )


LEVEL = {"confidence": 0.95}


def test_rows_are_compared_by_seed():
    noise = np.random.default_rng(0).normal(size=10)
    table = grid(dpo=noise, ddpo=noise + 0.5 + 0.01 * np.arange(10))
    found = grids.summarise_rows(table.sample(frac=1, random_state=1), baseline="dpo", **LEVEL)
    change = found["differences"]["ddpo"]["plot_entropy"]
    assert change["mean"] == pytest.approx(0.545) and change["prompts"] == 10
    assert 0.5 < change["low"] < change["high"] < 0.6  # far narrower than the seeds' own spread
    assert found["rows"]["dpo"]["plot_entropy"]["mean"] == pytest.approx(noise.mean())


def claim(row, expect, against="dpo", margin=0.0):
    return {"row": row, "against": against, "measure": "plot_entropy", "expect": expect, "margin": margin}


def test_claims_get_the_verdict_of_their_interval_and_those_on_rows_that_are_not_there_none():
    noise = np.random.default_rng(0).normal(size=12) / 100
    table = grid(dpo=np.ones(12), up=1.5 + noise, same=1 + noise)
    asked = [
        claim("up", "higher"),
        claim("up", "lower"),
        claim("same", "higher"),
        claim("same", "unchanged", margin=0.1),
    ]
    decided = grids.decide_rows(table, [*asked, claim("up", "unchanged", margin=0.1), claim("gone", "higher")], **LEVEL)
    verdicts = ["reproduced", "not reproduced", "not enough data", "reproduced", "not reproduced"]
    assert [c["verdict"] for c in decided] == verdicts


def test_p_is_corrected_over_the_claims_that_were_decided():
    rng = np.random.default_rng(1)
    table = grid(dpo=np.zeros(10), a=rng.normal(0.8, 1, 10), b=rng.normal(0.8, 1, 10))
    (alone,) = grids.decide_rows(table, [claim("a", "higher")], **LEVEL)
    both = grids.decide_rows(table, [claim("a", "higher"), claim("b", "higher")], **LEVEL)
    assert alone["p_corrected"] == alone["p"] == alone["difference"]["p"]
    assert min(c["p_corrected"] for c in both) == pytest.approx(2 * min(c["p"] for c in both))


def test_a_claim_of_equivalence_has_twice_the_p_of_two_one_sided_tests():
    values = np.random.default_rng(4).normal(0.02, 0.05, 10)
    (decided,) = grids.decide_rows(
        grid(dpo=np.zeros(10), same=values), [claim("same", "unchanged", margin=0.1)], **LEVEL
    )
    one_sided = max(
        ttest_1samp(values, -0.1, alternative="greater").pvalue, ttest_1samp(values, 0.1, alternative="less").pvalue
    )
    assert decided["p"] == decided["p_corrected"] == pytest.approx(2 * one_sided)
    assert decided["difference"]["p"] == pytest.approx(ttest_1samp(values, 0).pvalue)
    assert decided["verdict"] == "reproduced"


def test_the_fuller_of_two_grids_is_shown(tmp_path):
    settings = load_profile("smoke").worlds
    few = grids.Grid(grid(dpo=[1.0, 2.0]), pd.DataFrame({"row": []}), {}, {}, settings, {})
    assert grids.fullest(few, tmp_path / "none") == (few, True)
    many = grid(dpo=[1.0, 2.0, 3.0])
    many.to_parquet(tmp_path / "modes.parquet")
    few.traces.to_parquet(tmp_path / "traces.parquet")
    for name in ("truth", "base", "manifest"):
        (tmp_path / f"{name}.json").write_text('{"name": "worlds"}')
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    shown, own = grids.fullest(few, tmp_path)
    assert not own and shown.table.equals(many) and shown.made == {"name": "worlds"}
    other = few._replace(settings=load_profile("embedded").worlds)
    assert grids.fullest(other, tmp_path) == (other, True)  # another world's grid is no stand-in for this run's
    rows = settings.rows | {"dpo": settings.rows["dpo"].model_copy(update={"noise": 1.0})}
    own_row = few._replace(settings=settings.model_copy(update={"rows": rows}))
    assert grids.fullest(own_row, tmp_path) == (own_row, True)  # nor is one whose row of that name is another


def test_a_row_is_compared_with_a_row_of_another_world_seed_by_seed():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=10)
    here, there = grid(dpo=noise + 0.3), grid(**{"null-dpo": noise}).assign(world="null")
    change = grids.paired(pd.concat([there, here]), "dpo", "null-dpo", "plot_entropy", **LEVEL)
    assert change["mean"] == pytest.approx(0.3) and change["prompts"] == 10
    assert change["high"] - change["low"] < 1e-9  # the seeds' spread is common to both
