"""`ddpo doctor`: why an artifact is stale, what the report contains, and that it tells nothing about its user."""

import json
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_main import said, write_corpus

from ddpo_lib.base import code_keys
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.cli import anonymous
from ddpo_lib.cli.doctor import folder_size
from ddpo_lib.cli.staleness import State, read_states
from ddpo_lib.evaluation.published import published
from ddpo_lib.runs.pipeline import open_run

# Why an artifact is stale


def plainly(folder: Path, run: Run) -> None:
    (folder / "result.txt").write_text("one")


def otherwise(folder: Path, run: Run) -> None:
    (folder / "result.txt").write_text("two")


def with_numpy(folder: Path, run: Run) -> None:
    np.save(folder / "result.npy", np.zeros(3))


def with_file(folder: Path, run: Run) -> None:
    """Reaches evaluation/published.yaml, a file that the library's code names."""
    (folder / "result.txt").write_text(str(len(published())))


def opened(folder: Path, **changes) -> Run:
    """A chain `corpus -> pairs`, as a new process would open it; `changes` are fields of `pairs`."""
    corpus = Step("corpus", plainly, params=changes.pop("upstream", {}))
    pairs = Step(**{"name": "pairs", "make": plainly, "inputs": ("corpus",)} | changes)
    return Run(folder, {"corpus": corpus, "pairs": pairs})


def state(folder: Path, **changes) -> State:
    """The state of `pairs`."""
    return read_states(opened(folder, **changes))[1]


def stale(*reasons: str) -> State:
    return State("pairs", "stale", reasons)


def test_an_artifact_is_missing_then_made(tmp_path):
    assert [one.state for one in read_states(opened(tmp_path))] == ["missing", "missing"]
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path).path("pairs")
    assert [one.state for one in read_states(opened(tmp_path))] == ["made", "made"]


def test_other_code(tmp_path):
    opened(tmp_path).path("pairs")
    assert state(tmp_path, make=otherwise) == stale("code")


