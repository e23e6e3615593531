"""The name of a run, its steps' names, and the paths that a chapter is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.runs.pipeline import PROJECT, chapter_paths, open_run


def write(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def name_of(profile: str, corpus: str | None = None, runs: str = "runs") -> str:
    return open_run(profile, corpus, runs).folder.name


def test_no_two_profiles_and_corpora_share_a_run(place):
    for folder in ("a", "b"):
        write(place / folder / "train.jsonl")
        write(place / folder / "my.yaml", "extends: smoke\n")  # and with its name
    write(place / "a" / "故事.jsonl")
    write(place / "a" / "рассказы.jsonl")
    write(place / "a" / "train.json")
    write(place / "a" / ("x" * 240 + ".jsonl"))
    corpora = [None, "a/train.jsonl", "b/train.jsonl", "a/train.json", "a/故事.jsonl", "a/рассказы.jsonl"]
    corpora += [f"a/{'x' * 240}.jsonl", "owner/train", "other/train"]
    names = [name_of(p, c) for p in ("smoke", "deviation", "a/my.yaml", "b/my.yaml") for c in corpora]
    assert len(set(names)) == len(names)
    assert max(len(name.encode()) for name in names) < 150
    assert name_of("smoke") == "smoke"
    assert "故事" in name_of("smoke", "a/故事.jsonl")


def test_a_run_has_one_name_however_its_files_are_written(place, monkeypatch):
    write(place / "a" / "train.jsonl")
    write(place / "a" / "my.yaml", "extends: smoke\ndata: {source: train.jsonl, prompts: null}\n")
    wanted = open_run("a/my.yaml").folder
    assert open_run(str(place / "a" / "my.yaml"), None, place / "runs").folder == wanted
    assert open_run("a/my.yaml", "a/train.jsonl").folder == wanted  # the profile's own corpus
    monkeypatch.chdir(place / "a")
    assert open_run("my.yaml", folder="../runs").folder == wanted
    assert open_run("../a/my.yaml", "train.jsonl", "../runs").folder == wanted


def test_a_project_that_is_moved_keeps_its_runs(tmp_path):
    names = []
    for folder in ("here", "there/deeper"):
        corpus = write(tmp_path / folder / "data" / "train.jsonl")
        profile = write(tmp_path / folder / "my.yaml", "extends: smoke\n")
        names.append(name_of(str(profile), str(corpus), tmp_path / folder / "runs"))
    assert names[0] == names[1]


def test_the_packages_corpus_by_its_path_is_the_same_run():
    assert name_of("smoke", str(PROJECT / "ddpo_lib" / "data" / "corpus.jsonl")) == "smoke"


@pytest.mark.parametrize(
    "change",
    ["baselines: {DPO-2: {}, dpo-2: {}}", "seeds: 2\nbaselines: {dpo-seed1: {}}"],
    ids=["a folder on macOS", "a name of another seed"],
)
def test_two_artifacts_that_would_share_a_folder_are_named(tmp_path, change):
    profile = write(tmp_path / "my.yaml", f"extends: smoke\n{change}\n")
    with pytest.raises(InputError, match="share one folder"):
        open_run(str(profile), folder=tmp_path / "runs")


# A chapter's parameters


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name in ("notebooks", "ddpo_lib", "data"):
        (tmp_path / "my checkout" / name).mkdir(parents=True)
    write(tmp_path / "my checkout" / "mine.yaml")
    write(tmp_path / "my checkout" / "data" / "x.jsonl")
    return tmp_path / "my checkout"


@pytest.mark.parametrize("folder", [".", "notebooks", "data"])
def test_a_chapter_finds_the_projects_runs_and_files_from_any_of_its_folders(checkout, folder, monkeypatch):
    monkeypatch.chdir(checkout / folder)
    found = chapter_paths("mine.yaml", "data/x.jsonl", None)
    assert found == (str(checkout / "mine.yaml"), str(checkout / "data" / "x.jsonl"), checkout / "runs")


def test_a_chapter_outside_a_checkout_uses_the_librarys_and_what_lies_beside_it_first(place):
    assert chapter_paths("smoke", "owner/name", None) == ("smoke", "owner/name", PROJECT / "runs")
    assert chapter_paths("smoke", None, "my runs") == ("smoke", None, place / "my runs")
    write(place / "README.md")
    assert chapter_paths("embedded", "README.md", None)[1] == str(place / "README.md")
    assert chapter_paths("none.yaml", None, None)[0] == "none.yaml"  # whoever opens it says that it is not there


@pytest.mark.parametrize("folder", ["", "notebooks"])
def test_papermill_makes_a_chapter_in_the_projects_runs(tmp_path, folder):
    """From the project and from `notebooks`, with a profile beside the README, in a checkout of the notebooks alone."""
    project = tmp_path / "my project"
    (project / "notebooks").mkdir(parents=True)
    (project / "ddpo_lib").symlink_to(PROJECT / "ddpo_lib")
    chapter = "06-released-code"
    made = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--output", f"notebooks/{chapter}.ipynb"]
    made += [str(PROJECT / "notebooks" / f"{chapter}.md")]
    subprocess.run(made, cwd=project, check=True, capture_output=True)
    write(project / "mine.yaml", "extends: smoke\nname: mine\n")
    source, out = project / "notebooks" / f"{chapter}.ipynb", project / "out.ipynb"
    command = [sys.executable, "-m", "papermill", os.path.relpath(source, project / folder), str(out)]
    command += ["-p", "profile", "mine.yaml", "--kernel", "python3"]
    done = subprocess.run(command, cwd=project / folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.parent.parent.parent.parent for path in tmp_path.rglob("pairs/manifest.json")] == [project]
