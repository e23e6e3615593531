"""Small models that write programs, from end to end: corpora, tokens, what is trained, measured and joined."""

import numpy as np
import pandas as pd
import pytest
import yaml

from ddpo_lib.base.errors import InputError
from ddpo_lib.domains import program_learners as learners
from ddpo_lib.domains import tables
from ddpo_lib.domains.arithmetic_corpus import BAD, GOOD
from ddpo_lib.domains.checked import pass_at_k
from ddpo_lib.domains.program_learners import draw_program, tasks_of, tokenizer, weigh_pairs, write_corpus
from ddpo_lib.domains.programs import all_tasks, check_all, prompt_of, read_task, ways
from ddpo_lib.domains.steps import PROGRAM_BASE, PROGRAM_GRID, program_steps
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import PROJECT, open_run

SMALL = load_profile("smoke").programs
EXPECTED = yaml.safe_load((PROJECT / "ddpo_lib" / "domains" / "expected_programs.yaml").read_text())["expectations"]
ROWS = ("dpo", "ddpo-semantic", "ddpo-mode", "ddpo-semantic-noisy")


def with_(**fields):
    return SMALL.model_copy(update=fields)


# Corpora and tokens


def test_scores_are_what_a_run_of_each_program_says():
    corpus = write_corpus(SMALL, 0)
    checked = check_all([read_task(prompt) for prompt in corpus["prompt"]], corpus["text"].tolist())
    assert [(one.right, one.mode) for one in checked] == list(zip(corpus["right"], corpus["mode"], strict=True))
    assert set(corpus.loc[corpus["right"], "score"]) == {GOOD} and set(corpus.loc[~corpus["right"], "score"]) == {BAD}
    assert corpus.equals(write_corpus(SMALL, 0)) and not corpus.equals(write_corpus(SMALL, 1))
    assert corpus.groupby("split")["prompt_id"].nunique().to_dict() == {"train": 12, "test": 4}


def test_forms_are_as_common_and_answers_as_wrong_as_the_settings_say():
    corpus = write_corpus(with_(responses=400, tasks=6, held_out=1, wrong=0.3), 0)
    assert corpus["right"].mean() == pytest.approx(0.7, abs=0.03)
    rng = np.random.default_rng(0)
    task = next(task for task in all_tasks() if ways(task) == (7, 2))
    drawn = pd.Series([draw_program(task, 1.0, rng) for _ in range(4000)]).value_counts(normalize=True)
    form = 1 / sum(1 / rank for rank in range(1, 8))
    assert drawn.iloc[:2].tolist() == pytest.approx([form * 2 / 3, form / 2 * 2 / 3], abs=0.03)
    assert len(drawn) == 14


def test_the_common_start_reads_right_programs_for_tasks_that_no_seed_holds_out():
    settings = with_(seeds=3)
    language = learners.write_language(settings)
    held_out = {prompt_of(task) for seed in range(3) for task in tasks_of(settings, seed)[1]}
    assert len(held_out) > 4 and not held_out & set(language["prompt"])
    assert language["prompt"].nunique() + len(held_out) == len(all_tasks())
    some = language.iloc[::20]
    assert all(one.right for one in check_all([read_task(p) for p in some["prompt"]], some["text"].tolist()))
    train, test = tasks_of(settings, 0)
    assert not set(train) & set(test)


def test_too_many_tasks_are_refused_with_what_to_lower():
    with pytest.raises(InputError, match=r"programs.tasks: 10004 tasks .* there are 616; lower tasks"):
        tasks_of(with_(tasks=10_000), 0)
    with pytest.raises(InputError, match="hold out all tasks"):
        learners.write_language(with_(tasks=1, held_out=615, seeds=30))


def test_tokens_restore_each_text_and_none_is_unknown_or_too_long():
    words = tokenizer()
    corpus = write_corpus(SMALL, 0)
    for text in {*corpus["text"], *corpus["prompt"]}:
        tokens = words(text)["input_ids"]
        assert words.unk_token_id not in tokens and words.decode(tokens) == text
    answers = corpus["text"].map(lambda text: len(words(text)["input_ids"]) + 1)
    prompts = corpus["prompt"].map(lambda text: len(words(text)["input_ids"]) + 1)
    assert answers.max() <= learners.NEW_TOKENS and (answers + prompts).max() <= learners.LONGEST


