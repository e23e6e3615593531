"""Processes that make a run's artifacts: a few beside this one, or those of Snakemake, here or on a cluster."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.extras import require
from ddpo_lib.cli.options import Runs


def make_apart(steps: Sequence[str], profile: str, corpus: str | None, runs: Path, gpus: list[str]) -> None:
    """Make artifacts in a process of its own, which frees its memory at the end."""
    command = [sys.executable, "-m", "ddpo_lib.cli", "make", *steps, f"--profile={profile}", f"--runs={runs}"]
    command += [f"--corpus={corpus}"] if corpus else []
    command += ["--gpus", ",".join(gpus)] if gpus else []
    status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    if status:
        raise typer.Exit(status)


def cluster_options(executor: str, jobs: int) -> list[str]:
    """Options of Snakemake that send its jobs to a cluster."""
    from ddpo_lib.runs.pipeline import PROJECT

    if not re.fullmatch(r"[A-Za-z0-9-]+", executor):
        raise InputError(f"--executor {executor}: not the name of an executor; give one such as slurm")
    plugin, settings = f"snakemake-executor-plugin-{executor}", PROJECT / "workflow" / "profiles" / executor
    if importlib.util.find_spec(plugin.replace("-", "_")) is None:
        raise InputError(f"--executor {executor}: {plugin} is not installed; run `pip install {plugin}`")
    if not (settings / "config.yaml").exists():
        raise InputError(f"--executor {executor}: no {settings / 'config.yaml'}; write what a job needs into it")
    return ["--executor", executor, "--jobs", str(jobs), "--workflow-profile", str(settings)]


def snakemake(
    folder: Path,
    profile: str,
    corpus: str | None,
    goal: str,
    cores: int,
    gpus: Sequence[str] = (),
    where: Sequence[str] = (),
) -> None:
    """Make a run's goal and its inputs, as jobs on this machine or on the cluster that `where` names."""
    from ddpo_lib.profiles.profile import absolute
    from ddpo_lib.runs.pipeline import PROJECT

    require("snakemake")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"profile": absolute(profile), "goal": goal, "runs": str(folder.parent), "gpus": ",".join(gpus)}
    settings |= {"corpus": str(Path(corpus).resolve()) if Path(corpus).exists() else corpus} if corpus else {}
    settings |= {"apart": True} if where else {}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "workflow" / "Snakefile")]
    command += ["--configfile", str(_write_settings(folder, settings))]
    command += (
        [*where] if where else ["--cores", str(cores), "--resources", f"gpu={len(gpus)}", "--scheduler", "greedy"]
    )
    command += ["--directory", str(folder), "--nolock", "--rerun-incomplete"]
    command += ["--rerun-triggers", "mtime", "--quiet", "host", "progress", "reason", "rules"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    status = subprocess.run(command, check=False, env={**os.environ, "PATH": path}).returncode
    if status:
        raise typer.Exit(1)


def read(runs: Runs = Path("runs/kept")) -> None:
    """Build the book from the maintainers' run, which is stored with the project: no training, a few minutes."""
    from ddpo_lib.report.book import publish
    from ddpo_lib.runs.pipeline import KEPT_RUN, PROJECT, lay_out_kept_run

    opened = lay_out_kept_run(runs)
    chapters = [name for name in opened.steps if name.startswith("chapter-") and not opened.is_fresh(name)]
    shares = list(filter(None, (chapters[part :: os.cpu_count() or 1] for part in range(os.cpu_count() or 1))))
    with ThreadPoolExecutor(len(shares) or 1) as pool:
        list(pool.map(lambda share: make_apart(share, KEPT_RUN, None, opened.folder.parent, []), shares))
    typer.echo(publish(opened.path("book") / "_build" / "html", PROJECT))


def pdf() -> None:
    """Print the built book as one PDF beside its pages, by Chromium, and link it on the first page."""
    from ddpo_lib.pages.paper import write_pdf
    from ddpo_lib.runs.pipeline import PROJECT

    typer.echo(write_pdf(PROJECT / "book" / "_build" / "html", PROJECT / "book" / "_toc.yml"))


def _write_settings(folder: Path, settings: dict) -> Path:
    """Write the workflow's settings to a file, since Snakemake reads the values of --config as YAML.

    Jobs on a cluster read the file too. Its name is a hash of its content, so that another command for the same run
    does not change the file under them.
    """
    text = json.dumps(settings)
    file = folder / ".workflow" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    file.parent.mkdir(exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)
    return file
