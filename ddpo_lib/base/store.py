"""Arrays on disk, keyed by content: the first process that needs a costly array computes it, and others read it."""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

SLICE = 500  # keys per query, below SQLite's limit on variables


def cache_folder() -> Path:
    """Where models and computed arrays are kept between runs: `ddpo` in XDG_CACHE_HOME, or in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ddpo"


def content_key(*parts: str) -> str:
    """A key for a tuple of strings; different tuples never share one."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class Store:
    """float32 arrays by key, in one SQLite file that several processes may read and fill at once."""

    def __init__(self, name: str, folder: Path | None = None):
        folder = folder or cache_folder() / "arrays"
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.sqlite"
        with self._writing() as database:
            database.execute("create table if not exists arrays (key text primary key, value blob) without rowid")

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored arrays by key, each one-dimensional float32; keys that are not stored are left out."""
        found = {}
        with closing(self._connect()) as database:
            for start in range(0, len(keys), SLICE):
                part = list(keys[start : start + SLICE])
                marks = ",".join("?" * len(part))
                for key, value in database.execute(f"select key, value from arrays where key in ({marks})", part):
                    found[key] = np.frombuffer(value, dtype=np.float32)
        return found

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are stored; no array is read."""
        found = set()
        with closing(self._connect()) as database:
            for start in range(0, len(keys), SLICE):
                part = list(keys[start : start + SLICE])
                marks = ",".join("?" * len(part))
                found.update(key for (key,) in database.execute(f"select key from arrays where key in ({marks})", part))
        return found

    def put(self, items: Iterable[tuple[str, np.ndarray]]) -> None:
        """Store arrays, all of them or none. A key that is already stored keeps its value."""
        rows = [(key, np.ascontiguousarray(value, dtype=np.float32).tobytes()) for key, value in items]
        with self._writing() as database:
            database.executemany("insert or ignore into arrays values (?, ?)", rows)

    @contextmanager
    def _writing(self):
        """A transaction. If a disk is full or fails, it raises an `OSError` that names the file."""
        try:
            with closing(self._connect()) as database, database:
                yield database
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise OSError(errno.ENOSPC, str(error), str(self.path)) from error
            raise

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60)
