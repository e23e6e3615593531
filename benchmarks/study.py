"""The embedded model's arms, seeds and temperatures on one GPU, several trainings side by side, without a network.

    python -m benchmarks.study                            the corpus of the package
    python -m benchmarks.study --corpus triplets.jsonl    another corpus

It makes the artifacts of the profile `gpu-study` that the evaluation needs, without worlds and book. After an
interruption it resumes. The workflow would start one process per artifact, whose imports take longer than the work on a
GPU. Here a few processes make the artifacts one after another. The result is written to `results/gpu/`, where chapter 2
reads it.

If a machine with a GPU is available only for minutes and its disk is not kept, an archive carries the texts, and a kill
loses only the work in progress. Run the first line on such machines, as often as needed, and the second on any machine,
without a GPU:

    python -m benchmarks.study --archive samples.tar.gz --until samples
    python -m benchmarks.study --archive samples.tar.gz
"""

import argparse
import gc
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.gpu import RESULTS, code, take_one_gpu

GOALS = ("evaluation", "fronts")
TEXTS = ("samples-", "sweep-")  # how the names of artifacts begin that hold what models wrote
WORK = "work.json"  # in an archive, which study it is of


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="gpu-study")
    parser.add_argument("--corpus", help="JSONL or Parquet file; default: the corpus of the package")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs")
    parser.add_argument("--processes", type=int, default=8, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what came of it")
    parser.add_argument("--until", choices=["samples", "evaluation"], default="evaluation", help="where to end")
    parser.add_argument("--archive", type=Path, help="keep the texts in this file as they come; go on from it if there")
    chosen = parser.parse_args(arguments)
    take_one_gpu()
    print(study(**vars(chosen)))


def study(
    profile: str, corpus: str | None, runs: Path, processes: int, out: Path, until: str, archive: Path | None
) -> Path:
    """Make what is missing, and the file with what came of it; returns that file, or the run's folder without it."""
    from ddpo_lib.base.files import write_json
    from ddpo_lib.runs.pipeline import open_run

    run = open_run(profile, corpus, runs)
    work = {"run": run.folder.name, "work": fingerprint(profile, run)}
    if archive and archive.exists():
        unpack(archive, run, work)
    needed = {job for goal in GOALS for job in run.needed_jobs(goal)}
    goals = GOALS if until == "evaluation" else sorted(needed - {"vectors"})  # any machine makes them in a minute
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for wave in waves(run, goals):
            begun = time.monotonic()
            jobs = [pool.submit(make, profile, corpus, runs, job) for job in wave]
            for _ in as_completed(jobs):
                if archive:
                    pack(archive, run, work)
            print(f"{len(wave)} jobs, {wave[0]} to {wave[-1]}: {time.monotonic() - begun:.0f} s", flush=True)
            for job in jobs:
                job.result()  # raises what it raised: only now, so that one that fails does not cost the others
    if until != "evaluation":
        return run.folder
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"study-{run.folder.name}.json"
    write_json(file, gather(run))
    return file


def waves(run, goals=GOALS) -> list[list[str]]:
    """The jobs to do before the goals are there, each in a wave after those that it waits for."""
    depth: dict[str, int] = {}

    def place(job: str) -> int:
        if run.is_fresh(job):  # and nothing that it was made from is needed again
            return -1
        if job not in depth:
            depth[job] = 1 + max(map(place, run.needed_jobs(job)), default=-1)
        return depth[job]

    last = max(map(place, goals))
    return [[job for job in depth if depth[job] == d] for d in range(last + 1)]


def make(profile: str, corpus: str | None, runs: Path, job: str) -> None:
    import torch

    from ddpo_lib.runs.pipeline import open_run

    open_run(profile, corpus, runs).path(job)
    gc.collect()  # a trainer is held by its own callbacks
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ancestors(run) -> list[str]:
    """The goals and all that they stand on."""
    todo, seen = list(GOALS), set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += run.steps[name].inputs
    return sorted(seen)


def fingerprint(profile: str, run) -> str:
    """Hash of the code, the profile and the corpus. An artifact's key tells all that as well, but another version of
    Python, such as that of a lent machine, gives the same work another key."""
    from ddpo_lib.profiles.profile import load_profile

    files = run.steps["corpus"].files  # none of a hub data set
    said = code("ddpo_lib") + load_profile(profile).model_dump_json()
    return hashlib.sha256(said.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def pack(archive: Path, run, work: dict) -> None:
    """The texts that are there, and all manifests: what the evaluation needs, and what is told of the rest."""
    aside = archive.with_name(archive.name + ".new")
    with tarfile.open(aside, "w:gz", compresslevel=1) as tar:
        said = json.dumps(work).encode()
        about = tarfile.TarInfo(WORK)
        about.size = len(said)
        tar.addfile(about, io.BytesIO(said))
        for name in ancestors(run):
            if name.startswith(TEXTS) and run.is_fresh(name):
                tar.add(run.folder / name, name)
            elif run.manifest(name) and not name.startswith(TEXTS):
                tar.add(run.folder / name / "manifest.json", f"{name}/manifest.json")
    aside.replace(archive)


def unpack(archive: Path, run, work: dict) -> None:
    """Put in place what `pack` kept. The texts are fresh then; of the rest there are manifests, and no more.

    Raises:
        InputError: the archive is of another profile, corpus or state of the code.
    """
    from ddpo_lib.base.errors import InputError
    from ddpo_lib.base.files import write_json

    run.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.folder) as place, tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
        if json.loads((Path(place) / WORK).read_text(encoding="utf-8")) != work:
            raise InputError(
                f"{archive}: its texts are of another run than {run.folder.name}, or were made by other code, another "
                "profile or from another corpus; take those that it was made with, or another file"
            )
        for kept in sorted(Path(place).glob("*/")):
            if run.is_fresh(kept.name):
                continue
            manifest = json.loads((kept / "manifest.json").read_text(encoding="utf-8"))
            manifest["key"] = run.key(kept.name) if kept.name.startswith(TEXTS) else None
            write_json(kept / "manifest.json", manifest)
            shutil.rmtree(run.folder / kept.name, ignore_errors=True)
            kept.replace(run.folder / kept.name)


def gather(run) -> dict:
    """The paper's three axes of every arm, their differences and fronts; the provenance of the texts, and the seconds
    that all artifacts took, some of them side by side."""
    from ddpo_lib.evaluation.compare_arms import HEADLINE

    results, fronts = run.json("evaluation", "results.json"), run.json("fronts", "fronts.json")
    manifest = run.manifest("evaluation")
    settings = manifest["params"]
    wrote = run.manifest(f"samples-{settings['against']}")
    gpus = {run.manifest(name)["hardware"]["gpu"] for name in ancestors(run) if name.startswith(TEXTS)}

    def axes(arms: dict) -> dict:
        return {arm: {measure: values[measure] for measure in HEADLINE} for arm, values in arms.items()}

    return {
        "run": run.folder.name,
        "corpus": run.json("corpus", "report.json")["source"],
        "against": settings["against"],
        "twins": results["against"],
        "claims": results["claims"],
        "confidence": settings["confidence"],
        "seeds": results["seeds"],
        "quality": {key: run.json("quality", "report.json")[key] for key in ("name", "better_than_chance")},
        "arms": axes(results["arms"]),
        "differences": axes(results["differences"]),
        "fronts": {
            space: {key: found[key] for key in ("hypervolume", "differences", "matched")}
            for space, found in fronts["spaces"].items()
        },
        "seconds": round(sum(run.manifest(name).get("seconds", 0) for name in ancestors(run))),
        "key": manifest["key"],
        **{key: wrote[key] for key in ("made", "commit", "versions")},
        "hardware": wrote["hardware"] | {"gpu": " and ".join(sorted(gpu or "no GPU" for gpu in gpus))},
    }


if __name__ == "__main__":
    main()
