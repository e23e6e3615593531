"""Choose the GPUs that a process of the workflow runs on: of a list, those that no other process of the run holds."""

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
def held(gpus: list[str], folder: Path, number: int = 1) -> Iterator[None]:
    """Let this process see only the first GPUs of the list that are free. If too few are free, wait.

    A process that is killed releases its GPUs.

    Args:
        gpus: as `visible` gives them. Two processes can hold a GPU that is listed twice. Empty: no GPU is held, and the
            process sees all of them.
        folder: folder of the locks, the same for all processes of a run.
        number: how many GPUs; at most as many as are listed are held.
    """
    if not gpus:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{quote(gpu, safe='')}-{gpus[:place].count(gpu)}.lock" for place, gpu in enumerate(gpus)]
    locks = [FileLock(folder / name) for name in names]
    while not (places := _free(locks, min(number, len(gpus)))):
        time.sleep(1)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    # read by torch when it first looks for a GPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place] for place in places)
    try:
        yield
    finally:
        for place in places:
            locks[place].release()
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _free(locks: list[FileLock], number: int) -> list[int]:
    """The places of the first locks that are free, now held; none if they are fewer than `number`."""
    taken = []
    for place, lock in enumerate(locks):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        taken.append(place)
        if len(taken) == number:
            return taken
    for place in taken:  # two processes that each held a part would wait for each other
        locks[place].release()
    return []
