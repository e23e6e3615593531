"""A process of the workflow has a GPU to itself; jobs go to a cluster where one is named."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ddpo_lib.base import gpus
from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.workflow import cluster_options
from ddpo_lib.runs.pipeline import PROJECT, open_run

HOLD = """
import os, sys, time
from pathlib import Path
from ddpo_lib.base.gpus import held
with held(sys.argv[2].split(","), Path(sys.argv[1]), int(sys.argv[4])):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(folder, slots: str, seconds: float, number: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(folder), slots, str(seconds), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def seen(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_each_process_sees_one_gpu_that_no_other_has_and_a_killed_one_gives_its_back(tmp_path):
    first, second = holder(tmp_path, "3,5", 60), holder(tmp_path, "3,5", 60)
    try:
        assert {seen(first), taken := seen(second)} == {"3", "5"}
        third = holder(tmp_path, "3,5", 0)
        second.send_signal(signal.SIGKILL)
        assert seen(third) == taken
        assert third.wait(timeout=20) == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_a_gpu_that_stands_twice_takes_two(tmp_path):
    with gpus.held(["0", "0"], tmp_path):
        other = holder(tmp_path, "0,0", 0)
        assert seen(other) == "0"
        assert other.wait(timeout=20) == 0


def test_a_gpu_is_held_whatever_list_names_it(tmp_path):
    with gpus.held(["1"], tmp_path):
        other = holder(tmp_path, "0,1", 30)
        try:
            assert seen(other) == "0"
        finally:
            other.kill()
            other.wait()


def test_a_process_that_needs_two_gpus_waits_until_both_are_free_and_holds_none_meanwhile(tmp_path):
    with gpus.held(["0", "1"], tmp_path):
        both = holder(tmp_path, "0,1", 0, number=2)
        for _ in range(2):  # GPU 1 can be had each time, and the one that waits for both does not keep it
            with gpus.held(["1"], tmp_path):
                time.sleep(1.2)
        assert both.poll() is None
    assert seen(both) == "0,1"
    assert both.wait(timeout=20) == 0


def test_no_process_waits_for_more_gpus_than_there_are(tmp_path):
    with gpus.held(["0", "1"], tmp_path, 4):
        assert gpus.visible() == ["0", "1"]


def test_what_was_seen_before_is_seen_after(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert gpus.visible() == ["1", "2"]
    with gpus.held(["2"], tmp_path):
        assert gpus.visible() == ["2"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    with gpus.held([], tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"


def test_the_lock_of_a_gpu_lies_in_its_folder_whatever_the_gpu_is_called(tmp_path):
    with gpus.held(["MIG-GPU-5/1/0", "../up"], tmp_path / "locks"):
        assert [path.parent for path in tmp_path.rglob("*.lock")] == [tmp_path / "locks"]


@pytest.mark.parametrize("named", ["", "-1"])
def test_gpus_that_are_hidden_are_not_seen(named, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == []


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible() == []


def test_an_executor_that_is_not_installed_is_named():
    with pytest.raises(InputError, match="pip install snakemake-executor-plugin-no-such"):
        cluster_options("no-such", 4)


def jobs_of(profile: str, runs, *words: str, **config: str) -> str:
    """What Snakemake would start for the book of a run."""
    folder = runs / profile
    folder.mkdir()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "workflow" / "Snakefile"), "--dry-run"]
    command += ["--directory", str(folder), "--nolock", "--printshellcmds", *words]
    config = {"profile": profile, "runs": str(runs), **config}
    command += ["--config", *(f"{name}={value}" for name, value in config.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_workflow_starts_every_arm_of_the_paper_with_a_gpu_of_its_own(tmp_path):
    planned = jobs_of("paper", tmp_path, "--cores", "8", "--resources", "gpu=4", gpus="0,1,2,3")
    run = open_run("paper", folder=tmp_path)
    for job in (step.name for step in run.steps.values() if step.job):
        if job == "book" or job in run.needed_jobs("book") or job.startswith("samples-"):
            assert f"OMP_NUM_THREADS=2 ddpo make {job} --profile paper  --gpus 0,1,2,3 --runs {tmp_path}" in planned
    assert planned.count("gpu=1") == planned.count("ddpo make")


def test_the_job_of_an_arm_on_several_devices_has_as_many_gpus(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\nname: mine\npreference: {dpo: {devices: 3}}\n")
    run = open_run(str(mine), folder=tmp_path / "runs", ask=False)
    assert {name: run.devices(name) for name in ("sft", "samples-sft", "samples-dpo", "samples-orpo", "vectors")} == {
        "sft": 1,
        "samples-sft": 1,
        "samples-dpo": 3,
        "samples-orpo": 1,
        "vectors": 1,
    }


@pytest.mark.parametrize("profile", ["paper", "small"])
def test_no_job_holds_a_gpu_while_another_makes_what_both_stand_on(profile, tmp_path):
    """Of the jobs that would each make an artifact, one is before all others. Exempt: the corpus, which is made before
    the workflow begins."""
    run = open_run(profile, folder=tmp_path)
    jobs = [step.name for step in run.steps.values() if step.job]

    def makes(name) -> set[str]:
        own = {needed for needed in run.steps[name].inputs if not run.steps[needed].job}
        return own.union(*map(makes, own))

    def waits_for(job) -> set[str]:
        needed = set(run.needed_jobs(job))
        return needed.union(*map(waits_for, needed))

    made, before = {job: makes(job) for job in jobs}, {job: waits_for(job) for job in jobs}
    shared = set().union(*made.values()) - {"corpus"}
    assert {"arm-dpo", "arm-ddpo-both"} <= shared
    for artifact in shared:
        makers = [job for job in jobs if artifact in made[job]]
        first = [job for job in makers if not before[job] & set(makers)]
        assert len(first) == 1, f"{artifact}: {first}"


def test_without_a_gpu_no_job_asks_for_one(tmp_path):
    planned = jobs_of("smoke", tmp_path, "--cores", "2", "--resources", "gpu=0")
    assert "ddpo make samples-dpo" in planned
    assert "--gpus" not in planned
    assert "gpu=1" not in planned
