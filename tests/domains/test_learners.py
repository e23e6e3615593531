"""Small models on arithmetic from end to end: what is trained, measured and joined, and what of it is made again."""

from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import yaml

from ddpo_lib.domains import learners, tables
from ddpo_lib.domains.arithmetic_corpus import write_corpus
from ddpo_lib.domains.steps import BASE, CHECKS, domain_steps
from ddpo_lib.evaluation.published import published
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import PROJECT, open_run
from ddpo_lib.worlds.grids import decide_rows, summarise_rows

EXPECTED = yaml.safe_load((PROJECT / "ddpo_lib" / "domains" / "expected.yaml").read_text())["expectations"]
ROWS = ("dpo", "ddpo-semantic", "ddpo-mode", "ddpo-semantic-noisy")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A run of one seed and few rows, joined."""
    folder = tmp_path_factory.mktemp("domains")
    profile = load_profile("smoke").model_dump()
    profile |= {
        "name": "few",
        "domains": profile["domains"] | {"rows": {r: profile["domains"]["rows"][r] for r in ROWS}},
    }
    file = folder / "few.yaml"
    file.write_text(yaml.safe_dump(profile, sort_keys=False))
    run = open_run(str(file), folder=folder / "runs")
    return run, tables.read_domains(run.path("domains"))


def test_each_row_and_seed_has_its_line(grid):
    _, found = grid
    assert found.table["row"].tolist() == ["sft", "corpus", *ROWS]
    assert found.table.loc[:, list(tables.MEASURES)].notna().drop(columns="differ").all(axis=None)
    assert found.settings.seeds == 1 and found.base["answers"] > 100
    assert len(found.programs) > 70 and len(found.poems) == 32


def test_measures_are_those_of_the_stored_samples(grid):
    run, found = grid
    samples = run.table("domain-arithmetic-0-dpo", "samples.parquet")
    line = found.table.set_index("row").loc["dpo"]
    assert line["right"] == pytest.approx(samples["right"].mean())
    assert line["unread"] == pytest.approx(samples["mode"].isna().mean())
    corpus = run.table("domain-arithmetic-0", "corpus.parquet")
    assert set(samples["prompt"]) == set(corpus.loc[corpus["split"] == "test", "prompt"])
    assert (samples["why"] == "").equals(samples["right"])


def test_with_exact_scores_no_wrong_answer_wins_and_with_noise_some_do(grid):
    lines = grid[1].table.set_index("row")
    assert (lines.loc[["dpo", "ddpo-semantic", "ddpo-mode"], "wrong_pairs"] == 0).all()
    assert lines.loc["ddpo-semantic-noisy", "wrong_pairs"] > 0
    assert lines.loc["dpo", "pressure"] == 1


def test_noise_lets_wrong_answers_win_as_often_as_two_normals_say():
    """A right and a wrong answer differ by 9 points and by noise of 5 on each side."""
    settings = load_profile("embedded").domains
    corpus = write_corpus(settings, 0)
    noisy = corpus["score"] + np.random.default_rng([0, 2]).normal(0, 5.0, len(corpus))
    right, wrong = (noisy[corpus["right"] == kind].to_numpy() for kind in (True, False))
    won = (wrong[:, None] > right[None, :300]).mean()
    assert won == pytest.approx(NormalDist(0, 5 * 2**0.5).cdf(-9), abs=0.03)


def test_the_space_of_modes_has_two_answers_together_or_at_right_angles():
    corpus = pd.DataFrame({"prompt_id": ["a", "a", "a", "b"], "mode": ["1 + 2", "1 + 2", "3", "3"], "text": [""] * 4})
    vectors = learners.answer_vectors(corpus, "mode")
    assert (vectors[:3] @ vectors[:3].T).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert learners.answer_vectors(corpus.assign(text="2 + 3"), "semantic").shape[0] == 4


def test_profiles_without_the_section_have_no_such_steps(tmp_path):
    assert domain_steps(None, 5) == []
    steps = open_run("embedded", folder=tmp_path).steps
    profile = load_profile("embedded").domains
    made = [name for name in steps if name.startswith("domain")]
    parts = min(4, profile.seeds)
    assert len(made) == 3 + parts + profile.seeds * (1 + len(profile.rows))
    assert steps["domain-arithmetic-1-dpo"].inputs == ("domain-arithmetic-1",)
    assert {BASE, CHECKS, "domain-arithmetic-0"} < set(steps["domains"].inputs)


def test_every_expectation_is_on_rows_of_the_embedded_grid_and_has_a_reason():
    rows = {"sft", *load_profile("embedded").domains.rows}
    for one in EXPECTED:
        assert {one["row"], one["against"]} <= rows and one["why"] and one["question"].endswith("?")
        assert ("margin" in one) == (one["expect"] == "unchanged")
    assert published()["worlds"]


def test_expectations_are_decided_seed_by_seed():
    seeds = range(10)
    noise = np.random.default_rng(0).normal(0, 0.01, (10, 3))
    lines = [
        {"row": row, "seed": seed, "distinct": value + noise[seed, place], "right": 0.5, "differ": 0.5}
        for seed in seeds
        for place, (row, value) in enumerate({"dpo": 2.0, "ddpo-semantic": 2.3}.items())
    ]
    table = pd.DataFrame(lines)
    (claim,) = decide_rows(table, [one for one in EXPECTED if one["measure"] == "distinct"], confidence=0.95)
    assert claim["verdict"] == "reproduced" and claim["difference"]["mean"] == pytest.approx(0.3, abs=0.02)
    found = summarise_rows(table, baseline="dpo", confidence=0.95, measures=("right", "distinct"))
    assert set(found["rows"]["dpo"]) == {"right", "distinct"}


def test_the_stored_grid_is_shown_if_it_has_more_seeds_and_is_otherwise_the_same(grid, tmp_path):
    run, found = grid
    assert tables.fullest(found, tmp_path / "none") == (found, True)
    assert tables.fullest(None, tmp_path / "none") == (None, True)
    for file in (run.folder / "domains").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert tables.fullest(found, tmp_path) == (found, True)  # as many seeds
    more = found.settings.model_copy(update={"seeds": 5})
    (tmp_path / "settings.json").write_text(more.model_dump_json())
    pd.concat([found.table.assign(seed=seed) for seed in range(5)]).to_parquet(tmp_path / "measured.parquet")
    shown, own = tables.fullest(found, tmp_path)
    assert not own and shown.settings == more
    assert tables.fullest(None, tmp_path)[1] is False
    other = found._replace(settings=found.settings.model_copy(update={"wrong": 0.5}))
    assert tables.fullest(other, tmp_path) == (other, True)


def test_a_row_that_changes_leaves_the_others_fresh(tmp_path):
    before = open_run("embedded", folder=tmp_path)
    profile = load_profile("embedded").model_dump()
    profile["domains"]["rows"]["dpo"]["noise"] = 1.0
    steps = {
        step.name: step for step in domain_steps(type(load_profile("embedded").domains)(**profile["domains"]), 5.0)
    }
    after = type(before)(tmp_path, before.steps | steps)
    changed = {name for name in steps if before.key(name) != after.key(name)}
    assert changed == {
        "domain-arithmetic-0-dpo",
        "domain-arithmetic-1-dpo",
        "domains-part0",
        "domains-part1",
        "domains",
    }
