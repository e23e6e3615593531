"""What a model's texts come to in a world with known modes, against worked numbers and the world's own truth."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpo_lib import modes
from ddpo_lib.modeworld import World, write_corpus

WORLD = World(prompts=16, held_out=0, plots=6, voices=3)


def table(*rows):
    return pd.DataFrame(rows, columns=["plot", "voice", "flawed"])


def test_a_worked_example():
    found = modes.measure(table((0, 0, False), (0, 1, True), (5, 2, False), (-1, -1, False)), WORLD)
    assert found["texts"] == 4 and found["none"] == 0.25
    assert found["plots"] == pytest.approx([2 / 3, 0, 0, 0, 0, 1 / 3])
    assert found["voices"] == pytest.approx([1 / 3] * 3)
    assert found["voice_entropy"] == pytest.approx(math.log2(3))
    assert found["plot_entropy"] == pytest.approx(math.log2(3) - 2 / 3)
    assert found["flawed"] == found["rare_plots"] == found["rare_good"] == pytest.approx(1 / 3)
    assert found["plot_coverage"] == pytest.approx(2 / 6) and found["voice_coverage"] == 1.0


def test_a_rare_plot_with_a_flaw_is_no_rare_good_one():
    assert modes.measure(table((5, 0, True)), WORLD)["rare_good"] == 0.0


def test_texts_that_cannot_be_read_leave_no_numbers_but_their_share():
    found = modes.measure(modes.read_modes(pd.Series(["Once upon a time.", ""])), WORLD)
    assert found["none"] == 1.0
    assert np.isnan(found["rare_plots"]) and np.isnan(found["plot_entropy"])


def test_what_is_read_from_a_corpus_is_what_was_written_into_it():
    corpus = write_corpus(WORLD)
    read = modes.read_modes(corpus["text"])
    assert read.astype({"plot": int}).equals(corpus[["plot", "voice", "flawed"]].astype(read.dtypes.to_dict()))


def test_a_large_corpus_comes_to_the_truth():
    world = World(prompts=400, held_out=0, responses=100)
    found, truth = modes.measure(write_corpus(world), world), modes.true_shares(world)
    for name in ("rare_plots", "rare_voices", "flawed"):
        spread = math.sqrt(truth[name] * (1 - truth[name]) / found["texts"])
        assert abs(found[name] - truth[name]) < 4 * spread
    assert found["plot_entropy"] == pytest.approx(truth["plot_entropy"], abs=0.02)


def test_uniform_modes_have_the_largest_entropy_and_one_mode_has_none():
    assert modes.entropy(np.full(8, 1 / 8)) == pytest.approx(3.0)
    assert modes.entropy(np.array([1.0, 0.0])) == 0.0
    assert modes.true_shares(World(zipf=0, voice_zipf=0))["plot_entropy"] == pytest.approx(math.log2(6))


def grid(**rows):
    """A table as `worlds.join` writes it: by row, the entropy over plots of its seeds; other measures are constant."""
    return pd.DataFrame(
        [
            {"row": row, "seed": seed, "world": "main", **dict.fromkeys(modes.MEASURES, 0.25), "plot_entropy": value}
            for row, values in rows.items()
            for seed, value in enumerate(values)
        ]
    )


RESAMPLING = {"draws": 2000, "confidence": 0.95, "seed": 0}


def test_rows_are_compared_by_seed():
    noise = np.random.default_rng(0).normal(size=10)
    table = grid(dpo=noise, ddpo=noise + 0.5 + 0.01 * np.arange(10))
    found = modes.summarise(table.sample(frac=1, random_state=1), baseline="dpo", **RESAMPLING)
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
    judged = modes.judge_claims(
        table, [*asked, claim("up", "unchanged", margin=0.1), claim("gone", "higher")], **RESAMPLING
    )
    verdicts = ["reproduced", "not reproduced", "not enough data", "reproduced", "not reproduced"]
    assert [c["verdict"] for c in judged] == verdicts


def test_p_is_corrected_over_the_claims_that_were_judged():
    rng = np.random.default_rng(1)
    table = grid(dpo=np.zeros(10), a=rng.normal(0.8, 1, 10), b=rng.normal(0.8, 1, 10))
    alone = modes.judge_claims(table, [claim("a", "higher")], **RESAMPLING)[0]["difference"]
    both = modes.judge_claims(table, [claim("a", "higher"), claim("b", "higher")], **RESAMPLING)
    assert alone["p_corrected"] == alone["p"]
    assert sorted(c["difference"]["p_corrected"] for c in both)[0] == pytest.approx(
        2 * min(c["difference"]["p"] for c in both)
    )


def test_the_fuller_of_two_grids_is_shown(tmp_path):
    few = modes.Grid(grid(dpo=[1.0, 2.0]), pd.DataFrame({"row": []}), {}, {})
    assert modes.fullest(few, tmp_path / "none") == (few, True)
    many = grid(dpo=[1.0, 2.0, 3.0])
    many.to_parquet(tmp_path / "modes.parquet")
    few.traces.to_parquet(tmp_path / "traces.parquet")
    for name in ("truth", "manifest"):
        (tmp_path / f"{name}.json").write_text('{"name": "worlds"}')
    shown, own = modes.fullest(few, tmp_path)
    assert not own and shown.table.equals(many) and shown.made == {"name": "worlds"}
