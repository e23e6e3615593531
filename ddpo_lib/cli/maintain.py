"""Finished runs -> whether they can be made again, what of them nothing needs, and the parts of the project that are
made from them: `results/` and README. `ddpo --help` lists `verify` and `clean`; the other commands are for maintainers.
"""

from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.anonymous import describe_size
from ddpo_lib.cli.doctor import folder_size
from ddpo_lib.cli.options import Corpus, Profile, Runs, examples

app = typer.Typer()


@app.command(epilog=examples("ddpo verify --profile smoke", "ddpo verify --corpus mine.jsonl --seconds 5"))
def verify(
    profile: Profile = "embedded",
    corpus: Corpus = None,
    runs: Runs = Path("runs"),
    seconds: Annotated[float, typer.Option(min=0, help="Artifacts that took longer are not made again.")] = 30.0,
) -> None:
    """Make the cheap artifacts of a run again, aside, and compare: numbers must agree to 1e-5. Changes nothing.

    One line per artifact. The status is 1 if one differs or is out of date. Artifacts that train or sample are not
    made again.
    """
    from ddpo_lib.runs.pipeline import open_run
    from ddpo_lib.runs.verify import verify as verified

    run, passed = open_run(profile, corpus, runs, ask=False), []
    for found in verified(run, seconds):
        typer.echo(f"{found.name}: {found.said}")
        passed.append(found.passed)
    if True not in passed and False not in passed:
        raise InputError(f"{run.folder}: nothing to verify; make the run with `ddpo run`, or raise --seconds")
    typer.echo(f"{passed.count(True)} equal, {passed.count(False)} not, {passed.count(None)} not made again")
    if False in passed:
        raise typer.Exit(1)


@app.command(epilog=examples("ddpo clean", "ddpo clean --profile smoke --yes"))
def clean(
    profile: Profile = "embedded",
    corpus: Corpus = None,
    runs: Runs = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. No other command may run meanwhile.")] = False,
) -> None:
    """List what of a run and of the cache nothing needs any more, with its size; remove it with --yes.

    Listed are artifacts of earlier settings or code, unfinished work that no run continues, and files of earlier
    versions in the cache. Fresh artifacts and people's answers stay. --yes also joins the files of each store of the
    cache into one, which is read faster.
    """
    from ddpo_lib.base.store import Store, cache_folder
    from ddpo_lib.runs import leftovers
    from ddpo_lib.runs.pipeline import open_run

    run = open_run(profile, corpus, runs, ask=False)
    found = leftovers.of_run(run) + leftovers.of_cache()
    total = 0
    for leftover in found:
        size = folder_size(leftover.path) if leftover.path.is_dir() else leftover.path.stat().st_size
        total += size
        typer.echo(f"{leftover.path}: {describe_size(size)}, {leftover.why}")
    if yes:
        leftovers.remove(found)
        for store in leftovers.divided_stores():
            Store(store.name, store.parent).merge()
    done = "removed" if yes else "can be removed with --yes" if found else "nothing to remove"
    typer.echo(f"{describe_size(total)} {done}" if found else done)
    for name, folder in (("this run", run.folder), ("all runs", run.folder.parent), ("the cache", cache_folder())):
        typer.echo(f"{name}: {describe_size(folder_size(folder))} in {folder}")


@app.command(hidden=True)
def keep(
    name: Annotated[str, typer.Argument(help="A folder of results/, such as worlds or measures-hanna.")],
    data: Annotated[Path | None, typer.Option(help="Folder with its corpus, which is not part of the project.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """For maintainers: make the contents of a folder of results/. For `embedded` run `make book` first, and
    `make book-full` for those that need no `--data`."""
    from ddpo_lib.report import kept_run, results
    from ddpo_lib.runs.pipeline import KEPT, KEPT_RUN, PROJECT, open_run, recipe

    if name == KEPT_RUN:
        kept_run.keep(open_run(KEPT_RUN, folder=runs), PROJECT / "results" / name)
        typer.echo(PROJECT / "results" / name)
        return
    if name not in KEPT:
        raise InputError(f"{name}: not kept; there are {', '.join((*KEPT, KEPT_RUN))}")
    profile, artifact, corpus = KEPT[name]
    if corpus and data is None:
        raise InputError(f"{name}: made from {corpus}; give the folder that holds it with --data")
    made = open_run(profile, corpus and str(data / corpus), runs).path(artifact)
    results.keep(made, recipe(profile, artifact), PROJECT / "results" / name)
    typer.echo(PROJECT / "results" / name)


@app.command(hidden=True)
def readme(runs: Runs = Path("runs")) -> None:
    """For maintainers: write README's marked blocks, its figure and results/readme.json.

    The sources are the finished run of the profile `embedded`, results/worlds, results/timings.json and
    benchmarks/RESULTS.md.
    """
    from ddpo_lib.report import readme as writer
    from ddpo_lib.runs.pipeline import PROJECT, open_run

    typer.echo(writer.write(open_run(writer.PROFILE, folder=runs), PROJECT))


@app.command(hidden=True)
def timings(
    clone: Annotated[Path, typer.Argument(help="Folder for a fresh clone of this checkout; must not exist.")],
) -> None:
    """For maintainers: time set-up, `make book` twice and `make test` in a fresh clone, into results/timings.json."""
    from ddpo_lib.base.files import write_json
    from ddpo_lib.report import readme as writer
    from ddpo_lib.report.timings import time_clone
    from ddpo_lib.runs.pipeline import PROJECT

    write_json(PROJECT / writer.TIMINGS, time_clone(PROJECT, clone))
    typer.echo(PROJECT / writer.TIMINGS)
