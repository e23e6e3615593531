"""Choose the GPU that a process of the workflow runs on: one of a list that no other process of the run holds."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no NVIDIA driver."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in split(named) if gpu != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def split(gpus: str) -> list[str]:
    """The GPUs that a list such as 0,1 names."""
    return [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]


@contextmanager
def held(gpus: list[str], folder: Path) -> Iterator[None]:
    """Let this process see only one GPU: the first of the list that is free. If none is free, wait.

    A process that is killed releases its GPU.

    Args:
        gpus: as `visible` gives them. Two processes can hold a GPU that is listed twice. Empty: no GPU is held, and the
            process sees all of them.
        folder: folder of the locks, the same for all processes of a run.
    """
    if not gpus:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{quote(gpu, safe='')}-{gpus[:place].count(gpu)}.lock" for place, gpu in enumerate(gpus)]
    locks = [FileLock(folder / name) for name in names]
    while (place := _first_free(locks)) is None:
        time.sleep(1)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place]  # read by torch when it first looks for a GPU
    try:
        yield
    finally:
        locks[place].release()
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _first_free(locks: list[FileLock]) -> int | None:
    for place, lock in enumerate(locks):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return place
    return None
