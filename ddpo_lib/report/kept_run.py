"""The maintainers' finished run: kept in results/ without weights, and laid out again for who reads before training.

Kept are the artifacts of a run, all but trained weights, each with its manifest. Laid out in a folder of runs, they are
fresh as long as code, settings and packages are those that made them. So chapters and pages can be made from them, and
nothing else needs to be.
"""

import gzip
import html
import math
import shutil
import time
from pathlib import Path

import yaml

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import read_mapping, write_json
from ddpo_lib.base.run_folder import Run, surroundings

MARK = "kept.json"  # in a run folder: where its artifacts are from
ARRAY = ".npy"  # kept compressed: vectors of counts are mostly zeros
PAGES = ("chapter-", "book")
EQUAL = 1e-9  # two runs' means that are closer are the same number
MEGABYTES = 20  # of a kept run, at most


def keep(run: Run, folder: Path) -> int:
    """Copy the artifacts of a finished run, without the folders in them: these hold weights.

    Args:
        run: all its artifacts are fresh.
        folder: to make anew.

    Returns:
        The bytes of what is kept.

    Raises:
        InputError: an artifact is missing or stale, or there is more than MEGABYTES.
    """
    names = artifacts(run)
    if unmade := [name for name in names if not run.is_fresh(name)]:
        raise InputError(f"{run.folder}: {_some(unmade)} missing or stale; finish the run first")
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    for file in (file for name in names for file in (run.folder / name).iterdir() if file.is_file()):
        place = aside / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ARRAY:
            place.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        else:
            shutil.copy(file, place)
    size = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
    if size > MEGABYTES * 2**20:
        shutil.rmtree(aside)
        raise InputError(f"{run.folder}: {size / 2**20:.0f} MB, and a kept run has at most {MEGABYTES}")
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)
    return size


def lay_out(folder: Path, run: Run) -> None:
    """Copy a kept run's artifacts to a run folder.

    Args:
        folder: what `keep` made.
        run: of the same profile and corpus; what an earlier call laid out there is replaced where it is stale.

    Raises:
        InputError: nothing is kept, or it was made by other code, settings or packages than these; or the run folder
            holds a run of the reader's own.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not there, so no run is kept; `make book` makes one of your own")
    names = artifacts(run)
    if is_own(run) and any(run.manifest(name) for name in names):
        raise InputError(f"{run.folder}: holds a run of your own; give another folder with --runs")
    other = [name for name in names if read_mapping(folder / name / "manifest.json").get("key") != run.key(name)]
    if other:
        raise InputError(
            f"{folder}: is not what this code, its settings and the installed packages make (other: {_some(other)}); "
            "`make book` makes a run of your own"
        )
    for name in names:
        if not run.is_fresh(name):
            aside, place = run.folder / f".{name}.partial", run.folder / name
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(folder / name, aside)
            for packed in aside.glob(f"*{ARRAY}.gz"):
                packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
                packed.unlink()
            shutil.rmtree(place, ignore_errors=True)
            aside.replace(place)
    write_json(run.folder / MARK, {"from": folder.name})


def is_own(run: Run) -> bool:
    """Whether a run is the reader's own, not the kept one."""
    return not (run.folder / MARK).exists()


def beside(yours: dict, theirs: dict) -> str:
    """How a difference of the reader's run compares with that of the kept run, in words that follow a number.

    Args:
        yours, theirs: mappings with `mean`, `low` and `high`; any of them may be None where it is not known.
    """
    if None in (yours["mean"], theirs["mean"], theirs["low"], theirs["high"]):
        return "without a number in one run"
    if math.isclose(yours["mean"], theirs["mean"], rel_tol=EQUAL, abs_tol=EQUAL):
        return "equal"
    return "inside the interval" if theirs["low"] <= yours["mean"] <= theirs["high"] else "outside the interval"


def artifacts(run: Run) -> list[str]:
    """The names of the artifacts that the chapters of a run need, directly or through others, in the order of steps."""
    needed, todo = set(), [name for name in run.steps if name.startswith(PAGES)]
    while todo:
        inputs = [name for name in run.steps[todo.pop()].inputs if name not in needed]
        needed.update(inputs)
        todo += inputs
    return [name for name in run.steps if name in needed and not name.startswith(PAGES)]


def announcement(run: Run) -> str | None:
    """What every page of a kept run says, in HTML; None for a run of the reader's own."""
    if is_own(run):
        return None
    return html.escape(f"These pages show {_whose(run)}. To replace it by your own, type “make book”.")


def footer(run: Run, citation: Path) -> str:
    """What every page says at its end, in HTML: when and from which commit it was built, whose run, how to cite it.

    Args:
        run: with its evaluation.
        citation: a CITATION.cff.
    """
    cited = yaml.safe_load(citation.read_text(encoding="utf-8"))
    paper = cited["preferred-citation"]
    first, *others = (author["family-names"] for author in paper["authors"])
    by = f"{first} et al." if others else first
    arxiv = next(one["value"] for one in paper["identifiers"] if one["value"].startswith("arXiv:"))
    parts = [
        f"Built on {time.strftime('%Y-%m-%d')} from commit {surroundings()['commit'] or 'unknown'}. "
        f"The numbers are those of {_whose(run)}.",
        f"To cite these pages: {cited['authors'][0]['name']}, “{cited['title']}”, version {cited['version']}. "
        f"To cite the method: {by} ({paper['year']}), “{paper['title']}”, {arxiv}. The file CITATION.cff has both.",
    ]
    return "".join(f"<p>{html.escape(part)}</p>" for part in parts)


def _whose(run: Run) -> str:
    made = run.manifest("evaluation")
    machine = made["hardware"]["gpu"] or f"{made['hardware']['processor']}, {made['hardware']['cores']} cores"
    whose = "your run" if is_own(run) else "the maintainers' run"
    return f"{whose} of {made['made']} (commit {made['commit']}, {machine})"


def _some(names: list[str]) -> str:
    """The first name, and how many follow."""
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
