"""A world of known modes from end to end, small: its model, an arm, their modes; and what of a grid is made again."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import yaml

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import PROJECT, open_run
from ddpo_lib.statistics.intervals import holm
from ddpo_lib.worlds import collect, grids, modes, modeworld, small_models
from ddpo_lib.worlds.grammar import Mode, cast, read_mode, wordings
from ddpo_lib.worlds.modes import read_modes
from ddpo_lib.worlds.modeworld import held_out, write_corpus

KEPT = PROJECT / "results" / "worlds"  # the full grid
ROWS = {"dpo": {"traced": True, "arm": {"loss": "dpo", "start": "sft"}}}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A run of one seed, its row `dpo` made, and the profile that it is of."""
    folder = tmp_path_factory.mktemp("grid")
    file = folder / "small.yaml"
    grid = {"seeds": 1, "trace": 2, "samples": 96, "rows": ROWS}
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "small", "worlds": grid}))
    run = open_run(str(file), folder=folder / "runs")
    run.path("row-dpo-0")
    return run, file, folder / "runs"


def test_the_model_before_any_arm_writes_stories_that_can_be_read(grid):
    run, file, _ = grid
    sft = run.json("world-main-0", "modes.json")["sft"]
    settings = load_profile(file).worlds
    texts = run.table("world-main-0", "samples.parquet")
    assert sft["texts"] == len(texts) == settings.samples * settings.kinds["main"]["held_out"]
    assert sft["none"] == pytest.approx(sum(read_mode(text) is None for text in texts["text"]) / len(texts))
    assert sft["none"] < 0.5
    assert sum(sft["plots"]) == pytest.approx(1)


def test_every_world_starts_from_one_model_that_knows_the_language_and_learns_there_what_is_common(grid):
    run, file, _ = grid
    settings = load_profile(file).worlds
    assert small_models.BASE in run.manifest("world-main-0")["inputs"]
    base, sft = run.json(small_models.BASE, "modes.json"), run.json("world-main-0", "modes.json")["sft"]
    truth = modes.true_shares(small_models.world_of(settings, "main", 0))
    assert base["none"] < 0.5
    for kind, number in (("plots", 3), ("voices", 2)):
        assert base[kind] == pytest.approx([1 / number] * number, abs=0.08)
    assert abs(sft["plots"][0] - truth["plots"][0]) < abs(base["plots"][0] - truth["plots"][0])


