"""Weights of 10^5, 10^6 and 10^7 synthetic responses through the commands of a cluster: divide, weights, merge.

    python -m benchmarks.scale                            all sizes: about an hour on one core, 20 GB of disk
    python -m benchmarks.scale 100000                     one size
    python -m benchmarks.scale 1000000 --part 1000000     other parts
    python -m benchmarks.scale --divide-only 1000000 --part 1000
    python -m benchmarks.scale --encoders                 only the speed of encoders

It measures whether time is linear and memory flat: seconds, core-seconds, the peak memory of the largest process and
the bytes on disk of each command. Then it checks the one table that comes out. It takes too long for `make bench`.

Both spaces are `delta`, the cheapest that the library has: 150 function words are counted, without a model, in one
pass for both spaces. What other encoders need is measured by itself. `scale.json` in results/scale has the numbers and
the plan that follows from them, and book/cluster.md shows both.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.scale_corpus import check_table, sample_texts, write_corpus
from benchmarks.scale_plan import PLANNED, plan, report, report_plan
from ddpo_lib.base.files import read_mapping

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "results" / "scale"
PAGE = PROJECT / "book" / "cluster.md"
COMMAND_COST = Path(__file__).with_name("command_cost.py")
SIZES = (100_000, 1_000_000, 10_000_000)
PART = 100_000  # responses of a part, on average
SPACE = "delta"
ENCODERS = ("delta", "stylometric", "lexical", "minilm")
TEXTS = 2000  # whose embedding is timed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=int, help="numbers of responses")
    parser.add_argument("--part", type=int, default=PART, help="responses of a part, on average")
    parser.add_argument("--jobs", type=int, default=1, help="shards at once")
    parser.add_argument("--seed", type=int, default=0, help="of the corpus")
    parser.add_argument("--divide-only", action="store_true", help="measure `ddpo divide` alone")
    parser.add_argument("--encoders", action="store_true", help="measure the speed of encoders alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for scale.json")
    parser.add_argument("--work", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are written")
    chosen = parser.parse_args(arguments)
    sizes = [] if chosen.encoders else chosen.sizes or SIZES
    steps = divide_alone if chosen.divide_only else all_commands
    with TemporaryDirectory(dir=chosen.work) as place:
        for size in sizes:
            found = measure(steps, size, chosen.part, chosen.jobs, chosen.seed, Path(place))
            keep(chosen.out, chosen.page, runs={f"{size} in {found['parts']}": found})
        if not chosen.sizes:
            keep(chosen.out, chosen.page, encoders={name: apart(speed, name, chosen.seed) for name in ENCODERS})


def keep(folder: Path, page: Path, **new: dict) -> None:
    """Add results to scale.json, each with its date and commit; write the plan and the page anew."""
    from ddpo_lib.base.files import read_mapping, write_json
    from ddpo_lib.base.run_folder import surroundings

    folder.mkdir(parents=True, exist_ok=True)
    found, about = read_mapping(folder / "scale.json"), surroundings()
    found["versions"], found["hardware"] = about["versions"], about["hardware"]
    when = {"made": about["made"], "commit": about["commit"]}
    for kind, results in new.items():
        found[kind] = found.get(kind, {}) | {name: result | when for name, result in results.items()}
    found["plan"] = plan(found, PLANNED)
    write_json(folder / "scale.json", found)
    write_page(page, read_mapping(folder / "scale.json"))


def measure(steps, responses: int, part: int, jobs: int, seed: int, work: Path) -> dict:
    """Write a corpus of so many responses, run the commands on it, and remove both.

    Returns:
        A mapping for JSON: the numbers of `responses`, `prompts` and `parts`, the `bytes` of the corpus; `commands`,
        the cost of each as `run` gives it, with the `bytes` that it wrote; and `checked`, as from `check_table`.
    """
    work = work / str(responses)
    work.mkdir()
    try:
        corpus, parts = work / "corpus.jsonl", -(-responses // part)
        start = time.monotonic()
        sizes = apart(write_corpus, corpus, responses, seed)
        print(f"{responses} responses to {len(sizes)} prompts written in {time.monotonic() - start:.0f} s", flush=True)
        about = {"responses": responses, "prompts": len(sizes), "parts": parts, "bytes": corpus.stat().st_size}
        return about | {"jobs": jobs, "seed": seed, "space": SPACE} | steps(corpus, parts, jobs, sizes, work)
    finally:
        shutil.rmtree(work)


def divide_alone(corpus: Path, parts: int, jobs: int, sizes, work: Path) -> dict:
    done = run(["divide", str(corpus), str(work / "parts"), "--parts", str(parts)], work)
    return {"commands": {"divide": done | {"bytes": disk(work / "parts")}}}


def all_commands(corpus: Path, parts: int, jobs: int, sizes, work: Path) -> dict:
    found = divide_alone(corpus, parts, jobs, sizes, work)["commands"]
    corpus.unlink()
    (work / "shards").mkdir()
    start = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        shards = list(pool.map(partial(weigh, parts, work), range(1, parts + 1)))
    found["weights"] = together(shards) | {
        "seconds": round(time.monotonic() - start, 1),
        "bytes": disk(work / "shards"),
    }
    print("weights", found["weights"], flush=True)
    out, tables = work / "weights.parquet", sorted((work / "shards").glob("*.parquet"))
    found["merge"] = run(["merge", str(out), *map(str, tables)], work) | {"bytes": out.stat().st_size}
    return {"commands": found, "checked": apart(check_table, out, sizes)}


def weigh(parts: int, work: Path, k: int) -> dict:
    """One shard."""
    words = ["weights", str(work / "parts"), str(work / "shards" / f"{k:04d}.parquet"), "--shard", f"{k}/{parts}"]
    return run([*words, "--semantic", SPACE, "--style", SPACE], work)


def together(shards: list[dict]) -> dict:
    """The cost of all shards: the core-seconds of all, and the most that one of them needs of all else."""
    return {
        "core_seconds": round(sum(one["core_seconds"] for one in shards), 1),
        "core_seconds_of_the_longest": max(one["core_seconds"] for one in shards),
        "peak_mb": max(one["peak_mb"] for one in shards),
    }


def run(words: list[str], work: Path) -> dict:
    """Run a `ddpo` command on one thread: `seconds` on the clock, `core_seconds`, and `peak_mb` of its process.

    Raises:
        RuntimeError: the command fails; the message is its own.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "OMP_NUM_THREADS": "1"}
    base, start = work / f"{words[0]}-{time.monotonic_ns()}", time.monotonic()
    said, cost = base.with_suffix(".log"), base.with_suffix(".json")
    with said.open("wb") as log:
        command = [sys.executable, COMMAND_COST, cost, sys.executable, "-m", "ddpo_lib.cli", *words]
        status = subprocess.run(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, check=False).returncode
    if status:
        raise RuntimeError(f"ddpo {' '.join(words)[:500]}: status {status}\n{said.read_text()[-2000:]}")
    used = read_mapping(cost)
    done = {
        "seconds": round(time.monotonic() - start, 1),
        "core_seconds": round(used["core_seconds"], 1),
        "peak_mb": round(used["peak_bytes"] / 2**20),
    }
    said.unlink()
    cost.unlink()
    print(" ".join(words[:1] + words[3:5]) if words[0] != "merge" else "merge", done, flush=True)
    return done


def apart(work, *arguments):
    """Call a function in a process of its own, so that this one stays small while commands run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(work, *arguments).result()


def speed(name: str, seed: int) -> dict:
    """Texts of the synthetic corpus that one core embeds per second in a space, and the bytes of a vector."""
    with TemporaryDirectory() as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
        from ddpo_lib.spaces.embed import embed

        texts = sample_texts(TEXTS + 1, seed)
        embed(texts[:1], name)  # loads what it needs
        start = time.process_time()
        vectors = embed(texts[1:], name)
        seconds = time.process_time() - start
    found = {"texts_per_core_second": round(TEXTS / seconds, 1), "bytes": 4 * vectors.shape[1]}
    print(name, found, flush=True)
    return found


def disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def write_page(page: Path, found: dict) -> None:
    """Write the tables between their marks in a page."""
    text = page.read_text(encoding="utf-8")
    for mark, table in (("scale", report(found)), ("plan", report_plan(found))):
        marked = re.compile(f"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.S)
        text = marked.sub(lambda at, table=table: at[1] + table + at[2], text)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
