"""Results from other machines that are stored with the project, for chapters to show beside their own run."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd

from ddpo_lib.base.files import write_json
from ddpo_lib.evaluation.compare_arms import HEADLINE
from ddpo_lib.profiles.wording import interval, name, p_value

STUDIES = "study-*.json"  # what `python -m benchmarks.study` writes


def keep(made: Path, recipe: str, folder: Path) -> None:
    """Copy an artifact to a folder of results/, with its `recipe` (of `pipeline`) and the hashes of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    about = {"recipe": recipe, "files": file_hashes(folder)}
    write_json(folder / "manifest.json", read_manifest(folder) | about)


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def file_hashes(folder: Path) -> dict[str, str]:
    """By name, the SHA-256 of the files beside a manifest."""
    files = sorted(file for file in folder.iterdir() if file.name != "manifest.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def origin(folder: Path, is_current: bool) -> str:
    """The origin of stored results as a sentence for a page, with a warning if the code or settings have changed.

    Args:
        folder: of results/, with its `manifest.json`.
        is_current: of `pipeline.is_current`.
    """
    made = read_manifest(folder)
    machine = made["hardware"]["gpu"] or made["hardware"]["processor"]
    told = (
        f"`results/{folder.name}` was made on {made['made']} by commit {made['commit']} "
        f"(code {made['code']['code']}) on {machine}."
    )
    if is_current:
        return told
    return (
        f"**Warning: the code or the settings have changed since, so the numbers may be out of date.** {told} "
        f"To make it again: `ddpo keep {folder.name}`."
    )


def read_studies(folder: Path) -> list[dict]:
    """The studies in a folder, in the order of their names; none if the folder is missing."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(STUDIES))]


def study_table(study: dict) -> pd.DataFrame:
    """One row per arm, as text: the paper's three axes; the difference of each to the arm's twin, with p; and the arm's
    quality minus that of the baseline at equal diversity, if the fronts reach it."""
    rows = []
    for arm, values in study["arms"].items():
        row = {"arm": name(arm), **{measure: interval(values[measure], 2) for measure in HEADLINE}}
        changes = study["differences"].get(arm, {})
        row["minus"] = name(study["twins"][arm]) if changes else ""
        row |= {f"{measure}, minus that": _with_p(changes[measure]) if changes else "" for measure in HEADLINE}
        for space, found in study["fronts"].items():
            value = found["matched"].get(arm)
            told = "" if value is None else "out of reach" if value["mean"] is None else interval(value, sign=True)
            row[f"quality minus {name(study['against'])} at equal {space} diversity"] = told
        rows.append(row)
    return pd.DataFrame(rows)


def _with_p(change: dict) -> str:
    p = p_value(change["p"])
    return interval(change, sign=True) + (f", p {p}" if p else "")
