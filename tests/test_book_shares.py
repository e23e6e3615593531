"""Where the time of a build went, of a run written by hand. The end-to-end test reads a real one."""

import base64
import json
import os
import time
from pathlib import Path

import pytest

from benchmarks.book_shares import USES, rows, shares
from ddpo_lib.base.errors import InputError

BEGUN = 1_790_000_000.25


def write_artifact(run: Path, name: str, seconds: float, end: float, inputs=(), **files) -> None:
    folder = run / name
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file.replace("_json", ".json").replace("_ipynb", ".ipynb")).write_text(json.dumps(content))
    manifest = {"name": name, "seconds": seconds, "inputs": dict.fromkeys(inputs, "key"), "hardware": {"cores": 2}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    os.utime(folder / "manifest.json", (BEGUN + end, BEGUN + end))


def write_process(run: Path, steps: str, start: float, end: float, threads: int = 1) -> None:
    mark = f".done/{steps.split()[0]}.0123"
    (run / mark).parent.mkdir(exist_ok=True)
    (run / mark).touch()
    command = f"OMP_NUM_THREADS={threads} ddpo make {steps} --profile smoke   --runs /r"
    record = {"shellcmd": command, "starttime": BEGUN + start, "endtime": BEGUN + end}
    folder = run / ".snakemake" / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / base64.urlsafe_b64encode(mark.encode()).decode()).write_text(json.dumps(record))


def cell(seconds: float | None) -> dict:
    return {"cell_type": "code", "metadata": {} if seconds is None else {"papermill": {"duration": seconds}}}


@pytest.fixture
def run(tmp_path) -> Path:
    """Two processes on two cores, 50 seconds: one trains, one makes a chapter and the pages with both cores."""
    stamp = time.strftime("%Y-%m-%dT%H%M%S", time.localtime(BEGUN))
    log = tmp_path / ".snakemake" / "log" / f"{stamp}.250000.snakemake.log"
    log.parent.mkdir(parents=True)
    log.touch()
    write_process(tmp_path, "arm-dpo", 4, 34)
    write_artifact(tmp_path, "pairs", 9, -20)  # before Snakemake
    write_artifact(tmp_path, "corpus", 2, 8, ["pairs"])
    write_artifact(tmp_path, "arm-dpo", 20, 30, ["corpus"], log_json=[{"loss": 1.0}, {"train_runtime": 15.0}])
    write_process(tmp_path, "chapter-1 book", 34, 50, threads=2)
    write_artifact(
        tmp_path, "chapter-1", 8, 43, ["arm-dpo"], **{"1_ipynb": {"cells": [cell(0.01), cell(3), cell(None), cell(4)]}}
    )
    write_artifact(tmp_path, "book", 6, 50, ["chapter-1"])
    return tmp_path


def test_every_second_of_a_core_has_one_use(run):
    told = {use: row.measured for use, row in zip(USES, shares(run), strict=True)}
    assert told == {
        "work": "17 s, 17.0%",
        "trainer": "5 s, 5.0%",
        "cells": "8 s, 8.0%",
        "imports": "6 s, 6.0%",
        "kernels": "2 s, 2.0%",
        "pages": "12 s, 12.0%",
        "around": "12 s, 12.0%",
        "before": "8 s, 8.0%",
        "idle": "30 s, 30.0%",
    }
    assert shares(run)[0].what.startswith("2 processes on 2 cores, 0.8 min on the clock: artifacts")


def test_a_process_that_made_other_artifacts_before_counts_only_in_the_last_build(run):
    write_process(run, "sft samples-sft", -90, -40)
    write_artifact(run, "sft", 30, -45)
    assert sum(float(row.measured.split()[0]) for row in shares(run)) == 100
    write_process(run, "gone", 10, 20)
    (run / ".done" / "gone.0123").unlink()  # of a step that has another key now
    assert len(shares(run)) == len(USES) and shares(run)[-1].measured == "30 s, 30.0%"


def test_a_folder_without_a_build_has_no_row_and_is_named(tmp_path):
    assert rows(tmp_path) == []
    with pytest.raises(InputError, match=str(tmp_path)):
        shares(tmp_path)
