"""Files that every part of the library writes in one form: JSON that people read and compare."""

import json
from pathlib import Path


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
