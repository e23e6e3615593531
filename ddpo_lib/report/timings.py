"""A checkout -> the time, memory and disk that a fresh clone of it needs for set-up, the book and the tests."""

import os
import platform
import re
import resource
import subprocess
import time
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import processor, surroundings


def time_clone(project: Path, clone: Path) -> dict:
    """Set up, build the book twice and run the tests in a fresh clone of the checkout's last commit.

    Args:
        project: the checkout.
        clone: for the clone; must not exist.

    Returns:
        A mapping for JSON: `commit`, `made`, `hardware`, `python`; `setup`, `book`, `again` and `tests`, each with
        `seconds` on the clock; what lies in the clone after set-up and what the book adds as `disk_gb`; the most
        memory that one process took as `peak_memory_gb`; and the `number` of tests.

    Raises:
        InputError: the clone is there already, or a command fails.
    """
    if clone.exists():
        raise InputError(f"{clone}: exists; give a folder that is not there yet")
    _clocked(["git", "clone", "--quiet", str(project), str(clone)])
    made = {"setup": {"seconds": _clocked(["make", "setup"], clone)[0]}}
    made["setup"]["disk_gb"] = _disk(clone)
    made["book"] = {"seconds": _clocked(["make", "book"], clone)[0]}
    made["book"]["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2)
    made["book"]["disk_gb"] = round(_disk(clone) - made["setup"]["disk_gb"], 2)
    made["again"] = {"seconds": _clocked(["make", "book"], clone)[0]}
    seconds, output = _clocked(["make", "test"], clone)
    made["tests"] = {"seconds": seconds, "number": int(re.search(r"(\d+) passed", output)[1])}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"] if platform.system() == "Linux" else platform.platform()
    hardware = {"processor": processor(), "cores": os.cpu_count(), "memory_gb": round(memory, 1), "system": system}
    about = {"commit": surroundings()["commit"], "made": time.strftime("%Y-%m-%d"), "hardware": hardware}
    return about | {"python": platform.python_version()} | made


def _clocked(command: list[str], folder: Path | None = None) -> tuple[float, str]:
    """Run a command; its seconds and what it printed."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stdout[-2000:] + done.stderr[-2000:]
        raise InputError(f"{' '.join(command)} in {folder}: status {done.returncode}\n{said}")
    return round(time.monotonic() - start, 1), done.stdout


def _disk(folder: Path) -> float:
    """GB in a folder; a file with several names counts once."""
    files = {(s.st_dev, s.st_ino): s.st_size for f in folder.rglob("*") if f.is_file() for s in [f.stat()]}
    return round(sum(files.values()) / 2**30, 2)
