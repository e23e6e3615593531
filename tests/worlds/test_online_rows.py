"""Rows that learn online in a world of known modes, small: what a round sees, learns and leaves, and their tables."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from ddpo_lib.base.errors import InputError
from ddpo_lib.pairs.rounds import draw_prompts
from ddpo_lib.profiles.online_settings import OnlineRow
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.worlds import online_grid, online_rows
from ddpo_lib.worlds.grammar import Mode, wordings
from ddpo_lib.worlds.modeworld import BAD, GOOD, World, write_corpus

ARM = {"loss": "dpo", "start": "sft"}
ROWS = {
    "dpo": {"arm": ARM},
    "ddpo-both": {"arm": {**ARM, "weights": ["semantic", "style"]}},
    "ddpo-both-fixed": {"reference": "fixed", "arm": {**ARM, "weights": ["semantic", "style"]}},
    "dpo-offline": {"source": "corpus", "together": True, "arm": ARM},
}
SECTION = {"seeds": 1, "rounds": 2, "prompts": 4, "samples": 4, "noise": 1.0, "rows": ROWS}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A run of one seed with all rows made, and the profile that it is of."""
    folder = tmp_path_factory.mktemp("online")
    file = folder / "small.yaml"
    worlds = {"seeds": 1, "samples": 24, "rows": {"dpo": {"traced": False, "arm": ARM}}}
    worlds["preference"] = {"dpo": {"learning_rate": 1e-3, "warmup_steps": 0, "batch_size": 2}}  # a round must tell
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "small", "worlds": worlds, "online_world": SECTION}))
    run = open_run(str(file), folder=folder / "runs")
    run.path("world-online")
    return run, file


def test_a_story_scores_by_the_truth_and_noise_comes_on_top():
    corpus = write_corpus(World(prompts=16, held_out=0, responses=4))
    prompt = corpus["prompt"].iloc[0]
    other = corpus.loc[corpus["prompt"] != prompt, "prompt"].iloc[0]
    texts = [next(wordings(prompt, Mode(0, 0, flawed))) for flawed in (False, True)]
    texts += [next(wordings(other, Mode(0, 0, False))), "She sold."]
    pool = pd.DataFrame({"prompt": prompt, "text": texts})
    plain = online_rows.score(pool, 0.0, [0, 1])
    assert plain["score"].tolist() == [GOOD, BAD, BAD, BAD]
    assert plain["readable"].tolist() == [True, True, True, False]
    assert plain["good"].tolist() == [True, False, False, False]
    noisy = online_rows.score(pool, 2.0, [0, 1])["score"]
    assert noisy.equals(online_rows.score(pool, 2.0, [0, 1])["score"])
    assert (noisy != online_rows.score(pool, 2.0, [0, 2])["score"]).all()
    np.testing.assert_allclose(
        2 * (noisy - plain["score"]), online_rows.score(pool, 4.0, [0, 1])["score"] - plain["score"]
    )


def test_rounds_on_the_corpus_read_each_response_once(tmp_path):
    corpus = write_corpus(World(prompts=16, held_out=2, responses=6))
    corpus.to_parquet(tmp_path / "corpus.parquet")
    plan = SimpleNamespace(prompts=8, samples=3)
    profile = SimpleNamespace(online_world=plan)
    rounds = [online_rows.make_pool(profile, None, number, 7, tmp_path) for number in (1, 2, 3, 4)]
    for number, pool in enumerate(rounds, 1):
        assert set(pool["prompt_id"]) == set(draw_prompts(corpus, 8, number, 7)["prompt_id"])
        assert (pool.groupby("prompt_id").size() == 3).all()
    every = pd.concat(rounds)["response_id"]
    assert sorted(every) == sorted(corpus.loc[corpus["split"] == "train", "response_id"])
    with pytest.raises(InputError, match=r"round 5 .* finds 0 responses .* needs 24"):
        online_rows.make_pool(profile, None, 5, 7, tmp_path)


def test_what_a_round_learned_from_is_counted():
    pool = pd.DataFrame(
        {"prompt_id": ["a"] * 4, "response_id": list("wxyz"), "good": [True, False, False, True]}
    ).assign(readable=[True, True, False, True])
    learned = pool.iloc[:3].reset_index(drop=True)  # the last one was cut
    pairs = pd.DataFrame({"chosen_id": ["w", "x"], "weight": [3.0, 1.0]})
    vectors = {"semantic": np.eye(3), "style": np.ones((3, 2))}
    found = online_rows.describe_pool(pool, learned, pairs, vectors)
    assert (found["samples"], found["left_out"], found["pairs"]) == (4, 1, 2)
    assert (found["pool_readable"], found["pool_good"]) == (0.75, 0.5)
    assert found["pool_semantic"] == pytest.approx(1) and found["pool_style"] == pytest.approx(0, abs=1e-7)
    assert (found["pressure"], found["bad_winners"], found["zero_winners"]) == (2, 0.25, 0)
    assert found["winners_share"] == pytest.approx(4 / 3)
    unweighted = online_rows.describe_pool(pool, learned, pairs[["chosen_id"]], vectors)
    assert unweighted["pressure"] == 1 and unweighted["bad_winners"] == 0.5


