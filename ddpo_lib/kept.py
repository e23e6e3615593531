"""Results that came off another machine and are kept with the project, for a chapter to show beside its own run."""

import json
from pathlib import Path

import pandas as pd

from ddpo_lib.evaluation import HEADLINE
from ddpo_lib.figures import interval, name, p_value

STUDIES = "study-*.json"  # what `python -m benchmarks.study` writes


def read_studies(folder: Path) -> list[dict]:
    """Those in a folder, by name; none where it is not there."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob(STUDIES))]


def study_table(study: dict) -> pd.DataFrame:
    """A row an arm, as text: the paper's three axes; the twin that it is compared with, and each axis minus the twin's,
    with p; and its quality minus that of the study's baseline at equal diversity, where the fronts tell it."""
    against = name(study["against"])
    rows = []
    for arm, values in study["arms"].items():
        twin = study["twins"].get(arm)
        row = {"arm": name(arm), **{measure: interval(values[measure], 2) for measure in HEADLINE}}
        row["twin"] = name(twin) if twin else ""
        for measure in HEADLINE:
            change = study["differences"].get(arm, {}).get(measure)
            row[f"{measure} minus the twin"] = "" if change is None else _with_p(change)
        for space, found in study["fronts"].items():
            value = found["matched"].get(arm)
            told = "" if value is None else "out of reach" if value["mean"] is None else interval(value, sign=True)
            row[f"quality minus {against} at equal {space} diversity"] = told
        rows.append(row)
    return pd.DataFrame(rows)


def _with_p(change: dict) -> str:
    p = p_value(change["p"])
    return interval(change, sign=True) + (f", p {p}" if p else "")
