"""What every part of the library does with files: write JSON that people read and compare, and hash their bytes."""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ddpo_lib.base.store import cache_folder, content_key

LARGE = 2**23  # bytes: the hash of a larger file is kept on disk
SETTLED = 2 * 10**9  # nanoseconds: a file that was written later could change again without a new time


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_mapping(path: Path) -> dict:
    """The object in a JSON file; {} if there is no file, or one that a kill left half written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sync(folder: Path) -> None:
    """Wait until the files of a folder are on disk, where also a power failure leaves them."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())


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


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits.

    Reading several gigabytes takes seconds, so the hash of a large file is kept on disk, by the file's path. It is used
    again while the file's size and its times of change are the same to the nanosecond.
    """
    path = path.resolve()
    now = path.stat()
    stamp = (now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    if time.time_ns() - max(stamp[1:]) < SETTLED:
        return _read_hash(path)
    return _kept_hash(path, stamp)


@cache
def _kept_hash(path: Path, stamp: tuple[int, int, int]) -> str:
    if stamp[0] < LARGE:
        return _read_hash(path)
    kept = cache_folder() / "hashes" / f"{content_key(str(path))[:32]}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet
        known = {}
    if known.get("stamp") == list(stamp):
        return known["sha256"]
    found = _read_hash(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(f".{os.getpid()}")
    write_json(aside, {"path": str(path), "stamp": stamp, "sha256": found})
    aside.replace(kept)
    return found


def _read_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