def test_what_is_held_out_of_any_world_was_not_read_before_it_either(monkeypatch, tmp_path):
    settings = load_profile("full")
    small = settings.worlds.model_copy(
        update={"pretraining": settings.worlds.pretraining.model_copy(update={"responses": 1})}
    )
    read = []
    monkeypatch.setattr(
        "ddpo_lib.training.train.train_sft", lambda stories, *rest: read.extend(stories["prompt"]) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        small_models.make_base(settings.model_copy(update={"worlds": small}), "object", tmp_path, None)
    casts = {cast(prompt) for prompt in read}
    unread = {cast(p) for seed in range(10) for p in held_out(small_models.world_of(small, "main", seed))}
    assert len(unread) > 70 and len(casts) == 16**3 - len(unread)
    assert not casts & unread
    texts = write_corpus(small_models.world_of(small, "main", 3))
    assert texts.loc[texts["split"] == "test", "prompt"].unique().tolist() == held_out(
        small_models.world_of(small, "main", 3)
    )


def test_worlds_of_another_flaw_start_from_a_model_that_has_read_it(tmp_path):
    settings = load_profile("full").worlds
    assert small_models.flaws(load_profile("embedded").worlds) == ["object"] and small_models.flaws(settings) == [
        "object",
        "order",
    ]
    first, second = (small_models.language(settings, flaw) for flaw in small_models.flaws(settings))
    assert replace(second, flaw="object") == first
    steps = open_run("full", folder=tmp_path).steps
    for kind, fields in settings.kinds.items():
        assert steps[f"world-{kind}-0"].inputs == (small_models.base_of(fields.get("flaw", "object")),)
    assert small_models.base_of("object") == small_models.BASE != small_models.base_of("order")
    assert all(steps[small_models.base_of(flaw)].params["flaw"] == flaw for flaw in small_models.flaws(settings))


def test_what_is_sampled_are_held_out_prompts(grid):
    run, _, _ = grid
    corpus = run.table("world-main-0", "corpus.parquet")
    asked = set(run.table("row-dpo-0", "samples.parquet")["prompt"])
    assert asked == set(corpus.loc[corpus["split"] == "test", "prompt"])
    assert asked.isdisjoint(corpus.loc[corpus["split"] == "train", "prompt"])


def test_an_arm_is_measured_through_training_from_the_model_it_starts_from(grid):
    run, file, _ = grid
    found = run.json("row-dpo-0", "modes.json")
    shares = [point["share"] for point in found["trace"]]
    assert shares == sorted(set(shares)) and len(shares) == load_profile(file).worlds.trace + 1
    assert shares[0] == 0 and shares[-1] == 1
    assert found["pressure"] == 1.0 and found["zero_winners"] == 0.0
    sft = run.json("world-main-0", "modes.json")["sft"]
    assert found["trace"][0]["plots"] == sft["plots"] and found["trace"][-1]["plots"] == found["row"]["plots"]
    assert found["row"]["flawed"] < sft["flawed"]  # what every pair teaches


def test_the_trained_arm_is_not_kept_and_the_model_it_starts_from_is(grid):
    run, _, _ = grid
    assert not (run.folder / "row-dpo-0" / "trained").exists()
    assert (run.folder / "world-main-0" / "trained" / "model.safetensors").stat().st_size > 100_000


def test_a_row_that_is_lost_is_made_again_the_same_and_nothing_else_is(grid):
    run, file, folder = grid
    before = run.json("row-dpo-0", "modes.json")
    made = run.manifest("world-main-0")
    shutil.rmtree(run.folder / "row-dpo-0")
    again = open_run(str(file), folder=folder)
    assert again.json("row-dpo-0", "modes.json") == before
    assert again.manifest("world-main-0") == made


def test_a_grid_whose_first_training_is_killed_comes_out_the_same(grid, tmp_path):
    run, file, _ = grid
    words = ["make", small_models.BASE, "--profile", str(file), "--runs", str(tmp_path)]
    command = [sys.executable, "-m", "ddpo_lib.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = open_run(str(file), folder=tmp_path).folder
    partial = folder / ".partial"
    while not list(partial.glob(f"{small_models.BASE}-*/random/model.safetensors")):
        assert process.poll() is None, "it ended before its training began"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (folder / small_models.BASE).exists()
    again = open_run(str(file), folder=tmp_path)
    assert again.json("world-main-0", "modes.json") == run.json("world-main-0", "modes.json")


def test_noise_in_the_scores_lets_flawed_stories_win(grid):
    run, file, _ = grid
    settings = load_profile(file)
    row = settings.worlds.rows["dpo"].model_copy(update={"noise": 9.0, "traced": False})
    place = run.folder.parent / "noisy"
    place.mkdir()
    small_models.make_row(settings, row, 0, "world-main-0", place, run)
    noisy = json.loads((place / "modes.json").read_text())
    plain = run.json("row-dpo-0", "modes.json")
    assert plain["flawed_winners"] == 0 < noisy["flawed_winners"] < 0.5
    assert noisy["pairs"] > plain["pairs"]  # no two scores are equal, so responses of one kind make pairs too


def test_the_grid_is_one_table_with_the_truth_beside_it(grid):
    run, _, _ = grid
    found = grids.read_grid(run.path("worlds"))
    assert sorted(set(found.table["row"])) == sorted(
        [small_models.CORPUS + "main", small_models.SFT + "main", *(n for n in load_profile("smoke").worlds.rows)]
    )
    assert found.table["seed"].tolist() == [0] * len(found.table)
    assert set(found.traces["row"]) == {"dpo"}
    corpus = found.table.set_index("row").loc[small_models.CORPUS + "main"]
    assert corpus["none"] == 0
    assert corpus["plots"][0] == pytest.approx(found.truth["main"]["plots"][0], abs=0.1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kinds": {"main": {"plots": 99}}}, "kinds.main`: plots"),
        ({"kinds": {"main": {"colour": 1}}}, "kinds.main`.*colour"),
        ({"kinds": {"main": {"flaw": "rhyme"}}}, "kinds.main`: flaw: expected one of object, order"),
        ({"kinds": {"main": {"seed": 1}}}, "kinds.main`: a kind has no seed of its own"),
        ({"kinds": {"main": {"held_out": 0}}}, "kinds.main`: expected a held-out prompt"),
        ({"pretraining": {"prompts": 15}}, "pretraining.prompts"),
        ({"rows": {"dpo": {"world": "gone"}}}, "gone is no world; there are main"),
        ({"rows": {"odd": {"arm": {"loss": "dpo", "start": "sft", "weights": ["taste"]}}}}, "taste is no space"),
        ({"rows": {"odd": {"arm": {"loss": "orpo", "start": "base"}}}}, "start from sft"),
    ],
)
def test_a_grid_that_cannot_be_is_named(tmp_path, change, named):
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "odd", "worlds": change}))
    with pytest.raises(InputError, match=named):
        open_run(str(file), folder=tmp_path)


