"""Damaged and strange files for every reader: only `InputError` may come out, and memory must stay bounded.

    python -m benchmarks.fuzz                                  every reader, 200,000 files each: hours on two cores
    python -m benchmarks.fuzz --readers journal --files 5000

With atheris (https://github.com/google/atheris), which is not among the project's packages, files are bred that reach
new lines of the library. Without it they are made by random changes. `fuzz.json` in results/faults has the counts and
the faults, and `fuzz.md` is the table that the book shows.
"""

import argparse
import importlib.util
import json
import logging
import os
import random
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz_readers import READERS, TOKENS, attempt, mutate

RESULTS = Path(__file__).parents[1] / "results" / "faults"
FILES = 200_000
MEMORY = 4096  # MB that a process may take
LONGEST = 8192  # bytes of a file
NOTED = 500  # files between two notes of the count


def main(arguments: list[str] | None = None) -> None:
    from ddpo_lib.base.files import read_mapping, write_json

    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--files", type=int, default=FILES, help="per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for fuzz.json and fuzz.md")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    bred = importlib.util.find_spec("atheris") is not None
    for name in chosen.readers:
        with TemporaryDirectory() as folder:
            notes = Path(folder) / "notes.json"
            process = get_context("spawn").Process(
                target=breed if bred else change, args=(name, chosen.files, chosen.seed, notes)
            )
            process.start()
            process.join()
            noted = read_mapping(notes)
        if noted.get("files", 0) < chosen.files:
            noted["faults"] = noted.get("faults", {}) | {f"the process ended with status {process.exitcode}": 1}
        noted["by"] = "atheris" if bred else "random changes"
        print(name, noted, flush=True)
        found = read_mapping(chosen.out / "fuzz.json") | {name: noted}  # another process may have added readers
        write_json(chosen.out / "fuzz.json", found)
        (chosen.out / "fuzz.md").write_text(report(found), encoding="utf-8")


def breed(name: str, files: int, seed: int, notes: Path) -> None:
    """Read files that atheris breeds. It ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ddpo_lib"]):
        import ddpo_lib.data.corpus
        import ddpo_lib.deviation.weight_shards
        import ddpo_lib.people.judge
        import ddpo_lib.profiles.profile
        import ddpo_lib.sampling.journal
        import ddpo_lib.training.checkpoints  # noqa: F401, instrumented before they are used

    corpus, words = notes.with_name("corpus"), notes.with_name("words")
    corpus.mkdir()
    for number, content in enumerate(READERS[name].seeds):
        (corpus / str(number)).write_bytes(content)
    quoted = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS if len(token) < 64)
    words.write_text("".join(f'"{token}"\n' for token in quoted))
    options = [f"-atheris_runs={files}", f"-seed={seed + 1}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}"]
    options += ["-timeout=60", "-verbosity=0"]
    read = _counted(name, files, notes)
    atheris.Setup([sys.argv[0], str(corpus), f"-dict={words}", f"-artifact_prefix={notes.parent}/", *options], read)
    atheris.Fuzz()


def change(name: str, files: int, seed: int, notes: Path) -> None:
    """Read files that are made by random changes."""
    rng, seeds, read = random.Random(f"{seed} {name}"), READERS[name].seeds, _counted(name, files, notes)
    for _ in range(files):
        read(mutate(rng.choice(seeds), rng, seeds))


def _counted(name: str, files: int, notes: Path) -> Callable[[bytes], None]:
    """Reads a file and notes how many were read, and the faults by their place."""
    logging.disable(logging.CRITICAL)
    os.environ["XDG_CACHE_HOME"] = str(notes.with_name("cache"))
    done, faults = 0, {}

    def read(content: bytes) -> None:
        nonlocal done
        done += 1
        fault = attempt(READERS[name], content)
        if fault:
            known = faults.setdefault(fault.split(": ")[0], {"count": 0, "first": fault, "file": content.hex()[:4000]})
            known["count"] += 1
        if fault or done % NOTED == 0 or done >= files:
            notes.write_text(json.dumps({"files": done, "faults": faults}))

    return read


def report(found: dict) -> str:
    """The table: by reader how many files, and how many ended otherwise than documented."""
    from ddpo_lib.base.run_folder import surroundings

    machine = surroundings()
    lines = [
        "## Damaged files\n",
        "Each reader is given files that are bred or changed at random from a few sound ones. It must read a file or "
        "name the fault; any other end is counted in the last column. `python -m benchmarks.fuzz` measures it; here "
        f"{machine['made']}, commit {machine['commit']}.\n",
        "| reader | files | made by | other ends |",
        "|---|---|---|---|",
    ]
    for name, noted in found.items():
        ends = len(noted.get("faults", {}))
        lines.append(f"| {name} | {noted.get('files', 0):,} | {noted['by']} | {ends} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
