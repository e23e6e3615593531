"""`ddpo clean`: what of a run and of the cache nothing needs, and how much disk it uses."""

from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.cli.anonymous import describe_size
from ddpo_lib.cli.doctor import folder_size
from ddpo_lib.cli.options import Corpus, Profile, Runs


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