def test_a_model_that_learned_nothing_is_an_error_that_says_what_to_raise(tmp_path):
    file = tmp_path / "short.yaml"
    little = {"prompts": 16, "responses": 1, "optimiser": {"epochs": 0.1, "warmup_steps": 0}}
    worlds_section = {"pretraining": little, "kinds": {"main": {"responses": 2}}}
    file.write_text(yaml.safe_dump({"extends": "smoke", "name": "short", "worlds": worlds_section}))
    with pytest.raises(
        InputError, match=r"the model that worlds start from can be read; in the profile, raise .* worlds\.pretraining"
    ):
        open_run(str(file), folder=tmp_path / "runs").path("world-main-0")


def test_labels_are_spaces_in_which_one_mode_is_as_far_from_any_other():
    table = pd.DataFrame({"plot": [0, 2, 0, 1]})
    vectors = small_models.world_vectors(table, "plot")
    assert (vectors @ vectors.T).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_where_nothing_is_rare_the_kept_grid_shows_no_more_variety():
    table = grids.read_grid(KEPT).table
    arms, measures = ("null-ddpo-semantic", "null-ddpo-style"), ("plot_entropy", "voice_entropy", "rare_good")
    # one family: without a correction, one of the four intervals of entropies would miss zero in 19% of such grids
    settings = {"confidence": 1 - 0.05 / 4}
    found = [grids.paired(table, arm, "null-dpo", measure, **settings) for arm in arms for measure in measures]
    assert all(change["prompts"] >= 10 for change in found)
    assert holm(np.array([change["p"] for change in found])).min() > 0.05
    for change in found[:2] + found[3:5]:  # the entropies, which no claim's direction picked
        assert change["low"] <= 0 <= change["high"]


@pytest.mark.parametrize("space", ["semantic", "style"])
def test_where_nothing_is_rare_a_voice_gains_or_loses_by_how_far_it_stands_from_the_others(space):
    """Deviation is not rarity: of voices that are as common as each other, one can stand apart."""
    corpus = modeworld.write_corpus(small_models.world_of(load_profile("full").worlds, "null", 0))
    groups = corpus["prompt_id"].astype("category").cat.codes.to_numpy()
    weight = weights([mean_distance(small_models.world_vectors(corpus, space), groups)], groups)
    voices = corpus["voice"].to_numpy()
    last = voices == voices.max()
    expected = np.sign(weight[last].mean() - 1)
    assert abs(weight[last].mean() - 1) > 0.05
    change = grids.paired(grids.read_grid(KEPT).table, f"null-ddpo-{space}", "null-dpo", "rare_voices", confidence=0.95)
    assert np.sign(change["mean"]) == expected
    assert change["p"] / 2 < 0.05  # one-sided: the weights say the direction before any model is trained


def test_the_kept_grid_is_whole():
    rows = load_profile("full").worlds.rows
    assert grids.read_grid(KEPT).settings == load_profile("full").worlds
    table = grids.read_grid(KEPT).table
    assert (table.groupby("row")["seed"].nunique() == load_profile("full").worlds.seeds).all()
    assert set(rows) <= set(table["row"])
    pairs = table.pivot(index="seed", columns="row", values="pairs")
    assert (pairs["divpo"] == pairs["dpo-divpo-pairs"]).all() and (
        pairs["divpo"] == pairs["ddpo-both-divpo-pairs"]
    ).all()
    assert json.loads((KEPT / "manifest.json").read_text())["name"] == "worlds"


def test_scoring_every_text_agrees_with_sampling(grid):
    run, file, _ = grid
    settings = load_profile(file).worlds
    place, world = run.path("world-main-0"), small_models.world_of(settings, "main", 0)
    corpus = run.table("world-main-0", "corpus.parquet")
    many = settings.model_copy(update={"samples": 400})
    prompt = corpus.loc[corpus["split"] == "test", "prompt"].iloc[0]
    texts = small_models.sample(place / "trained", corpus[corpus["prompt"] == prompt], many, 1)
    scored = collect.score_modes(place / "trained", prompt, world)
    assert len(scored) == world.plots * world.voices * 2
    assert 0 < scored["probability"].sum() < 1
    every = product(range(world.plots), range(world.voices), (False, True))
    mode_of = {text: mode for mode in (Mode(*m) for m in every) for text in wordings(prompt, mode)}
    told = [mode_of[text] for text in texts["text"] if text in mode_of]  # a mode of another prompt is not scored
    assert len(told) == read_modes(texts)["faithful"].sum()
    for plot, part in scored.groupby("plot"):
        share = sum(m.plot == plot for m in told) / len(texts)
        spread = (max(share, 0.01) * (1 - share) / len(texts)) ** 0.5
        assert abs(share - part["probability"].sum()) < 4.5 * spread
