"""Files that every part of the library writes in one form: JSON that people read and compare."""

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value):
    """A result as JSON accepts it: dataclasses become mappings, tuples become lists, NaN and infinity become None."""
    if is_dataclass(value):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
