"""Every stage of the work, disturbed: killed, on a full or a read-only disk, with the clock set back, twice at once.

    python -m benchmarks.faults                              every stage and kind of fault: hours on two cores
    python -m benchmarks.faults --stages sft corpus --kinds killed --times 3

A stage runs in a process that has imported the libraries, so that kills (SIGKILL, as the kernel sends when memory is
short) fall into the work. Disks are file systems in memory, which only root can make. `faults.json` in results/faults
has the counts and what went wrong, and `faults.md` is the table that the book shows.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.fault_kinds import KINDS, ended, prepare, start
from benchmarks.fault_stages import STAGES, write_world

RESULTS = Path(__file__).parents[1] / "results" / "faults"
ROOT_ONLY = ("disk full", "read-only")


def main(arguments: list[str] | None = None) -> None:
    from ddpo_lib.base.files import read_mapping, write_json

    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--times", type=int, help="how often each fault is done; default: 20 kills, few of the others")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for faults.json and faults.md")
    parser.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in chosen.kinds if os.geteuid() == 0 or kind not in ROOT_ONLY]
    with tempfile.TemporaryDirectory(dir=chosen.work) as place:
        world = make_world(Path(place))
        for name in chosen.stages:
            done = disturb(name, kinds, chosen.times, chosen.seed, Path(place), world)
            known = read_mapping(chosen.out / "faults.json")  # another process may have added stages
            known[name] = known.get(name, {}) | done
            found = {stage: known[stage] for stage in STAGES if stage in known}
            write_json(chosen.out / "faults.json", found)
            (chosen.out / "faults.md").write_text(report(found), encoding="utf-8")
            print(report(found), flush=True)


def disturb(name: str, kinds: list[str], times: int | None, seed: int, place: Path, world: Path) -> dict:
    """Do the faults to a stage; by kind how often, how often the results were the same, and what was wrong."""
    trial, found = prepare(STAGES[name], place, world), {}
    for kind in kinds:
        fault, usual = KINDS[kind]
        done = list(fault(trial, times or usual, seed))
        wrong = [said for said in done if said]
        found[kind] = {"times": len(done), "equal": len(done) - len(wrong), "wrong": wrong}
        print(f"{name}, {kind}: {len(done) - len(wrong)} of {len(done)}", *wrong, sep="\n  ", flush=True)
    return found


def make_world(place: Path) -> Path:
    world = place / "world"
    shutil.rmtree(world, ignore_errors=True)
    world.mkdir()
    status, said = ended(start(write_world, world, world), world)
    if status:
        raise RuntimeError(said)
    return world


def report(found: dict) -> str:
    """The table: how often a stage was disturbed, and how often the results were those of an undisturbed run."""
    from ddpo_lib.base.run_folder import surroundings

    machine = surroundings()
    lines = [
        "## Faults\n",
        "Each stage below was disturbed and then called again; stages that are missing were not run. A number tells "
        "how often the results were then those of an undisturbed run, with nothing half made left, and how often it "
        "was tried. `python -m benchmarks.faults` "
        f"measures it; here with a model of two layers, {machine['made']}, commit {machine['commit']}.\n",
        "| stage | " + " | ".join(KINDS) + " |",
        "|---" * (len(KINDS) + 1) + "|",
    ]
    for name, kinds in found.items():
        cells = [f"{kinds[kind]['equal']} of {kinds[kind]['times']}" if kind in kinds else "" for kind in KINDS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import ddpo_lib.measures.reward_model
    import ddpo_lib.sampling.engines
    import ddpo_lib.training.train  # noqa: F401, once for all processes

    main()
