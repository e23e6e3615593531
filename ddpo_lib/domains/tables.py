"""Artifacts of all seeds and rows -> one folder, with what checkers say of programs and poems; and back."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.profiles.domain_settings import DOMAIN_SPACES, Domains, Programs
from ddpo_lib.worlds.grids import fuller

SFT, CORPUS = "sft", "corpus"  # names of rows that are no arms
MEASURES = ("right", "pass_k", "distinct", "differ", "unread")  # of every row, from `checked.measure`


def make_checks(folder: Path, run: Run) -> None:
    """What the checkers say of the programs and poems that come with the package, and what deviation weighs there."""
    from ddpo_lib.domains.code_tasks import weigh_programs
    from ddpo_lib.domains.verse import check_poems

    weigh_programs({name: space for name, space in DOMAIN_SPACES.items() if space}).to_parquet(
        folder / "programs.parquet"
    )
    check_poems().to_parquet(folder / "poems.parquet")


def gather(rows: dict[tuple[str, int], str], folder: Path, run: Run) -> None:
    """The measures of rows, one line each.

    Args:
        rows: (name of a row, or SFT; seed) -> its artifact.
    """
    table = []
    for (name, seed), artifact in rows.items():
        found = run.json(artifact, "measured.json")
        if name == SFT:
            table += [{"row": kind, "seed": seed, **found[kind]} for kind in (SFT, CORPUS)]
        else:
            table.append({"row": name, "seed": seed, **found})
    pd.DataFrame(table).to_parquet(folder / "measured.parquet")


def join(settings: Domains, parts: list[str], base: str, first: str, checks: str, folder: Path, run: Run) -> None:
    """Join the tables of `gather`, with the answers of the first seed to one training task and the settings.

    Args:
        parts: artifacts of `gather`.
        base: the artifact of the common start.
        first: the artifact of the first seed.
        checks: the artifact of `make_checks`.
    """
    table = pd.concat([run.table(part, "measured.parquet") for part in parts], ignore_index=True)
    table.to_parquet(folder / "measured.parquet")
    corpus = run.table(first, "corpus.parquet")
    corpus[corpus["prompt_id"] == corpus["prompt_id"].iloc[0]].to_parquet(folder / "shown.parquet")
    for file in ("programs.parquet", "poems.parquet"):
        shutil.copy(run.path(checks) / file, folder)
    write_json(folder / "base.json", run.json(base, "measured.json"))
    write_json(folder / "settings.json", settings.model_dump())


def join_programs(settings: Programs, parts: list[str], base: str, first: str, folder: Path, run: Run) -> None:
    """As `join`, for models that write programs."""
    table = pd.concat([run.table(part, "measured.parquet") for part in parts], ignore_index=True)
    table.to_parquet(folder / "measured.parquet")
    corpus = run.table(first, "corpus.parquet")
    corpus[corpus["prompt_id"] == corpus["prompt_id"].iloc[0]].to_parquet(folder / "shown.parquet")
    write_json(folder / "base.json", run.json(base, "measured.json"))
    write_json(folder / "settings.json", settings.model_dump())


class DomainGrid(NamedTuple):
    """The files that `join` wrote to a folder."""

    table: pd.DataFrame  # one line per row and seed
    shown: pd.DataFrame  # the answers to one training task, as in `arithmetic_corpus.write_corpus`
    programs: pd.DataFrame  # of `code_tasks.weigh_programs`
    poems: pd.DataFrame  # of `verse.check_poems`
    base: dict  # the measures of the model that all seeds start from
    settings: Domains  # with which it was made
    made: dict  # the manifest: when, where, how long


class ProgramGrid(NamedTuple):
    """The files that `join_programs` wrote to a folder, as in DomainGrid."""

    table: pd.DataFrame
    shown: pd.DataFrame
    base: dict
    settings: Programs
    made: dict


def read_domains(folder: Path) -> DomainGrid:
    tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("measured", "shown", "programs", "poems"))
    base, settings, made = _read_facts(folder)
    return DomainGrid(*tables, base, Domains.model_validate(settings), made)


def read_programs(folder: Path) -> ProgramGrid:
    tables = (pd.read_parquet(folder / f"{name}.parquet") for name in ("measured", "shown"))
    base, settings, made = _read_facts(folder)
    return ProgramGrid(*tables, base, Programs.model_validate(settings), made)


def _read_facts(folder: Path) -> list[dict]:
    names = ("base", "settings", "manifest")
    return [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]


READ = {"domains": read_domains, "programs": read_programs}  # by artifact


def own_grid(run: Run, artifact: str = "domains") -> DomainGrid | ProgramGrid | None:
    """A grid of a run; None if its profile makes none, or if models give no right answer, so that measures lack.

    Args:
        run: it may lack the artifact.
        artifact: one of READ.
    """
    grid = READ[artifact](run.path(artifact)) if artifact in run.steps else None
    return grid if grid and can_be_shown(grid) else None


def can_be_shown(grid: DomainGrid | ProgramGrid) -> bool:
    """Whether each row has a value of each of MEASURES for some seed; a model without a right answer lacks some."""
    return bool(grid.table.groupby("row")[[*MEASURES]].count().min(axis=None) > 0)


def fullest(
    here: DomainGrid | ProgramGrid | None, kept: Path, artifact: str = "domains"
) -> tuple[DomainGrid | ProgramGrid | None, bool]:
    """As `grids.fuller`: the grids must differ in nothing but seeds and rows, and the stored one have all the run's."""

    def alike(here: DomainGrid | ProgramGrid, other: DomainGrid | ProgramGrid) -> bool:
        mine, theirs = (grid.settings.model_dump(exclude={"seeds"}) for grid in (here, other))
        return mine.pop("rows").items() <= theirs.pop("rows").items() and mine == theirs

    return fuller(here, kept, READ[artifact], alike)
