"""Training, sampling and embedding on one GPU, side by side with what a user would pick instead, without a network.

    python -m benchmarks.gpu                 a model shaped like Llama-3.1-8B, on one H200-class GPU: 8 minutes at most
    python -m benchmarks.gpu --shape tiny    all of it on a CPU within a minute; its numbers mean nothing

`gpu_shapes` makes the models and the texts, `gpu_training` and `gpu_sampling` measure, and `gpu_tables` writes. Every
measurement is its own process with a time limit. After each, `speed.json` and the tables in `speed.md` are written.
They name the measurements that failed or had no time left; a second run with the same code, versions and GPU makes only
those. With several GPUs, the first is used. The minutes count from the time when the libraries have been read once,
which is slow on a machine that has just started.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from benchmarks.gpu_sampling import EMBEDDING, SAMPLINGS, embed, sample
from benchmarks.gpu_shapes import SHAPES, Shape
from benchmarks.gpu_tables import report
from benchmarks.gpu_training import STOCK, TRAININGS, WEIGHTING, train, weigh

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
LIMIT = 150  # seconds a measurement
MINUTES = 7.5  # for all of them, once the libraries have been read from disk


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for speed.json and speed.md")
    chosen = parser.parse_args(arguments)
    print(report(measure_all(chosen.shape, chosen.out)))


def names() -> list[str]:
    return [*list(TRAININGS)[:3], EMBEDDING, WEIGHTING, *list(TRAININGS)[3:], *SAMPLINGS]


def measure_all(shape: str, folder: Path) -> dict:
    """Every measurement, each in its own process; `speed.json` and `speed.md` in `folder` after each."""
    from ddpo_lib.base.files import write_json

    folder.mkdir(parents=True, exist_ok=True)
    content = begun(shape, folder / "speed.json")
    measured = content["measured"]
    missing = [name for name in names() if name not in measured]
    with tempfile.TemporaryDirectory() as cache:  # the reference's log-probabilities, which contenders share
        if missing:  # on a machine that has just started, the first to import the libraries waits for its disk
            measure_apart("tiny", STOCK, LIMIT, cache)
        until = time.monotonic() + 60 * MINUTES
        for name in missing:
            measured[name] = measure_apart(shape, name, min(LIMIT, until - time.monotonic()), cache)
            write_json(folder / "speed.json.new", content)
            (folder / "speed.json.new").replace(folder / "speed.json")  # a kill leaves the old one or the new one
            (folder / "speed.md").write_text(report(content), encoding="utf-8")
            print(name, measured[name].get("failed", "measured"), sep=": ", flush=True)
    return content


def begun(shape: str, file: Path) -> dict:
    """What an earlier run left, without what failed; a new beginning where shape, code, versions or GPU are others."""
    from ddpo_lib.base.run_folder import surroundings

    content = {
        "shape": shape,
        **asdict(SHAPES[shape]),
        **surroundings(),
        "code": code("benchmarks", "ddpo_lib"),
        "measured": {},
    }
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    same = [key for key in content if key not in ("made", "commit", "hardware", "measured")]
    if any(before.get(key) != content[key] for key in same) or before["hardware"]["gpu"] != content["hardware"]["gpu"]:
        return content
    return before | {"measured": {name: made for name, made in before["measured"].items() if "failed" not in made}}


def code(*folders: str) -> str:
    """Hash of the code in folders of the project: a commit changes with the results, and is not known without git."""
    files = sorted(file for folder in folders for file in (RESULTS.parents[1] / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def measure_apart(shape: str, name: str, limit: float, cache: str) -> dict:
    """What `measure` gives in a process of its own, or under "failed" why there is nothing."""
    import torch

    if limit <= 0:
        return {"failed": f"no time was left of {MINUTES:g} minutes"}
    processes = get_context("forkserver")
    # a process that has touched a GPU must not fork; without one, libraries that are there already save time
    processes.set_forkserver_preload(
        [] if torch.cuda.is_available() else ["ddpo_lib.training.train", "trl.experimental.orpo"]
    )
    here, there = processes.Pipe(duplex=False)
    work = processes.Process(target=send_measure, args=(there, SHAPES[shape], name, cache))
    work.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else {"failed": f"not done within {limit:.0f} s"}
    except EOFError:
        work.join()
        return {"failed": f"its process ended with status {work.exitcode}"}
    finally:
        work.kill()
        work.join()


def send_measure(there, shape: Shape, name: str, cache: str) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    take_one_gpu()
    try:
        there.send(measure(shape, name))
    except Exception as error:  # whatever it is, it is told beside the numbers of the others
        there.send({"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]})
        raise


def take_one_gpu() -> None:
    """Before torch is imported: on several, TRL's trainers want a process for each."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def measure(shape: Shape, name: str) -> dict:
    if name in TRAININGS:
        return train(shape, TRAININGS[name])
    if name in SAMPLINGS:
        return sample(shape, SAMPLINGS[name])
    return {EMBEDDING: embed, WEIGHTING: weigh}[name](shape)


if __name__ == "__main__":
    main()
