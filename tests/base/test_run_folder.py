"""The run folder with small steps: what is made, what is made again, and what a failure leaves."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ddpo_lib.base import run_folder
from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.locks import lease
from ddpo_lib.base.run_folder import Run, Step


class Workshop:
    """Steps in a chain `corpus -> pairs -> arm`, and `map` that reads the corpus alone; counts what is made."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: list[str] = []

    def run(self, **changes) -> Run:
        """A run as a new process would open it. `changes` names a step and gives fields that differ."""

        def step(name, *inputs):
            return Step(**{"name": name, "make": partial(self._make, name), "inputs": inputs} | changes.get(name, {}))

        steps = [step("corpus"), step("pairs", "corpus"), step("map", "corpus"), step("arm", "pairs")]
        return Run(self.folder / "run", {s.name: s for s in steps})

    def make_all(self, **changes) -> list[str]:
        """The names of what had to be made."""
        self.made = []
        run = self.run(**changes)
        for name in ("arm", "map"):
            run.path(name)
        return sorted(self.made)

    def _make(self, name: str, folder: Path, run: Run) -> None:
        self.made.append(name)
        (folder / "result.txt").write_text(f"{name} {run.steps[name].params}")


ALL = ["arm", "corpus", "map", "pairs"]


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What is made, and what is stale


def test_an_artifact_is_made_once(workshop):
    assert workshop.make_all() == ALL
    assert workshop.make_all() == []
    assert (workshop.run().path("arm") / "result.txt").read_text() == "arm {}"


@pytest.mark.parametrize(
    ("changed", "remade"),
    [("corpus", ALL), ("pairs", ["arm", "pairs"]), ("map", ["map"]), ("arm", ["arm"])],
)
def test_a_changed_parameter_makes_stale_what_stands_on_it_and_nothing_else(workshop, changed, remade):
    workshop.make_all()
    assert workshop.make_all(**{changed: {"params": {"seed": 1}}}) == remade
    assert (workshop.folder / "run" / changed / "result.txt").read_text() == f"{changed} {{'seed': 1}}"
    assert workshop.make_all(**{changed: {"params": {"seed": 1}}}) == []


def test_a_changed_input_makes_an_artifact_stale(workshop):
    workshop.make_all()
    assert workshop.make_all(map={"inputs": ("corpus", "pairs")}) == ["map"]