def test_pairs_are_weighed_as_worked_by_hand():
    train = pd.DataFrame({"response_id": ["a", "b"], "right": [True, False]})
    pairs = pd.DataFrame({"chosen_id": ["a", "b", "a", "a"], "weight": [1.0, 3.0, 0.0, 2.0]})
    expected = {"pairs": 4, "pressure": 1.5, "zero_winners": 0.25, "wrong_pairs": 0.25, "wrong_winners": 0.5}
    assert weigh_pairs(pairs, train) == expected
    unweighted = weigh_pairs(pairs[["chosen_id"]], train)
    assert (unweighted["pressure"], unweighted["wrong_winners"]) == (1.0, 0.25)


# From end to end


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A run of one seed and few rows, joined."""
    folder = tmp_path_factory.mktemp("programs")
    profile = load_profile("smoke").model_dump()
    rows = {row: profile["programs"]["rows"][row] for row in ROWS}
    profile |= {"name": "few", "programs": profile["programs"] | {"rows": rows}}
    file = folder / "few.yaml"
    file.write_text(yaml.safe_dump(profile, sort_keys=False))
    run = open_run(str(file), folder=folder / "runs")
    return run, tables.read_programs(run.path(PROGRAM_GRID))


def test_each_row_and_seed_has_its_line(grid):
    _, found = grid
    assert found.table["row"].tolist() == ["sft", "corpus", *ROWS]
    assert found.table.loc[:, list(tables.MEASURES)].notna().drop(columns="differ").all(axis=None)
    assert found.settings.seeds == 1 and found.base["answers"] > 100
    assert set(found.shown["prompt"]) == {found.shown["prompt"].iloc[0]} and len(found.shown) == 8


def test_measures_are_those_of_the_stored_samples(grid):
    run, found = grid
    samples = run.table("program-0-dpo", "samples.parquet")
    line = found.table.set_index("row").loc["dpo"]
    assert line["right"] == pytest.approx(samples["right"].mean())
    assert line["unread"] == pytest.approx(samples["mode"].isna().mean())
    by_task = samples.groupby("prompt_id")["right"].agg(["size", "sum"])
    assert line["pass_k"] == pytest.approx(np.mean([pass_at_k(n, c, 8) for n, c in by_task.itertuples(index=False)]))
    again = check_all([read_task(prompt) for prompt in samples["prompt"]], samples["text"].tolist())
    assert [one.right for one in again] == samples["right"].tolist()
    corpus = run.table("program-0", "corpus.parquet")
    assert set(samples["prompt"]) == set(corpus.loc[corpus["split"] == "test", "prompt"])


def test_with_exact_scores_no_wrong_program_wins_and_with_noise_some_do(grid):
    lines = grid[1].table.set_index("row")
    assert (lines.loc[["dpo", "ddpo-semantic", "ddpo-mode"], "wrong_pairs"] == 0).all()
    assert lines.loc["ddpo-semantic-noisy", "wrong_pairs"] > 0
    assert lines.loc["dpo", "pressure"] == 1


def test_the_steps_are_those_of_the_section(tmp_path):
    assert program_steps(None, 5) == []
    steps = open_run("embedded", folder=tmp_path).steps
    settings = load_profile("embedded").programs
    made = [name for name in steps if name.startswith("program")]
    assert len(made) == 2 + min(4, settings.seeds) + settings.seeds * (1 + len(settings.rows))
    assert steps["program-0-dpo"].inputs == ("program-0",)
    assert steps[PROGRAM_GRID].inputs == ("programs-part0", PROGRAM_BASE, "program-0")


def test_every_expectation_is_on_rows_of_the_full_grid_and_has_a_reason():
    rows = {"sft", *load_profile("full").programs.rows}
    for one in EXPECTED:
        assert {one["row"], one["against"]} <= rows and one["why"] and one["question"].endswith("?")
        assert ("margin" in one) == (one["expect"] == "unchanged")


def test_the_stored_grid_is_shown_if_it_has_more_seeds_and_is_otherwise_the_same(grid, tmp_path):
    run, found = grid
    for file in (run.folder / PROGRAM_GRID).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert tables.fullest(found, tmp_path, "programs") == (found, True)  # as many seeds
    more = found.settings.model_copy(update={"seeds": 5})
    (tmp_path / "settings.json").write_text(more.model_dump_json())
    pd.concat([found.table.assign(seed=seed) for seed in range(5)]).to_parquet(tmp_path / "measured.parquet")
    kept, own = tables.fullest(found, tmp_path, "programs")
    assert not own and kept.settings == more
    assert tables.fullest(None, tmp_path, "programs")[1] is False
    other = found._replace(settings=found.settings.model_copy(update={"wrong": 0.5}))
    assert tables.fullest(other, tmp_path, "programs") == (other, True)
