"""The embedded model's arms, seeds and temperatures on one GPU, several trainings side by side, without a network.

    python -m benchmarks.study                            the corpus of the package
    python -m benchmarks.study --corpus triplets.jsonl    another corpus

It makes the artifacts of a run of the profile `gpu-study` that its evaluation needs, no worlds and no book, and goes on
where it was stopped. The workflow would start a process an artifact; on a GPU its imports take longer than its work, so
here a few processes make one after another. What came of it lands in `results/gpu/`, where chapter 2 finds it.
"""

import argparse
import gc
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

GOALS = ("evaluation", "fronts")
RESULTS = Path(__file__).parents[1] / "results" / "gpu"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="gpu-study")
    parser.add_argument("--corpus", help="JSONL or Parquet file; default: the corpus of the package")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs")
    parser.add_argument("--processes", type=int, default=8, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what came of it")
    chosen = parser.parse_args(arguments)
    print(study(chosen.profile, chosen.corpus, chosen.runs, chosen.processes, chosen.out))


def study(profile: str, corpus: str | None, runs: Path, processes: int, out: Path) -> Path:
    """Make what is missing, and the file with what came of it; returns that file."""
    from ddpo_lib.pipeline import open_run
    from ddpo_lib.runs import write_json

    begun = time.monotonic()
    run = open_run(profile, corpus, runs)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for wave in waves(run):
            list(pool.map(partial(make, profile, corpus, runs), wave))
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"study-{run.folder.name}.json"
    write_json(file, gather(run) | {"seconds": round(time.monotonic() - begun), "processes": processes})
    return file


def waves(run) -> list[list[str]]:
    """The jobs that the goals need, each in a wave after those that it waits for."""
    depth: dict[str, int] = {}

    def place(job: str) -> int:
        if job not in depth:
            depth[job] = 1 + max(map(place, run.needed_jobs(job)), default=-1)
        return depth[job]

    last = max(map(place, GOALS))
    return [[job for job in depth if depth[job] == d] for d in range(last + 1)]


def make(profile: str, corpus: str | None, runs: Path, job: str) -> None:
    import torch

    from ddpo_lib.pipeline import open_run

    open_run(profile, corpus, runs).path(job)
    gc.collect()  # a trainer is held by its own callbacks
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gather(run) -> dict:
    """The paper's three axes of every arm, their differences and fronts, and the provenance of the evaluation."""
    from ddpo_lib.evaluation import HEADLINE

    results, fronts = run.json("evaluation", "results.json"), run.json("fronts", "fronts.json")
    manifest = run.manifest("evaluation")

    def axes(arms: dict) -> dict:
        return {arm: {measure: values[measure] for measure in HEADLINE} for arm, values in arms.items()}

    return {
        "run": run.folder.name,
        "corpus": run.json("corpus", "report.json")["source"],
        "against": manifest["params"]["evaluation"]["against"],
        "confidence": manifest["params"]["evaluation"]["confidence"],
        "seeds": results["seeds"],
        "quality": {key: run.json("quality", "report.json")[key] for key in ("name", "better_than_chance")},
        "arms": axes(results["arms"]),
        "differences": axes(results["differences"]),
        "fronts": {
            space: {key: found[key] for key in ("hypervolume", "differences", "matched")}
            for space, found in fronts["spaces"].items()
        },
        **{key: manifest[key] for key in ("key", "made", "commit", "hardware", "versions")},
    }


if __name__ == "__main__":
    main()