def test_another_version_of_a_package(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(code_keys, "_minor", lambda package: "1.26")
        opened(tmp_path, make=with_numpy).path("pairs")
    now = ".".join(np.__version__.split(".")[:2])
    assert state(tmp_path, make=with_numpy) == stale(f"packages: numpy 1.26 (now {now})")


def test_another_file_that_the_code_names(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(code_keys, "file_hash", lambda path: "0" * 64)
        opened(tmp_path, make=with_file).path("pairs")
    assert state(tmp_path, make=with_file) == stale("files: published.yaml")


def test_another_file_that_the_step_reads(tmp_path):
    file = tmp_path / "secret.jsonl"
    file.write_text("a")
    opened(tmp_path / "run", files=(file,)).path("pairs")
    file.write_text("b" * 1234)
    assert state(tmp_path / "run", files=(file,)) == stale("files: a jsonl file, 1.2 kB")
    two = stale("files: one or more of the 2 that it reads (.jsonl)")
    assert state(tmp_path / "run", files=(file, file)) == two
    file.write_text("a")
    assert state(tmp_path / "run", files=(file,)).state == "made"
    assert state(tmp_path / "run") == stale("files: it reads none now")


def test_other_parameters_with_numbers_and_without_texts(tmp_path):
    params = {"seed": 1, "model": {"name": "/home/ann/model", "r": 4}, "spaces": ["/home/ann"], "old": "x"}
    opened(tmp_path, params=params).path("pairs")
    now = {"seed": 2, "model": {"name": "/home/bob/model", "r": None}, "spaces": ["/home/bob"], "new": "y"}
    told = "parameters: model.name, model.r 4 (now None), new is new, old is gone, seed 1 (now 2), spaces"
    assert state(tmp_path, params=now) == stale(told)


def test_tuples_of_parameters_are_what_json_makes_of_them(tmp_path):
    opened(tmp_path, params={"weights": ("semantic",), "seed": 1}).path("pairs")
    assert state(tmp_path, params={"weights": ("semantic",), "seed": 2}) == stale("parameters: seed 1 (now 2)")


def test_another_input(tmp_path):
    opened(tmp_path).path("pairs")
    first, second = read_states(opened(tmp_path, upstream={"seed": 1}))
    assert first == State("corpus", "stale", ("parameters: seed is new",))
    assert second == stale("inputs: corpus")
    assert state(tmp_path, inputs=()) == stale("inputs: corpus")


def test_all_reasons_are_told(tmp_path, monkeypatch):
    file = tmp_path / "table.csv"
    file.write_text("a")
    with monkeypatch.context() as patch:
        patch.setattr(code_keys, "_minor", lambda package: "1.26")
        opened(tmp_path / "run", make=with_numpy, files=(file,), params={"seed": 1}).path("pairs")
    file.write_text("bc")
    found = state(tmp_path / "run", files=(file,), params={"seed": 2}, upstream={"seed": 1})
    assert found == stale(
        "code",
        "packages: numpy is gone",
        "files: a csv file, 2 B",
        "parameters: seed 1 (now 2)",
        "inputs: corpus",
    )


@pytest.mark.parametrize("lost", ["params", "inputs", "code"])
def test_a_manifest_that_lacks_a_part(tmp_path, lost):
    opened(tmp_path).path("pairs")
    manifest = tmp_path / "pairs" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content[lost]
    manifest.write_text(json.dumps(content | {"key": "0"}))
    assert state(tmp_path) == stale("its manifest does not say what it was made of")
    manifest.write_text("{")
    assert state(tmp_path) == State("pairs", "missing", ("its manifest cannot be read",))


def test_a_state_is_unknown_where_a_file_or_a_package_is_missing(tmp_path, monkeypatch):
    opened(tmp_path, make=with_numpy).path("pairs")
    assert state(tmp_path, files=(tmp_path / "gone",)) == State(
        "pairs", "unknown", ("a file that it reads is missing",)
    )

    def missing(package: str):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(code_keys, "_minor", missing)
    assert state(tmp_path, make=with_numpy) == State("pairs", "unknown", ("numpy is not installed",))


# The report


def test_the_report_has_what_a_bug_report_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "ddpo" / "arrays").mkdir(parents=True)
    (tmp_path / "cache" / "ddpo" / "arrays" / "part.arrow").write_bytes(bytes(3_400_000))
    report = said("doctor", "--profile", "smoke", "--runs", tmp_path / "runs")
    lines = report.splitlines()
    sections = [line for line in lines if not line.startswith(" ")]
    assert sections == ["project", "machine", "packages", "devices", "models", "disk", "run"]
    assert max(map(len, lines)) <= 100
    assert f"Python {platform.python_version()}" in report
    assert f"numpy {np.__version__}" in report
    assert f"cores: {os.cpu_count()}" in report
    assert "3.4 MB: models 0 B, arrays 3.4 MB, other 0 B" in report
    assert "oneDNN's linear products:" in report
    assert "smollm2-135m-instruct: " in report
    assert "profile: smoke; corpus: the one of the package, a jsonl file" in report
    assert "0 made, 0 stale" in report
    assert not (tmp_path / "runs").exists()


def test_the_report_tells_which_packages_differ_from_the_lock(tmp_path, monkeypatch):
    lock = (
        "numpy==0.1\ntyper==0.2 ; sys_platform == 'darwin'\nnot-a-package==1.0\nnot-here==1.0 ; sys_platform == 'x'\n"
    )
    (tmp_path / "requirements.lock").write_text(lock)
    monkeypatch.setattr("ddpo_lib.cli.doctor.PROJECT", tmp_path)
    monkeypatch.setattr("ddpo_lib.cli.doctor._version", lambda: "0")
    report = " ".join(said("doctor", "--profile", "smoke", "--runs", tmp_path / "runs").split())
    assert f"in another version: numpy {np.__version__} (pinned: 0.1), typer" in report
    assert "not installed: not-a-package devices" in report


def test_a_profile_or_corpus_that_cannot_be_read_leaves_the_rest_of_the_report(tmp_path):
    (tmp_path / "broken.yaml").write_text("seeds: many")
    for options in (["--profile", tmp_path / "broken.yaml"], ["--corpus", tmp_path / "gone.jsonl"]):
        report = said("doctor", "--runs", tmp_path / "runs", *options)
        assert "not opened (InputError); `ddpo plan` with the same options says why" in report
        assert str(tmp_path) not in report


# No names, no paths

USER, HOST, FOLDER, CORPUS = "zaphod", "magrathea", "betelgeuse", "heartofgold"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home folder of a user, with a corpus, a profile, a cache and a run, all with names that nobody should see."""
    folder = tmp_path / "home" / USER
    monkeypatch.setenv("HOME", str(folder))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setattr(platform, "node", lambda: f"{HOST}.example.org")
    work = folder / FOLDER
    work.mkdir(parents=True)
    source = write_corpus(work / f"{CORPUS}.jsonl", *[[1, 2, 3, 4]] * 8)
    arms = {f"dpo-{USER}": {"loss": "dpo", "start": "sft"}, f"dpo-{HOST}": {"loss": "dpo", "start": "sft"}}
    model = {"name": str(work / "model")}
    knobs = {"extends": "smoke", "name": FOLDER, "data": {"source": str(source)}, "arms": arms, "model": model}
    knobs["evaluation"] = {"against": f"dpo-{USER}"}
    (work / f"{FOLDER}.yaml").write_text(yaml.safe_dump(knobs))
    return folder


@pytest.mark.parametrize("cache", ["default", "elsewhere"])
def test_the_report_tells_no_name_of_user_and_host_and_no_path(home, tmp_path, monkeypatch, cache):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if cache == "elsewhere":
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / FOLDER / "cache"))
    runs, profile = home / FOLDER / "runs", home / FOLDER / f"{FOLDER}.yaml"
    made = open_run(str(profile), folder=runs).folder / f"arm-dpo-{USER}"
    made.mkdir(parents=True)
    code = {"code": "", "packages": {}, "files": {}}
    params = {"source": str(home), f"path-{USER}": str(home), f"number-{HOST}": 3}
    manifest = {"key": "0", "params": params, "inputs": {"corpus": "0"}, "code": code}
    (made / "manifest.json").write_text(json.dumps(manifest))
    reports = [said("doctor", "--profile", profile, "--runs", runs)]
    reports.append(said("doctor", "--profile", "smoke", "--corpus", home / FOLDER / f"{CORPUS}.jsonl", "--runs", runs))
    monkeypatch.chdir(home / FOLDER)
    reports.append(said("doctor", "--profile", f"{FOLDER}.yaml"))
    for report in reports:
        together = "".join(report.split())
        for name in (USER, HOST, FOLDER, CORPUS, str(tmp_path), socket.gethostname() + "."):
            assert name not in together, report
    first = " ".join(reports[0].split())
    size = anonymous.describe_size((home / FOLDER / f"{CORPUS}.jsonl").stat().st_size)
    assert f"corpus: not the one of the package, a jsonl file, {size}" in first
    assert "arm-dpo-<user>" in first
    assert "samples-dpo-<host>" in first
    assert "number-<host> is gone" in first
    assert "runs (a folder in ~)" in first
    assert ("cache (~/.cache/ddpo)" if cache == "default" else "cache (a folder in ~)") in first


def test_names_are_replaced_only_as_whole_words(home):
    told = f"{home}/x {USER}s {USER}-1 {HOST} {HOST}.example.org mega{HOST}"
    assert anonymous.without_names(told) == f"~/x {USER}s <user>-1 <host> <host> mega{HOST}"


def test_a_place_is_a_path_only_in_the_project(home):
    assert anonymous.describe_place(anonymous.PROJECT / "runs") == "runs, in the project"
    assert anonymous.describe_place(home / ".cache" / "ddpo") == "~/.cache/ddpo"
    assert anonymous.describe_place(home / FOLDER) == "a folder in ~"
    assert anonymous.describe_place(Path("/opt/x")) == "a folder outside the project and ~"


def test_sizes_are_in_decimal_units():
    sizes = [0, 999, 1000, 999_949, 999_950, 3_400_000, 5.6e9, 7e12]
    told = ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "3.4 MB", "5.6 GB", "7000.0 GB"]
    assert [anonymous.describe_size(int(size)) for size in sizes] == told


def test_a_file_with_two_links_counts_once(tmp_path):
    (tmp_path / "one").write_bytes(bytes(100))
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "three").write_bytes(bytes(10))
    assert folder_size(tmp_path) == 110
    assert folder_size(tmp_path / "none") == 0
