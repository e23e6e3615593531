"""Which arm a checkpoint belongs to: arms with the same pairs differ only in loss, settings and weights."""

import json
from pathlib import Path

FILE = "arm.json"


def write_arm(checkpoint: Path, arm: dict) -> None:
    """Write into a checkpoint's folder which arm it belongs to: settings, and `weight`, one number per pair or None."""
    (checkpoint / FILE).write_text(json.dumps(arm))


def check_arm(checkpoint: Path, arm: dict) -> None:
    """Raise a ValueError that names the first setting, or the first weight, that differs from the checkpoint's arm."""
    if not (checkpoint / FILE).exists():
        raise ValueError(f"resume_from_checkpoint: {checkpoint} holds no {FILE}; no DeviationTrainer wrote it")
    there = json.loads((checkpoint / FILE).read_text())
    for name, value in arm.items():
        if name not in there or there[name] != value:
            difference = _difference(there.get(name), value)
            raise ValueError(f"resume_from_checkpoint: {checkpoint} is of another arm: {name} {difference}")


def _difference(there, here) -> str:
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        row = next(row for row, (one, other) in enumerate(zip(there, here, strict=True)) if one != other)
        return f"of row {row} is {there[row]} there and {here[row]} here"
    there, here = (f"a list of {len(value)}" if isinstance(value, list) else value for value in (there, here))
    return f"is {there} there and {here} here"
