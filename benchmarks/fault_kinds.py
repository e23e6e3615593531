"""What goes wrong on a machine, done to a stage of the work: kills, full and read-only disks, a clock, two at once.

After each fault the same call runs to its end without one. Its results must equal those of an undisturbed run, and no
file of an interrupted call may be left. A fault that stops a command must end it with status 2 and one line that says
what to do.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_results import differences, leftovers, read_results
from benchmarks.fault_stages import Stage

SHARES = (0.0, 0.3, 0.6, 0.9)  # of the space that a stage needs, which a full disk leaves it
PAGE = 4096  # bytes that a small file fills
ROOM = 2**30  # bytes of a disk that is not full
AHEAD = 2 * 86400  # seconds by which files are younger than the clock that was set back


@dataclass(frozen=True)
class Trial:
    """A stage with its inputs and the results of an undisturbed run, and how many seconds that took."""

    stage: Stage
    place: Path
    world: Path
    inputs: Path
    wanted: dict[str, object]
    needed: int  # bytes
    seconds: float

    def start(self, folder: Path) -> int:
        return start(self.stage.work, folder, self.world)

    def finish(self, folder: Path) -> str | None:
        """Run the stage to its end; what is wrong with its results, or None."""
        status, said = ended(self.start(folder), folder)
        if status:
            return f"status {status}: {said[-600:]}"
        if wrong := differences(read_results(folder, self.stage.results), self.wanted):
            return f"differs: {wrong}"
        left = leftovers(folder)
        return f"left: {left}" if left else None


def prepare(stage: Stage, place: Path, world: Path) -> Trial:
    """Make the inputs of a stage, and its results without any fault."""
    inputs, whole = place / "inputs", place / "whole"
    shutil.rmtree(inputs, ignore_errors=True)
    inputs.mkdir()
    status, said = ended(start(stage.prepare, inputs, world), inputs)
    fresh(inputs, whole)
    before, begun = size(whole), time.monotonic()
    if not status:
        status, said = ended(start(stage.work, whole, world), whole)
    if status:
        raise RuntimeError(f"{stage.name}: status {status} without a fault: {said[-2000:]}")
    seconds = time.monotonic() - begun
    return Trial(stage, place, world, inputs, read_results(whole, stage.results), size(whole) - before, seconds)


def kills(trial: Trial, times: int, seed: int) -> Iterator[str | None]:
    """Killed at random moments, each time in a new folder."""
    moments = random.Random(f"{seed} {trial.stage.name}")
    while times:
        folder = fresh(trial.inputs, trial.place / "killed")
        after = moments.uniform(0, trial.seconds)
        if interrupt(trial.start(folder), after):  # else it had ended before
            times -= 1
            found = trial.finish(folder)
            yield found and f"killed after {after:.2f} of {trial.seconds:.2f} s: {found}"


def full_disk(trial: Trial, times: int, seed: int) -> Iterator[str | None]:
    """A disk that becomes full while the stage writes."""
    for share in SHARES[:times]:
        with disk(trial) as (folder, limit):
            limit(f"size={PAGE + size(folder) + int(share * trial.needed)}")
            found = refused(trial.start(folder), folder)
            limit(f"size={ROOM}")
            found = found or trial.finish(folder)
            yield found and f"full at {share:.0%}: {found}"


def read_only(trial: Trial, times: int, seed: int) -> Iterator[str | None]:
    """A disk that cannot be written."""
    with disk(trial) as (folder, limit):
        limit("ro")
        found = refused(trial.start(folder), folder)
        limit("rw")
        yield found or trial.finish(folder)


def clock_set_back(trial: Trial, times: int, seed: int) -> Iterator[str | None]:
    """Killed, and then the clock is set back, so that every file is younger than the time."""
    moments = random.Random(f"{seed} clock {trial.stage.name}")
    for _ in range(times):
        folder = fresh(trial.inputs, trial.place / "killed")
        after = moments.uniform(0, trial.seconds)
        interrupt(trial.start(folder), after)
        later = time.time() + AHEAD
        for path in folder.rglob("*"):
            os.utime(path, (later, later), follow_symlinks=False)
        found = trial.finish(folder)
        yield found and f"killed after {after:.2f} s: {found}"


def two_at_once(trial: Trial, times: int, seed: int) -> Iterator[str | None]:
    """Two processes in one folder: one makes the results; the other waits for them or ends with a message."""
    for _ in range(times):
        folder = fresh(trial.inputs, trial.place / "shared")
        pids = [trial.start(folder) for _ in range(2)]
        found = [ended(pid, folder) for pid in pids]
        statuses, said = sorted(status for status, _ in found), found[-1][1]
        wrong = differences(read_results(folder, trial.stage.results), trial.wanted)
        fine = statuses in ([0, 0], [0, 2]) and "Traceback" not in said and not wrong and not leftovers(folder)
        yield None if fine else f"statuses {statuses}, differs {wrong}, left {leftovers(folder)}: {said[-600:]}"


KINDS: dict[str, tuple[Callable, int]] = {  # name -> what is done, and how often
    "killed": (kills, 20),
    "disk full": (full_disk, len(SHARES)),
    "read-only": (read_only, 1),
    "clock set back": (clock_set_back, 2),
    "two at once": (two_at_once, 2),
}


# Processes and folders


def fresh(inputs: Path, folder: Path) -> Path:
    """A new copy of the inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(inputs, folder))


def size(folder: Path) -> int:
    """Bytes of memory pages that the files of a folder fill; folders and short links fill none."""
    sizes = (path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(-(-each // PAGE) * PAGE for each in sizes)


@contextmanager
def disk(trial: Trial):
    """A disk with a copy of the inputs, and what changes its options: a file system in memory, which needs root."""
    place = trial.place / "disk"
    place.mkdir(exist_ok=True)

    def limit(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)], check=True)
    try:
        yield Path(shutil.copytree(trial.inputs, place, dirs_exist_ok=True)), limit
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def start(work: Callable[[Path], None], folder: Path, world: Path) -> int:
    """Begin work in a process of its own, in a folder and with a cache there; returns the process's id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with suppress(OSError):  # the process may have done it, and may have ended
            os.setpgid(pid, pid)
        return pid
    status = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        log = os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work(world)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _log(folder: Path) -> Path:
    """The file of what is said in a folder, beside it."""
    return folder.with_name(f"{folder.name}.log")


def interrupt(pid: int, after: float) -> bool:
    """Kill a process and what it started after some seconds; returns whether it was still at work."""
    until = time.monotonic() + after
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def ended(pid: int, folder: Path) -> tuple[int, str]:
    """Wait until a process has ended; its status, and what was said in its folder since the last time."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = _log(folder).read_text(errors="replace")
    os.truncate(_log(folder), 0)
    return status, said


def refused(pid: int, folder: Path) -> str | None:
    """Whether a process that could not write ended as it should: with status 2 and a line. None: yes."""
    status, said = ended(pid, folder)
    fine = status == 0 or (status == 2 and "error: " in said and "Traceback" not in said)
    return None if fine else f"status {status}: {said[-600:]}"
