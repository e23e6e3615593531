"""Where the time of `make book` went, of every core: the work on artifacts, and what is spent around it.

    python -m benchmarks.book_shares runs/embedded

It reads what the last build of a run left: the manifests, the executed chapters and the records of Snakemake. A build
that makes only a part of a run has shares of that part. Libraries that a step imports itself, the first one of its
process, count as its work.
"""

import base64
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Row, table
from ddpo_lib.base.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "runs" / "embedded"
CHAPTER, BOOK = "chapter-", "book"
USES = {  # of the seconds of every core -> in words
    "work": "artifacts, without chapters and pages; of a trained one, the training loop",
    "trainer": "trained artifacts around the training loop: imports, model, data, files",
    "cells": "chapters: cells after the first",
    "imports": "chapters: the first cell of code, which imports and opens the run",
    "kernels": "chapters: start and end of the kernel, files",
    "pages": "pages (Sphinx)",
    "around": "processes before and after their artifacts: Python, the run's keys, locks, end",
    "before": "Snakemake before its first process",
    "idle": "cores without work: waits for other processes, and Snakemake between processes",
}
COMMAND = re.compile(r"OMP_NUM_THREADS=(\d+) ddpo make (.+?) --profile ")


@dataclass(frozen=True)
class Artifact:
    """Seconds that an artifact took, and when it was done, in seconds since the epoch."""

    name: str
    seconds: float
    end: float
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """A process that Snakemake started; times in seconds since the epoch."""

    steps: tuple[str, ...]
    threads: int
    start: float
    end: float


def rows(run: Path = EMBEDDED) -> list[Row]:
    """The table of a run; none where there is no finished one."""
    return shares(run) if (run / BOOK / "manifest.json").exists() and (run / ".snakemake" / "log").is_dir() else []


def shares(run: Path) -> list[Row]:
    """A row for each use of the cores in the last build of a run, from the start of Snakemake to its last process.

    Raises:
        InputError: Snakemake has started no process in this folder.
    """
    begun = max(map(_begun, (run / ".snakemake" / "log").glob("*.log")), default=0.0)
    found = [process for process in processes(run) if process.start >= begun > 0]
    if not found:
        raise InputError(f"{run}: no process of Snakemake; give the folder of a run that `ddpo run` has made")
    cores = json.loads((run / BOOK / "manifest.json").read_text(encoding="utf-8"))["hardware"]["cores"]
    made, uses = artifacts(run), dict.fromkeys(USES, 0.0)
    for process in found:
        own = made_by(process, made, {step for other in found for step in other.steps if other is not process})
        length = process.end - process.start
        uses["around"] += process.threads * max(0.0, length - sum(artifact.seconds for artifact in own))
        for artifact in own:
            for use, seconds in _uses(run, artifact).items():
                uses[use] += process.threads * seconds
    wall = max(process.end for process in found) - begun
    uses["before"] = cores * (min(process.start for process in found) - begun)
    uses["idle"] = cores * wall - sum(uses.values())
    what = f"{len(found)} processes on {cores} cores, {wall / 60:.1f} min on the clock: {{}}"
    return [
        Row(
            what.format(words),
            "all seconds of every core",
            "",
            f"{uses[use]:.0f} s, {uses[use] / cores / wall:.1%}",
            "",
            None,
        )
        for use, words in USES.items()
    ]


def processes(run: Path) -> list[Process]:
    """The processes whose marks are in the run, from the records that Snakemake keeps per output file."""
    found = []
    for file in sorted((run / ".snakemake" / "metadata").rglob("*")):
        if not file.is_file() or not (run / base64.urlsafe_b64decode(file.name).decode()).exists():
            continue
        record = json.loads(file.read_text(encoding="utf-8"))
        if command := COMMAND.search(record.get("shellcmd") or ""):
            times = record["starttime"], record["endtime"]
            found.append(Process(tuple(command[2].split()), int(command[1]), *times))
    return found


def artifacts(run: Path) -> dict[str, Artifact]:
    """Every artifact of a run, by name."""
    found = {}
    for file in run.glob("*/manifest.json"):
        manifest = json.loads(file.read_text(encoding="utf-8"))
        inputs = tuple(manifest.get("inputs", {}))
        name = manifest["name"]
        found[name] = Artifact(name, manifest["seconds"], file.stat().st_mtime, inputs)
    return found


def made_by(process: Process, made: dict[str, Artifact], others: set[str]) -> list[Artifact]:
    """The artifacts that a process made: its steps, and what they need that is no step of another process."""
    found, todo = [], list(process.steps)
    while todo:
        name = todo.pop()
        artifact = made.get(name)
        if artifact and artifact not in found and process.start <= artifact.end <= process.end + 1:
            found.append(artifact)
            todo += [needed for needed in artifact.inputs if needed not in others]
    return found


def _uses(run: Path, artifact: Artifact) -> dict[str, float]:
    """The seconds of an artifact, by their use."""
    if artifact.name == BOOK:
        return {"pages": artifact.seconds}
    if artifact.name.startswith(CHAPTER):
        notebook = run / artifact.name / f"{artifact.name.removeprefix(CHAPTER)}.ipynb"
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        timed = [cell["metadata"].get("papermill", {}).get("duration") for cell in cells if cell["cell_type"] == "code"]
        first, rest = _first_and_rest([seconds or 0.0 for seconds in timed])
        return {"imports": first, "cells": rest, "kernels": max(0.0, artifact.seconds - first - rest)}
    log = run / artifact.name / "log.json"
    logged = json.loads(log.read_text(encoding="utf-8")) if log.exists() else []
    loop = sum(entry.get("train_runtime", 0.0) for entry in logged) or artifact.seconds
    return {"work": loop, "trainer": max(0.0, artifact.seconds - loop)}


def _first_and_rest(seconds: list[float]) -> tuple[float, float]:
    """The seconds of the first cell that takes any time to speak of, after the cells of parameters, and of the rest."""
    first = next((at for at, taken in enumerate(seconds) if taken > 0.1), 0)
    return seconds[first], sum(seconds) - seconds[first]


def _begun(log: Path) -> float:
    """When Snakemake began, from the name of its log: local time to the microsecond."""
    stamp = log.name.removesuffix(".snakemake.log")
    whole, _, rest = stamp.partition(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H%M%S")) + float(f"0.{rest or 0}")


if __name__ == "__main__":
    print(table(shares(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED)))
