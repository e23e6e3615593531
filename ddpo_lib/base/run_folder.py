"""The run folder: artifacts, their manifests, and which artifacts are stale.

`runs/<name>/<artifact>/` holds the files of one artifact and its `manifest.json`. An artifact's *key* is a hash of
its parameters, of the code that makes it (`code_keys`), and of the keys of its inputs. An artifact is fresh if its
manifest contains that key. A stale or missing artifact is made in `.partial/` and then moved into place whole. So a
killed process leaves no incomplete artifact, and a step that keeps checkpoints continues from them. What a killed
process left in `.partial/` is removed when the artifact is made. If another run in the same folder has an artifact with
the same key, this run takes it over and does not make it again.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from filelock import Timeout

from ddpo_lib.base import gpus
from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.files import file_hash, read_mapping, sync, write_json
from ddpo_lib.base.locks import lease

log = logging.getLogger(__name__)

LIBRARY = Path(__file__).parents[1]
STATUS = Path("/proc/self/status")  # what Linux tells of a process
VERSIONS = ("torch", "transformers", "trl", "peft", "sentence-transformers", "scikit-learn", "numpy", "pandas")


@dataclass(frozen=True)
class Step:
    """One artifact: what it is made from and how.

    Attributes:
        name: of the artifact and its folder.
        make: called with the folder to fill and the `Run`. The folder may contain files of an interrupted call.
        inputs: names of the artifacts that `make` reads.
        params: JSON values that `make` depends on.
        files: files that `make` reads, besides those that the library's code names.
        notebook: a notebook that `make` executes.
        unused: modules that `make` could reach but does not reach with these parameters.
        job: whether the workflow starts a process for this step. The process that needs any other step makes it.
        devices: GPUs that `make` uses at once.
        after: jobs that make an artifact which this job needs and would otherwise make. If both ran at once, this job
            would hold a GPU while it waits. This only orders the workflow; it does not decide what is stale.
        late_params: gives more params, those that take time to compute; called when the artifact's key is needed.
    """

    name: str
    make: Callable[[Path, "Run"], None]
    inputs: tuple[str, ...] = ()
    params: dict = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notebook: Path | None = None
    unused: tuple[str, ...] = ()
    job: bool = False
    devices: int = 1
    after: tuple[str, ...] = ()
    late_params: Callable[[], dict] = dict

    def all_params(self) -> dict:
        return self.params | self.late_params()


class Run:
    """A run folder and the steps that fill it."""

    def __init__(self, folder: Path, steps: dict[str, Step]):
        self.folder = folder
        self.steps = steps
        self._keys: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """The folder of an artifact, made first where it is stale or missing."""
        step = self.steps[name]
        if not self.is_fresh(name):
            for needed in step.inputs:
                self.path(needed)
            self._make(step)
        return self.folder / name

    def json(self, name: str, file: str) -> dict:
        return json.loads((self.path(name) / file).read_text(encoding="utf-8"))

    def table(self, name: str, file: str):
        """A Parquet table of an artifact, as a DataFrame."""
        import pandas as pd

        return pd.read_parquet(self.path(name) / file)

    def manifest(self, name: str) -> dict:
        """What an artifact's manifest says; {} where there is none or it cannot be read."""
        return read_mapping(self.folder / name / "manifest.json")

    def is_fresh(self, name: str) -> bool:
        return self.manifest(name).get("key") == self.key(name)

    def key(self, name: str) -> str:
        """The hash that the artifact has if it is made as the steps now define it."""
        if name not in self._keys:
            step = self.steps[name]
            inputs = {needed: self.key(needed) for needed in step.inputs}
            self._keys[name] = hash_parts(name, step.all_params(), inputs, self.code(name), step.files)
        return self._keys[name]

    def code(self, name: str) -> dict:
        """What the artifact depends on besides its parameters and inputs; see `code_keys.code_key`."""
        step = self.steps[name]
        return code_key(step.make, notebook=step.notebook, unused=step.unused)

    def needed_jobs(self, name: str, others: Collection[str] = ()) -> list[str]:
        """The jobs that a step waits for: its nearest ancestors that the workflow starts as processes, and `after`.
        `others`: steps that the workflow starts as well."""
        jobs: list[str] = []
        for needed in (*self.steps[name].inputs, *self.steps[name].after):
            jobs += [needed] if self.steps[needed].job or needed in others else self.needed_jobs(needed, others)
        return sorted(set(jobs))

    def devices(self, name: str) -> int:
        """GPUs that the process of a job uses at once, for its step or for what it makes because no other job does."""
        step = self.steps[name]
        return max(step.devices, *(self.devices(needed) for needed in step.inputs if not self.steps[needed].job), 1)

    def _make(self, step: Step) -> None:
        key = self.key(step.name)
        aside = self.folder / ".partial" / f"{step.name}-{key[:12]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        with lease(Path(f"{aside}.lock")):
            if self.is_fresh(step.name):  # another process made it while this one waited
                return
            if self._take_over(step.name, key, Path(f"{aside}.twin")):
                return
            if read_mapping(aside / "manifest.json").get("key") != key:  # else a kill left it whole
                self._fill(step, aside)
            self._put_in_place(step.name, aside)
            self._clear(step.name)

    def _fill(self, step: Step, aside: Path) -> None:
        """Make an artifact in a folder beside its place; the manifest comes last, when all else is on disk."""
        log.info("making %s", step.name)
        aside.mkdir(exist_ok=True)
        start = time.monotonic()
        step.make(aside, self)
        manifest = {
            "name": step.name,
            "key": self.key(step.name),
            "params": step.all_params(),
            "inputs": {needed: self.key(needed) for needed in step.inputs},
            "code": self.code(step.name),
            "seconds": round(time.monotonic() - start, 1),
            "peak_memory_gb": round(peak_memory() / 2**30, 2),
            **surroundings(),
        }
        sync(aside)
        write_json(aside / "manifest.json", manifest)
        log.info("made %s in %.0f s", step.name, manifest["seconds"])

    def _take_over(self, name: str, key: str, aside: Path) -> bool:
        """Take over an artifact with that name and key from another run in the same folder, if there is one.

        Returns whether there was one.
        """
        for beside in sorted(self.folder.parent.iterdir()):
            if beside == self.folder or Run(beside, {}).manifest(name).get("key") != key:
                continue
            shutil.rmtree(aside, ignore_errors=True)  # a kill may have left it
            try:
                shutil.copytree(beside / name, aside, copy_function=_link)
                whole = read_mapping(aside / "manifest.json").get("key") == key
            except OSError:  # the other run is replacing it
                whole = False
            if whole:
                self._put_in_place(name, aside)
                log.info("took %s over from %s", name, beside)
                return True
        return False

    def _put_in_place(self, name: str, aside: Path) -> None:
        final, old = self.folder / name, Path(f"{aside}.old")
        shutil.rmtree(old, ignore_errors=True)  # a kill may have left it
        if final.exists():
            final.replace(old)
        aside.replace(final)
        shutil.rmtree(old, ignore_errors=True)

    def _clear(self, name: str) -> None:
        """Remove what kills left of an artifact that is made now, under other keys; what is being made stays."""
        of = re.compile(rf"({re.escape(name)}-[0-9a-f]{{12}})(\.\w+)?")
        found = [match for path in (self.folder / ".partial").iterdir() if (match := of.fullmatch(path.name))]
        for left in {match[1] for match in found}:
            try:
                own = left == f"{name}-{self.key(name)[:12]}"  # locked by the caller
                with nullcontext() if own else lease(self.folder / ".partial" / f"{left}.lock").acquire(timeout=1):
                    for kind in ("", ".twin", ".old"):
                        shutil.rmtree(self.folder / ".partial" / f"{left}{kind}", ignore_errors=True)
            except Timeout:  # another process makes it
                continue