def test_each_round_is_measured_and_the_model_is_not_kept(grid):
    run, _ = grid
    assert not [*run.folder.glob("online-world-*/round-*")]
    for row, rounds in (("dpo", [0, 1, 2]), ("ddpo-both", [0, 1, 2]), ("dpo-offline", [0, 2])):
        table = run.table(f"online-world-{row}-0", "rounds.parquet")
        assert table["round"].tolist() == rounds
        trained = table[table["round"] > 0]
        assert (2 * trained["pairs"] <= trained["samples"] - trained["left_out"]).all()
        assert trained["samples"].sum() == 2 * 4 * 4 and (trained["steps"] > 0).all()
        assert table["plot_entropy"].notna().all() and (table["semantic"] > 0).all()
    weighted = run.table("online-world-ddpo-both-0", "rounds.parquet")
    plain = run.table("online-world-dpo-0", "rounds.parquet")
    assert plain["pressure"].dropna().eq(1).all() and weighted["pressure"].dropna().ne(1).all()
    both = [table.loc[table["round"] <= 1, "pool_semantic"].iloc[-1] for table in (plain, weighted)]
    assert both[0] == both[1]  # the first round samples one model


def test_a_fixed_reference_changes_only_the_rounds_after_the_first(grid):
    run, _ = grid
    fresh, fixed = (run.table(f"online-world-ddpo-both{tail}-0", "rounds.parquet") for tail in ("", "-fixed"))
    measured = ["none", "flawed", "plot_entropy", "voice_entropy", "semantic", "style"]
    first = fresh["round"] <= 1
    pd.testing.assert_frame_equal(fresh.loc[first, measured], fixed.loc[first, measured])
    assert not fresh.loc[~first, measured].equals(fixed.loc[~first, measured])


def test_the_joined_tables_hold_last_rounds_costs_and_settings(grid):
    run, file = grid
    found = online_grid.read_grid(run.path("world-online"))
    profile = load_profile(file)
    assert found.settings == profile.online_world and found.world == online_grid.shared(profile)
    assert set(found.table["row"]) == {"sft", *ROWS}
    last = found.table.set_index("row")
    rounds = run.table("online-world-dpo-0", "rounds.parquet")
    assert last.loc["dpo", "plot_entropy"] == rounds["plot_entropy"].iloc[-1]
    assert last.loc["dpo", "samples"] == 32 and last.loc["dpo", "samples_per_pair"] == 32 / last.loc["dpo", "pairs"]
    entropy = rounds["plot_entropy"].tolist()
    assert last.loc["dpo", "late_gain"] == pytest.approx(entropy[2] - 2 * entropy[1] + entropy[0])
    assert np.isnan(last.loc["dpo-offline", "late_gain"])
    seconds = rounds[["sampling_seconds", "training_seconds"]].sum().sum()
    assert last.loc["dpo", "seconds_per_pair"] == pytest.approx(seconds / rounds["pairs"].sum())
    assert last.loc["sft", "round"] == 0
    shown, own = online_grid.fullest(found, profile, run.path("world-online"))
    assert own and shown is found  # the other one has no more seeds
    assert not online_grid.fullest(None, profile, run.path("world-online"))[1]
    assert online_grid.fullest(None, profile, file.parent / "none") == (None, True)


def test_a_grid_of_other_settings_is_not_shown_in_place_of_a_runs_own(grid):
    run, file = grid
    profile = load_profile(file)
    own = online_grid.read_grid(run.path("world-online"))
    few = own._replace(table=own.table.head(0))
    assert not online_grid.fullest(few, profile, run.path("world-online"))[1]
    noisy = profile.model_copy(update={"online_world": profile.online_world.model_copy(update={"noise": 9.0})})
    assert online_grid.fullest(few, noisy, run.path("world-online")) == (few, True)
    rows = {**own.settings.rows, "dpo": own.settings.rows["ddpo-both"]}
    other = few._replace(settings=own.settings.model_copy(update={"rows": rows}))
    assert online_grid.fullest(other, profile, run.path("world-online")) == (other, True)


def test_every_expectation_names_rows_of_the_full_grid_and_a_measure(grid):
    run, _ = grid
    rows = load_profile("full").online_world.rows
    measures = set(online_grid.read_grid(run.path("world-online")).table)
    for claim in online_grid.expectations():
        assert {claim["row"], claim["against"]} <= {*rows}
        assert claim["measure"] in measures and claim["why"]
        assert (claim["expect"] == "unchanged") == ("margin" in claim)


def test_the_small_grid_has_the_settings_of_the_full_one_so_that_the_stored_one_can_stand_in():
    small, full = (load_profile(name) for name in ("embedded", "full"))
    assert online_grid.shared(small) == online_grid.shared(full)
    assert small.online_world.rows.items() <= full.online_world.rows.items()
    plan, world = full.online_world, World(**full.worlds.kinds["main"])
    assert plan.rounds * plan.prompts * plan.samples <= world.prompts * world.responses  # what offline rows read


def test_a_profile_without_the_section_has_no_such_step():
    assert not [name for name in open_run("smoke").steps if name.startswith(("online-world", "world-online"))]
    steps = open_run("embedded").steps
    assert steps["online-world-dpo-1"].inputs == ("world-main-1",)
    assert "world-online" in steps["chapter-02e-online"].inputs
    assert "world-online" not in open_run("smoke").steps["chapter-02e-online"].inputs


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seeds": 9}, r"online_world.seeds: at most 2, as many as `worlds` has"),
        ({"rows": {"a/b": {"arm": ARM}}}, "'a/b' cannot name a folder"),
    ],
)
def test_sections_that_cannot_be_are_named(tmp_path, change, sentence):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "bad", "online_world": SECTION | change}))
    with pytest.raises(InputError, match=sentence):
        load_profile(file)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"arm": {**ARM, "weights": ["plot"]}}, "plot is no space of texts"),
        ({"arm": {**ARM, "start": "base"}}, "rows start from sft"),
        ({"arm": ARM, "together": True}, "the model changes from round to round"),
    ],
)
def test_rows_that_cannot_be_are_named(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        OnlineRow(**fields)
