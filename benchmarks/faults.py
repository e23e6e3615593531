"""Kills every stage of the work at random moments, and compares what the next call makes with an undisturbed run.

    python -m benchmarks.faults                              every stage, 20 kills each: about an hour on two cores
    python -m benchmarks.faults --stages sft corpus --kills 3

A stage is killed with SIGKILL, as a power failure or the kernel does when memory is short, in a process that has
imported the libraries, so that the moments fall into the work. Then the same call runs to its end. Its results must
equal those of an undisturbed run, and nothing that is half made may be left. `faults.json` has the counts, and
`faults.md` is the table.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.fault_results import differences, leftovers, read_results
from benchmarks.fault_stages import STAGES, Stage, write_world

RESULTS = Path(__file__).parents[1] / "results" / "faults"
KILLS = 20
LONGEST = 600  # seconds that a stage may take


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--kills", type=int, default=KILLS, help="per stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for faults.json and faults.md")
    parser.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.work) as place:
        for name in chosen.stages:
            print(kill(STAGES[name], chosen.kills, chosen.seed, Path(place)), flush=True)


def kill(stage: Stage, kills: int, seed: int, place: Path) -> dict:
    """Kill a stage that often, each time in a new folder, and count the results that equal an undisturbed run's."""
    world, inputs = open_world(place), place / f"inputs of {stage.name}"
    inputs.mkdir()
    finish(start(stage.prepare, inputs, world), inputs)
    whole = fresh(inputs, place / "whole")
    seconds = finish(start(stage.work, whole, world), whole)
    wanted = read_results(whole, stage.results)
    moments, killed, equal, faults = random.Random(f"{seed} {stage.name}"), 0, 0, []
    while killed < kills:
        folder = fresh(inputs, place / "killed")
        after = moments.uniform(0, seconds)
        if not interrupt(start(stage.work, folder, world), after):
            continue  # it had ended before
        killed += 1
        try:
            finish(start(stage.work, folder, world), folder)
        except RuntimeError as error:
            faults.append(f"after {after:.2f} s: {error}")
            continue
        wrong = differences(read_results(folder, stage.results), wanted)
        left = [name for name in leftovers(folder) if name not in leftovers(whole)]
        equal += not wrong and not left
        faults += [
            f"after {after:.2f} s: {kind} {names}" for kind, names in (("differs", wrong), ("left", left)) if names
        ]
    shutil.rmtree(inputs)
    return {"stage": stage.name, "seconds": round(seconds, 1), "kills": killed, "equal": equal, "faults": faults}


def open_world(place: Path) -> Path:
    world = place / "world"
    if not world.exists():
        world.mkdir()
        finish(start(write_world, world, world), world)
    return world


def fresh(inputs: Path, folder: Path) -> Path:
    """A new copy of the inputs."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(inputs, folder))


def start(work, folder: Path, world: Path) -> int:
    """Begin work in a process of its own, in a folder and with a cache of its own; returns the process's id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        with (folder.parent / f"{folder.name}.log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
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


def interrupt(pid: int, after: float) -> bool:
    """Kill a process and what it started after some seconds; returns whether it was still at work."""
    until = time.monotonic() + after
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def finish(pid: int, folder: Path) -> float:
    """Wait until a process has ended; returns the seconds.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    begun = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        said = (folder.parent / f"{folder.name}.log").read_text(errors="replace")
        raise RuntimeError(f"status {status}: {said[-2000:]}")
    return time.monotonic() - begun


if __name__ == "__main__":
    import ddpo_lib.measures.reward_model
    import ddpo_lib.sampling.engines
    import ddpo_lib.training.train  # noqa: F401, once for all processes

    main()
