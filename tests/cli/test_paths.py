"""Paths of a user, relative and with anything in them, from the command line to every process of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli import workflow
from ddpo_lib.cli.main import app
from ddpo_lib.data.corpus import PACKAGE_CORPUS
from ddpo_lib.runs.pipeline import PROJECT, open_run

FOLDER = 'it\'s #1: "$(touch ran)" {x} [y]'  # what YAML, a shell, Python's format and a glob would read


def write_stories(file: Path, lines: int = 24) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines()[:lines]), encoding="utf-8")
    return file


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder of a user, who works in it."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_relative_paths_with_blanks_and_quotes_reach_every_job_and_chapter(place):
    """The corpus, the profile, the runs: a chapter of a run that Snakemake starts, with papermill."""
    write_stories(place / "my 'data" / "my stories.jsonl")
    write_stories(place / "my 'data" / "my prompts.jsonl", 2)
    profile = "my 'data/my profile.yaml"
    Path(profile).write_text("extends: base one.yaml\nname: my own\n")
    (place / "my 'data" / "base one.yaml").write_text("extends: smoke\ndata: {prompts: my prompts.jsonl}\n")
    corpus, chapter = "my 'data/my stories.jsonl", "chapter-00c-method"
    run = open_run(profile, corpus, "my runs")
    workflow.snakemake(run.folder, profile, corpus, chapter, 1)
    assert run.folder.parent == place / "my runs"
    assert all(map(run.is_fresh, ("corpus", "pairs", "vectors", chapter)))
    assert sorted(path.name for path in place.iterdir()) == ["my 'data", "my runs"]
    assert [path.name for path in (place / "my runs").iterdir()] == [run.folder.name]


def settings_of(monkeypatch, *given, **more) -> dict:
    """What the workflow is told by the file that its command names."""
    told = {}

    def start(command, **_):
        told.update(json.loads(Path(command[command.index("--configfile") + 1]).read_text()))
        assert "--config" not in command
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(workflow.subprocess, "run", start)
    workflow.snakemake(*given, **more)
    return told


def test_the_workflow_is_told_absolute_paths_and_texts_that_yaml_does_not_read(place, monkeypatch):
    write_stories(place / "x.jsonl", 1)
    told = settings_of(monkeypatch, place / "set #2" / "smoke", "my.yaml", "x.jsonl", "book", 2, ["0", "1"])
    paths = {"profile": str(place / "my.yaml"), "corpus": str(place / "x.jsonl"), "runs": str(place / "set #2")}
    assert told == {**paths, "goal": "book", "gpus": "0,1"}
    told = settings_of(monkeypatch, place / "r" / "smoke", "smoke", "owner/name", "book", 2, where=["--executor", "x"])
    assert (told["profile"], told["corpus"], told["apart"]) == ("smoke", "owner/name", True)


def make_book(place: Path, *words: str) -> list[str] | None:
    """The words that `make book` gives `ddpo`; None if it fails."""
    programs = place / "programs"
    programs.mkdir(exist_ok=True)
    told = "import json, sys\njson.dump(sys.argv[1:], open('told', 'w'))\n"
    (programs / "ddpo").write_text(f"#!{sys.executable}\n{told}")
    (programs / "ddpo").chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["make", "-f", str(PROJECT / "Makefile"), "-o", "setup", "book", "ENV=active", *words]
    done = subprocess.run(
        command, cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    return json.loads((place / "told").read_text()) if done.returncode == 0 else None


@pytest.mark.parametrize("name", ["my x.yaml", 'it\'s "mine".yaml', "$HOME $$ $(shell touch ran) `touch ran`; ran #"])
def test_make_hands_on_what_it_is_given(tmp_path, name):
    told = make_book(tmp_path, f"PROFILE={name}", f"CORPUS={name}", "CORES=3")
    assert told == ["run", "--profile", name, "--cores", "3", "--corpus", name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["programs", "told"]


def test_make_book_gives_no_option_that_nobody_set(tmp_path):
    told = make_book(tmp_path, "CORES=2", "GPUS=0,1", "JOBS=3")
    assert told == ["run", "--profile", "embedded", "--cores", "2", "--gpus", "0,1"]
    assert make_book(tmp_path, "CORES=2", "EXECUTOR=slurm")[-4:] == ["--executor", "slurm", "--jobs", "16"]
    assert int(make_book(tmp_path)[-1]) >= 1


def test_two_corpora_with_one_file_name_have_two_runs(place):
    write_stories(place / "a" / "train.jsonl", 12)
    write_stories(place / "b" / "train.jsonl", 14)
    for folder in ("a", "b"):
        words = ["make", "corpus", "--profile", "smoke", "--corpus", f"{folder}/train.jsonl", "--runs", "runs"]
        assert CliRunner().invoke(app, words).exit_code == 0
    first, second = (open_run("smoke", f"{folder}/train.jsonl") for folder in ("a", "b"))
    assert first.folder != second.folder
    assert first.is_fresh("corpus") and second.is_fresh("corpus")


@pytest.mark.parametrize("executor", ["../slurm", "a.b", "x; touch ran"])
def test_what_cannot_be_an_executor_is_named(executor):
    with pytest.raises(InputError, match="--executor"):
        workflow.cluster_options(executor, 4)