def hash_parts(name: str, params: dict, inputs: dict, code: dict, files: Collection[Path]) -> str:
    """The key of an artifact, from what it depends on.

    Args:
        name, params: as in `Step`.
        inputs: the key of each input, by name.
        code: as `code_keys.code_key` gives it.
        files: files that `make` reads; their bytes count, and their names do not.
    """
    hashes = [file_hash(path) for path in files]
    parts = {"name": name, "params": params, "inputs": inputs, "code": code, "files": hashes}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _link(source: str, target: str) -> None:
    """Make a hard link to a file, or a copy where links are impossible. No artifact changes a file that is in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def surroundings() -> dict:
    """Package versions, git commit and hardware, as a manifest records them; `threads` are those of arithmetic."""
    gpu, used = None, threads()
    if "torch" in sys.modules or gpus.visible():  # importing torch takes seconds
        import torch

        gpu, used = torch.cuda.get_device_name() if torch.cuda.is_available() else None, torch.get_num_threads()
    return {
        "versions": {"python": platform.python_version()} | {v: importlib.metadata.version(v) for v in VERSIONS},
        "commit": _commit(),
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "threads": used, "gpu": gpu},
        "made": time.strftime("%Y-%m-%d"),
    }


def threads() -> int:
    """Threads of arithmetic that this process should use: OMP_NUM_THREADS, or else one per core."""
    return int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or os.cpu_count() or 1)


def peak_memory() -> int:
    """Most bytes that this process has held so far.

    On Linux `getrusage` would start from what its parent held; it is asked where the system tells no peak of this
    process alone, as some sandboxes do not.
    """
    told = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    if told:
        return int(told.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def _commit() -> str | None:
    """The commit of the checkout that contains the library; None if there is no checkout or no git."""
    command = ["git", "-C", str(LIBRARY), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except FileNotFoundError:
        return None


def processor() -> str:
    """The name of the processor's model, or else of its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
