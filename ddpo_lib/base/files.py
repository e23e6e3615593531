"""What every part of the library does with files: write JSON, hash their bytes, and continue work that was interrupted.

One rule holds for interrupted work, which is checkpoints and journals. It is continued only by a call that depends on
the same things: data, settings, seeds, models and code, as the key of an artifact does. Any other call begins anew and
says what differs.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path

import numpy as np
from filelock import Timeout

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.locks import lease
from ddpo_lib.base.store import cache_folder, content_key

log = logging.getLogger(__name__)

BEGUN = "begun.json"
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


def continue_or_begin(folder: Path, of: dict) -> None:
    """Make a folder for work, and empty it unless it contains unfinished work that depends on the same things.

    Args:
        folder: the folder; what it depends on is kept there in `begun.json`.
        of: name -> JSON value, everything that the work depends on.
    """
    of = json.loads(json.dumps(of))
    if folder.exists() and (different := differing(read_mapping(folder / BEGUN), of)):
        log.warning("%s: unfinished work of another kind (%s differs); it is removed and begun anew", folder, different)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, of)


def differing(there: dict, here: dict) -> str:
    """The names whose values differ, as text; empty if all are the same."""
    return ", ".join(name for name in {**here, **there} if name not in there or there[name] != here.get(name))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A context in which no other process that asks for `path` in this way works on it.

    Raises:
        InputError: another process does.
    """
    lock = lease(path.with_name(f".{path.name.removeprefix('.')}.lock"))
    try:
        acquired = lock.acquire(timeout=1)  # seconds; the lock of a process that was killed is taken at the second try
    except Timeout:
        raise InputError(
            f"{path}: another command is writing it now; wait until that one ends, or name another file"
        ) from None
    with acquired:
        yield
