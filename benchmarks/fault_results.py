"""The results of a stage as values that are equal if the results are: dates, seconds and memory do not count."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

VOLATILE = ("seconds", "peak_memory_gb", "made", "commit", "hardware", "versions", "code")  # of a manifest
SECRET = re.compile(rb"secret_key: .*")  # of a study, drawn at random
TIMED = ("_runtime", "_per_second")  # fields of a log
SUMMARY = "train_runtime"  # in the entry of a log that has the seconds and the mean loss of the last process alone


def read_results(folder: Path, patterns: tuple[str, ...]) -> dict[str, object]:
    """Every file of the results, by its path in the folder."""
    tops = [top for pattern in patterns for top in folder.glob(pattern)]
    files = [file for top in tops for file in (top.rglob("*") if top.is_dir() else [top]) if file.is_file()]
    return {str(file.relative_to(folder)): _content(file) for file in sorted(files)}


def differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    """The files that are missing, that should not be there, or that differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def leftovers(folder: Path) -> list[str]:
    """Files that only an interrupted command leaves: locks, journals, and what is half made."""
    left = [file for file in folder.rglob("*") if _is_left(file) and "cache" not in file.relative_to(folder).parts]
    return sorted(str(file.relative_to(folder)) for file in left)


def _is_left(file: Path) -> bool:
    if file.name == ".partial":
        return False
    return ".partial" in file.parts or file.name.endswith((".partial", ".lock", ".journal", ".other", ".old", ".twin"))


def _content(file: Path) -> object:
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
        return table.to_json(orient="split", double_precision=15), json.dumps(table.attrs, sort_keys=True, default=str)
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    if file.suffix == ".ipynb":
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        return json.dumps([cell.get("outputs", []) for cell in cells])
    if file.suffix == ".json":
        return _settled(file.name, json.loads(file.read_text(encoding="utf-8")))
    content = SECRET.sub(b"", file.read_bytes()) if file.name == "config.yaml" else file.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _settled(name: str, content) -> object:
    if name == "manifest.json":
        return {field: value for field, value in content.items() if field not in VOLATILE}
    if name == "log.json":
        entries = [entry for entry in content if SUMMARY not in entry]
        return [{field: value for field, value in e.items() if not field.endswith(TIMED)} for e in entries]
    return content