def test_a_changed_file_makes_stale_what_reads_it_and_what_stands_on_that(workshop, tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("a")
    pairs = {"files": (file,)}
    workshop.make_all(pairs=pairs)
    os.utime(file, ns=(0, 10**9))
    assert workshop.make_all(pairs=pairs) == []
    file.write_text("b")
    assert workshop.make_all(pairs=pairs) == ["arm", "pairs"]


def plainly(folder: Path, run: Run) -> None:
    (folder / "result.txt").write_text("one")


def otherwise(folder: Path, run: Run) -> None:
    (folder / "result.txt").write_text("two")


def test_other_code_makes_stale_what_it_makes_and_what_stands_on_that(workshop):
    workshop.make_all(pairs={"make": plainly})
    assert workshop.make_all(pairs={"make": plainly}) == []
    assert workshop.make_all(pairs={"make": otherwise}) == ["arm"]
    assert (workshop.folder / "run" / "pairs" / "result.txt").read_text() == "two"


@pytest.mark.parametrize("damage", [b"", b'{"key": ', b"\xff\xfe\x00", b"[]", b"null", None])
def test_a_manifest_that_cannot_be_read_counts_as_missing(workshop, damage):
    workshop.make_all()
    manifest = workshop.folder / "run" / "pairs" / "manifest.json"
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_bytes(damage)
    assert workshop.run().manifest("pairs") == {}
    workshop.made = []
    workshop.run().path("pairs")
    assert workshop.made == ["pairs"]
    assert json.loads(manifest.read_text())["name"] == "pairs"


# Failures


def fails_half_way(folder: Path, run: Run) -> None:
    (folder / "half.txt").write_text("half")
    raise RuntimeError("out of luck")


def test_what_kills_left_under_other_keys_goes_when_the_artifact_is_made(workshop):
    """Only that artifact's: `arm` is no `arm-b`. What another process makes stays."""
    for number in range(3):
        with pytest.raises(RuntimeError):
            workshop.run(arm={"make": fails_half_way, "params": {"gap": number}}).path("arm")
    partial = workshop.folder / "run" / ".partial"
    names = {path.name for path in partial.iterdir()}
    assert len(names) == 3
    working = next(iter(names))
    others = ["arm-b-0123456789ab", "pairs-0123456789ab", "arm-0123456789ab-c"]
    for name in (*others, "arm-0123456789ab.twin", "arm-0123456789ab.old"):
        (partial / name).mkdir()
    with lease(partial / f"{working}.lock"):
        workshop.run().path("arm")
        assert {path.name for path in partial.iterdir()} == {working, f"{working}.lock", *others}
    workshop.run(arm={"params": {"gap": 9}}).path("arm")
    assert {path.name for path in partial.iterdir()} == set(others)


def test_what_was_whole_when_it_was_killed_is_not_made_again(workshop):
    workshop.make_all()
    run = workshop.run()
    arm, aside = run.folder / "arm", run.folder / ".partial" / f"arm-{run.key('arm')[:12]}"
    arm.replace(aside)
    assert workshop.make_all() == []
    assert (arm / "result.txt").read_text() == "arm {}"
    arm.replace(aside)
    os.truncate(aside / "manifest.json", 20)
    assert workshop.make_all() == ["arm"]


def test_artifacts_whose_names_differ_after_a_dot_do_not_share_what_is_left(tmp_path):
    names = ("arm-a.b", "arm-a.c")

    def make(folder: Path, run: Run) -> None:
        (folder / "name.txt").write_text(folder.name)

    run = Run(tmp_path / "run", {name: Step(name, make) for name in names})
    for name in names:
        beside = Run(tmp_path / "beside", run.steps).path(name)
        assert run.path(name) != beside and (run.path(name) / "name.txt").read_text().startswith(name)
    assert list((run.folder / ".partial").iterdir()) == []


def test_a_maker_that_fails_leaves_no_artifact(workshop):
    run = workshop.run(arm={"make": fails_half_way})
    with pytest.raises(RuntimeError, match="out of luck"):
        run.path("arm")
    assert not (workshop.folder / "run" / "arm").exists()
    assert not run.is_fresh("arm")
    assert workshop.made == ["corpus", "pairs"]


def test_a_maker_that_fails_leaves_the_old_artifact_as_it_was(workshop):
    workshop.make_all()
    before = contents(workshop.folder / "run" / "arm")
    with pytest.raises(RuntimeError, match="out of luck"):
        workshop.run(arm={"make": fails_half_way, "params": {"seed": 1}}).path("arm")
    assert contents(workshop.folder / "run" / "arm") == before
    assert workshop.make_all() == []


def test_a_maker_finds_what_its_interrupted_call_left_and_nothing_of_another(workshop):
    found = []

    def goes_on(folder: Path, run: Run) -> None:
        found.append(sorted(p.name for p in folder.iterdir()))
        if len(found) < 3:
            (folder / f"checkpoint-{len(found)}").write_text("so far")
            raise KeyboardInterrupt

    for seed in (0, 1, 0):
        run = workshop.run(arm={"make": goes_on, "params": {"seed": seed}})
        if len(found) < 2:
            with pytest.raises(KeyboardInterrupt):
                run.path("arm")
        else:
            run.path("arm")
    assert found == [[], [], ["checkpoint-1"]]
    assert sorted(contents(workshop.folder / "run" / "arm")) == ["checkpoint-1", "manifest.json"]


# Several at once


def slow_mark(marks: Path, folder: Path, run: Run) -> None:
    """Leaves one mark for each time that it runs."""
    (marks / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}").touch()
    time.sleep(0.5)
    (folder / "result.txt").write_text("whole")


def ask(folder: Path, start) -> None:
    run = Run(folder / "run", {"slow": Step("slow", partial(slow_mark, folder / "marks"))})
    start.wait(60)
    assert (run.path("slow") / "result.txt").read_text() == "whole"


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_two_that_ask_at_once_make_it_once(tmp_path, kind):
    (tmp_path / "marks").mkdir()
    spawn = multiprocessing.get_context("spawn")
    start, worker = (threading.Barrier(2), threading.Thread) if kind == "threads" else (spawn.Barrier(2), spawn.Process)
    workers = [worker(target=ask, args=(tmp_path, start)) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(100)
    if kind == "processes":
        assert [each.exitcode for each in workers] == [0, 0]
    assert len(list((tmp_path / "marks").iterdir())) == 1
    assert (tmp_path / "run" / "slow" / "result.txt").read_text() == "whole"


# What a manifest holds


def test_a_manifest_tells_where_an_artifact_comes_from(workshop):
    def takes_a_moment(folder: Path, run: Run) -> None:
        time.sleep(0.2)

    pairs = {"make": takes_a_moment, "params": {"gap": 5, "seed": 0}}
    run = workshop.run(pairs=pairs)
    run.path("arm")
    manifest = run.manifest("pairs")
    assert manifest["name"] == "pairs"
    assert manifest["params"] == {"gap": 5, "seed": 0}
    assert manifest["inputs"] == {"corpus": run.manifest("corpus")["key"]}
    assert manifest["key"] == run.key("pairs") == run.manifest("arm")["inputs"]["pairs"]
    assert manifest["code"] == code_key(takes_a_moment)
    assert manifest["versions"]["numpy"] == np.__version__
    assert {"python", "torch", "transformers", "trl"} <= manifest["versions"].keys()
    assert manifest["hardware"]["cores"] == os.cpu_count()
    assert manifest["hardware"]["processor"]
    assert "commit" in manifest
    assert 0.2 <= manifest["seconds"] < 60
    assert 0.01 < manifest["peak_memory_gb"] < 1000


@pytest.mark.parametrize("told", ["Name:\tpython\nVmRSS:\t  1024 kB\n", None])
def test_where_the_system_tells_no_peak_of_a_process_there_is_one_all_the_same(tmp_path, monkeypatch, told):
    monkeypatch.setattr(run_folder, "STATUS", tmp_path / "status")
    if told:
        run_folder.STATUS.write_text(told)
    assert 20 * 2**20 < run_folder.peak_memory() < 2**40  # numpy alone takes more than the least


def test_the_peak_of_a_process_does_not_count_what_its_parent_holds():
    held = np.ones(2**26)  # 512 MB
    asked = "from ddpo_lib.base.run_folder import peak_memory; print(peak_memory())"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert 10 * 2**20 < int(told) < held.nbytes


def test_steps_know_the_jobs_that_they_stand_on(workshop):
    run = workshop.run(corpus={"job": True}, map={"job": True})
    assert run.needed_jobs("arm") == ["corpus"]
    assert run.needed_jobs("map") == ["corpus"]
    assert run.needed_jobs("corpus") == []
    assert workshop.run(corpus={"job": True}, pairs={"job": True}).needed_jobs("arm") == ["pairs"]
    assert run.needed_jobs("arm", ["pairs"]) == ["pairs"]


def test_a_job_waits_for_one_that_makes_what_it_would_make_and_is_no_staler_for_it(workshop):
    plain = workshop.run(map={"job": True})
    ordered = workshop.run(map={"job": True, "after": ("arm",)}, arm={"job": True})
    assert (plain.needed_jobs("map"), ordered.needed_jobs("map")) == ([], ["arm"])
    assert {name: plain.key(name) for name in plain.steps} == {name: ordered.key(name) for name in ordered.steps}


def test_where_git_is_not_installed_a_manifest_names_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_folder._commit.__wrapped__() is None


def test_a_manifest_of_what_needs_no_torch_is_written_without_its_import():
    program = "import json, sys; from ddpo_lib.base.run_folder import surroundings; "
    program += "print(json.dumps(surroundings())); print('torch' in sys.modules)"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=hidden, capture_output=True, text=True, check=True)
    found, imported = done.stdout.splitlines()
    hardware = json.loads(found)["hardware"]
    assert imported == "False"
    assert (hardware["gpu"], hardware["threads"], hardware["cores"]) == (None, 3, os.cpu_count())


def beside(workshop, name, **changes):
    """A run with the workshop's steps in a folder beside the workshop's own."""
    return Run(workshop.folder / name, workshop.run(**changes).steps)


def test_an_artifact_of_a_run_beside_this_one_is_taken_over_with_its_manifest(workshop):
    workshop.make_all()
    workshop.made = []
    other = beside(workshop, "other")
    other.path("arm")
    assert workshop.made == []
    assert (other.folder / "arm" / "result.txt").read_text() == "arm {}"
    assert other.manifest("arm") == workshop.run().manifest("arm")


def test_only_what_differs_between_runs_is_made(workshop):
    workshop.make_all()
    workshop.made = []
    other = beside(workshop, "other", pairs={"params": {"gap": 3}})
    other.path("arm")
    assert workshop.made == ["pairs", "arm"]
    assert (other.folder / "pairs" / "result.txt").read_text() == "pairs {'gap': 3}"
    assert (workshop.folder / "run" / "pairs" / "result.txt").read_text() == "pairs {}"


def test_making_an_artifact_again_leaves_the_one_that_was_taken_over(workshop):
    workshop.make_all()
    other = beside(workshop, "other")
    other.path("arm")
    workshop.make_all(corpus={"params": {"cut": 1}})
    assert (workshop.folder / "run" / "corpus" / "result.txt").read_text() == "corpus {'cut': 1}"
    assert (other.folder / "corpus" / "result.txt").read_text() == "corpus {}"
    assert other.is_fresh("arm")
