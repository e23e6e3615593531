"""A run folder and the cache -> what nothing needs any more: artifacts of earlier settings or code, remains of kills.

A leftover is never an artifact that is fresh, a study of people, or a file that a user put there.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ddpo_lib.base.run_folder import Run
from ddpo_lib.base.store import PART, cache_folder

ASIDE = ".partial"


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can be removed, and why."""

    path: Path
    why: str


def of_run(run: Run) -> list[Leftover]:
    """The leftovers in a run's folder.

    An artifact that is made but stale is one: a run that needs it makes it anew. So are artifacts that the profile no
    longer has, and unfinished work on an artifact whose key has changed.
    """
    keys = {name: run.key(name) for name in run.steps}
    found = []
    for manifest in sorted(run.folder.glob("*/manifest.json")):
        name = manifest.parent.name
        if name not in keys:
            found.append(Leftover(manifest.parent, "the profile has no such artifact"))
        elif run.manifest(name).get("key") != keys[name]:
            found.append(Leftover(manifest.parent, "stale"))
    current = {f"{name}-{key[:12]}" for name, key in keys.items()}
    for path in sorted((run.folder / ASIDE).glob("*")):
        if path.name.removesuffix(".lock").removesuffix(".twin").removesuffix(".old") not in current:
            found.append(Leftover(path, "unfinished work that no run continues"))
    return found


def of_cache(folder: Path | None = None) -> list[Leftover]:
    """The leftovers in the cache: databases of versions before 2026-11-29, and files that were not finished."""
    arrays = (folder or cache_folder()) / "arrays"
    found = [Leftover(path, "an earlier version's") for path in sorted(arrays.glob("*.sqlite*"))]
    return found + [Leftover(path, "not finished") for path in sorted(arrays.glob("*/*.partial"))]


def remove(leftovers: list[Leftover]) -> None:
    for leftover in leftovers:
        if leftover.path.is_dir():
            shutil.rmtree(leftover.path)
        else:
            leftover.path.unlink(missing_ok=True)


def divided_stores(folder: Path | None = None) -> list[Path]:
    """The folders of the cache's stores that have more than one part."""
    stores = sorted(((folder or cache_folder()) / "arrays").glob("*/"))
    return [store for store in stores if len(list(store.glob(f"*{PART}"))) > 1]
