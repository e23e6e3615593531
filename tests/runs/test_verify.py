"""`ddpo verify`: what counts as equal, which artifacts are made again, and what a difference is called."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.runs.verify import ABSOLUTE, RELATIVE, Difference, compare, differences, verify


@pytest.mark.parametrize(
    ("kept", "made"),
    [
        (0.5, 0.5 * (1 + RELATIVE / 2)),
        (1e-9, 0.0),
        (float("nan"), float("nan")),
        (3, 3.0),
        ({"a": [1, None, "x"]}, {"a": [1, None, "x"]}),
        (np.float32([1, np.nan]), np.float32([1 + 1e-6, np.nan])),
        ("quality 0.123456789 of dpo", "quality 0.123456788 of dpo"),
    ],
)
def test_values_within_rounding_are_equal(kept, made):
    assert list(compare(kept, made)) == []


@pytest.mark.parametrize(
    ("kept", "made", "found"),
    [
        (0.5, 0.5 * (1 + 3 * RELATIVE), ("", "0.5", "0.500015")),
        (0.0, 2 * ABSOLUTE, ("", "0.0", "2e-06")),
        (1, True, ("", "1", "True")),
        (0.5, None, ("", "0.5", "None")),
        ({"arms": {"dpo": [1, 2]}}, {"arms": {"dpo": [1, 3]}}, ("arms.dpo[1]", "2", "3")),
        ({"a": 1}, {"b": 2}, ("a", "1", "nothing")),
        ({"a": [1]}, {"a": [1, 2]}, ("a, the length", "1", "2")),
        ({"x": np.zeros((2, 3))}, {"x": np.eye(2, 3)}, ("x[0, 0]", "0.0", "1.0")),
        ({"x": np.zeros(2)}, {"x": np.zeros(3)}, ("x, the shape", "(2,)", "(3,)")),
        (np.array(["a", "b"]), np.array(["a", "c"]), ("[1]", "'b'", "'c'")),
        ({"page": "quality 0.31 of dpo"}, {"page": "quality 0.32 of dpo"}, ("page", "0.31", "0.32")),
        ({"page": "5 stories"}, {"page": "6 stories"}, ("page", "'5 stories'", "'6 stories'")),
    ],
)
def test_the_first_difference_is_named_with_both_values(kept, made, found):
    assert next(compare(kept, made)) == found


def table(folder: Path, run: Run) -> None:
    pd.DataFrame({"text": ["Blue.", "Deep."], "score": [1.0, 2.0]}).to_parquet(folder / "corpus.parquet")


def results(folder: Path, run: Run) -> None:
    mean = run.table("corpus", "corpus.parquet")["score"].mean()
    (folder / "results.json").write_text(json.dumps({"arms": {"dpo": {"mean": mean}}}))
    np.save(folder / "vectors.npy", np.eye(2, dtype=np.float32))


def sample(folder: Path, run: Run) -> None:
    (folder / "samples.txt").write_text("Blue.")


@pytest.fixture
def run(tmp_path) -> Run:
    steps = (
        Step("corpus", table),
        Step("samples-dpo", sample, ("corpus",)),
        Step("evaluation", results, ("corpus", "samples-dpo")),
    )
    run = Run(tmp_path / "runs" / "one", {step.name: step for step in steps})
    run.path("evaluation")
    return run


def said(run: Run, **options) -> dict[str, tuple]:
    return {found.name: (found.passed, found.said) for found in verify(run, **options)}


def test_what_neither_trains_nor_samples_is_made_again_and_nothing_is_changed(run):
    before = {file: file.stat().st_mtime_ns for file in run.folder.rglob("*")}
    assert said(run) == {"corpus": (True, "equal"), "evaluation": (True, "equal")}
    assert {file: file.stat().st_mtime_ns for file in run.folder.rglob("*")} == before


def test_another_number_is_named_with_its_file_and_field(run):
    file = run.folder / "evaluation" / "results.json"
    file.write_text(file.read_text().replace("1.5", "1.6"))
    np.save(run.folder / "evaluation" / "vectors.npy", np.zeros((2, 2), np.float32))
    assert said(run)["evaluation"] == (
        False,
        "differs in results.json, arms.dpo.mean: 1.6 is kept, 1.5 is made again; 1 more file differs",
    )
    (found,) = (found for found in verify(run) if not found.passed)
    assert found.differences == (
        Difference("results.json", "arms.dpo.mean", "1.6", "1.5"),
        Difference("vectors.npy", "[0, 0]", "0.0", "1.0"),
    )


def test_an_edited_input_shows_in_itself_and_in_what_is_made_of_it(run):
    file = run.folder / "corpus" / "corpus.parquet"
    pd.read_parquet(file).assign(score=[1.0, 5.0]).to_parquet(file)
    assert said(run) == {
        "corpus": (False, "differs in corpus.parquet, score[1]: 5.0 is kept, 2.0 is made again"),
        "evaluation": (False, "differs in results.json, arms.dpo.mean: 1.5 is kept, 3.0 is made again"),
    }


def test_a_missing_and_an_added_file_differ(run):
    place = run.folder / "evaluation"
    (place / "vectors.npy").rename(place / "other.npy")
    assert [found.differences for found in verify(run)][1] == (
        Difference("other.npy", "the file", "a file", "nothing"),
        Difference("vectors.npy", "the file", "nothing", "a file"),
    )


def test_prompts_that_weights_alone_would_tell_are_not_compared(run):
    file = run.folder / "evaluation" / "results.json"
    noted = json.loads(file.read_text())
    file.write_text(json.dumps(noted | {"seen": {"dpo": 0}}))
    assert said(run)["evaluation"] == (True, "equal")
    (run.folder / "sft" / "trained").mkdir(parents=True)
    assert said(run)["evaluation"][1] == "differs in results.json, seen: {'dpo': 0} is kept, nothing is made again"


def test_a_damaged_file_differs_and_what_reads_it_cannot_be_made(run):
    os.truncate(run.folder / "corpus" / "corpus.parquet", 40)
    assert said(run)["corpus"][0] is False
    assert 'differs in corpus.parquet, the whole: "corpus.parquet cannot be read: ' in said(run)["corpus"][1]
    assert said(run)["evaluation"][0] is False
    assert said(run)["evaluation"][1].startswith("cannot be made again: Could not open Parquet input source")


def test_what_is_dear_out_of_date_or_of_missing_inputs_is_not_made_again(run):
    manifest = run.folder / "evaluation" / "manifest.json"
    noted = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(noted | {"seconds": 31.0}))
    assert said(run)["evaluation"] == (None, "not made again: it took 31 s")
    assert said(run, limit=60)["evaluation"][0] is True
    manifest.write_text(json.dumps(noted | {"key": "another"}))
    assert said(run)["evaluation"] == (
        False,
        "out of date: other code, settings or data made it; `ddpo doctor` says which",
    )
    manifest.write_text(json.dumps(noted))
    (run.folder / "samples-dpo" / "manifest.json").unlink()
    assert said(run)["evaluation"] == (None, "not made again: it reads samples-dpo, which is missing or out of date")


def test_a_chapter_is_compared_by_what_its_cells_show(tmp_path):
    def write(name: str, text: str, count: int) -> Path:
        output = {"output_type": "display_data", "data": {"text/html": ["<p>", text]}, "metadata": {}}
        cell = {"cell_type": "code", "source": "say()", "execution_count": count, "outputs": [output]}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "01.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {"papermill": {"duration": count}}}))
        return folder

    kept = write("kept", "0.25", 1)
    assert list(differences(kept, write("same", "0.25", 2))) == []
    assert list(differences(kept, write("other", "0.75", 1))) == [
        Difference("01.ipynb", "cell 0, output 0, text/html", "0.25", "0.75")
    ]
