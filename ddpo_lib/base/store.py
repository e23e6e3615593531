"""Arrays on disk, keyed by content: the first process that needs a costly array computes it, and others read it."""

import errno
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

PART = ".arrow"
SEEN_AFTER = 90.0  # seconds; NFS shows a new file after at most 60 if its defaults are kept
DIGEST = 16  # bytes of a key's hash: among 10^9 keys, two share one with a probability below 10^-20


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
    """float32 arrays by key: a folder of Arrow files, called parts.

    Each `put` adds a part, which appears whole under its name, and nothing changes a part. So processes on several
    machines may fill and read a store at once, without locks, on any file system whose renames are atomic. If two
    processes put the same key at once, both arrays are stored, and one of them is found.
    """

    def __init__(self, name: str, folder: Path | None = None):
        self.path = (folder or cache_folder() / "arrays") / name
        self.path.mkdir(parents=True, exist_ok=True)
        self._keys: dict[str, np.ndarray] = {}  # the sorted hashes of each part that was opened

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The stored arrays by key, each one-dimensional float32; keys that are not stored are left out."""
        found = {}
        for places, arrays in self._read(keys):
            found |= zip((keys[place] for place in places), arrays, strict=True)
        return found

    def matrix(self, keys: Sequence[str]) -> np.ndarray:
        """The stored arrays as the rows of one (n, d) float32 matrix. Besides it, at most one part is in memory.

        Raises:
            KeyError: a key that is not stored.
            ValueError: arrays of different lengths.
        """
        rows, found = np.empty((0, 0), np.float32), 0
        for places, arrays in self._read(keys):
            if not found:
                rows = np.empty((len(keys), len(arrays[0])), np.float32)
            rows[places] = arrays
            found += len(places)
        if found < len(keys):
            raise KeyError(f"{self.path}: {len(keys) - found} of {len(keys)} keys are not stored")
        return rows

    def stored(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are stored; no array is read."""
        return {keys[place] for _, places, _ in self._find(keys) for place in places}

    def wait_for(self, keys: Sequence[str]) -> None:
        """Return when all keys are found. On a network file system, what another machine stored is seen later.

        Raises:
            KeyError: a key that is not found within `SEEN_AFTER` seconds.
        """
        until = time.monotonic() + SEEN_AFTER
        while missing := len({*keys}) - len(self.stored(keys)):
            if time.monotonic() > until:
                raise KeyError(f"{self.path}: {missing} of {len(keys)} keys are not stored")
            time.sleep(1)

    def put(self, items: Iterable[tuple[str, np.ndarray]]) -> None:
        """Store arrays, all of them or none. A key that is already stored keeps its value.

        Raises:
            OSError: the disk is full or fails; it names the file.
            ValueError: a value that is no array of numbers.
        """
        arrays = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in items}
        known = self.stored(list(arrays))
        new = [key for key in arrays if key not in known]
        if new:
            self._write(_hashes(new), [arrays[key].tobytes() for key in new])

    def merge(self) -> None:
        """Make one part of all, which opens faster. No other process may use the store meanwhile."""
        names = self._parts()
        if len(names) > 1:
            values = [value for name in names for value in _values(self.path / name, range(len(self._keys[name])))]
            self._write(np.concatenate([self._keys[name] for name in names]), [value.tobytes() for value in values])
            for name in names:
                (self.path / name).unlink()

    def _read(self, keys: Sequence[str]) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """From each part that holds some of the keys: their places in `keys`, and their arrays."""
        for name, places, rows in self._find(keys):
            yield places, _values(self.path / name, rows)

    def _find(self, keys: Sequence[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each part that holds some of the keys: its name, their places in `keys`, and their rows in the part."""
        hashes, left = _hashes(keys), np.arange(len(keys))
        for name in self._parts():
            known = self._keys[name]
            rows = np.searchsorted(known, hashes[left])
            hit = rows < len(known)
            hit[hit] = known[rows[hit]] == hashes[left[hit]]
            if hit.any():
                yield name, left[hit], rows[hit]
                left = left[~hit]

    def _parts(self) -> list[str]:
        """The names of all parts; the hashes in those that are new are read."""
        names = sorted(part.name for part in self.path.glob(f"*{PART}"))
        for name in names:
            if name not in self._keys:
                self._keys[name] = _read_hashes(self.path / name)
        return names

    def _write(self, hashes: np.ndarray, values: list[bytes]) -> None:
        import pyarrow as pa

        hashes, rows = np.unique(hashes, return_index=True)
        key = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST), len(hashes), [None, pa.py_buffer(hashes)])
        batch = pa.record_batch({"key": key, "value": pa.array([values[row] for row in rows], pa.large_binary())})
        part = self.path / (uuid.uuid4().hex + PART)
        aside = part.with_suffix(".partial")
        try:
            with aside.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            aside.replace(part)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(part)) from error


def _hashes(keys: Sequence[str]) -> np.ndarray:
    """(n,) hashes of keys, of `DIGEST` bytes each."""
    return np.array([hashlib.sha256(key.encode()).digest()[:DIGEST] for key in keys], dtype=f"S{DIGEST}")


def _read_hashes(part: Path) -> np.ndarray:
    """The sorted hashes in a part. A part that cannot be read counts as empty, so that its arrays are made again."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(part)) as source:
            buffer = pa.ipc.open_file(source).get_batch(0).column("key").buffers()[1]
            return np.frombuffer(buffer, dtype=f"S{DIGEST}").copy()
    except (OSError, pa.ArrowException) as error:
        log.warning("%s: cannot be read, so what it held is computed again (%s)", part, error)
        return np.empty(0, dtype=f"S{DIGEST}")


def _values(part: Path, rows: Iterable[int]) -> list[np.ndarray]:
    """The arrays in these rows of a part, which is closed again."""
    import pyarrow as pa

    with pa.memory_map(str(part)) as source:
        column = pa.ipc.open_file(source).get_batch(0).column("value")
        offsets = np.frombuffer(column.buffers()[1], np.int64)
        data = np.frombuffer(column.buffers()[2], np.float32)
        return [data[offsets[row] // 4 : offsets[row + 1] // 4].copy() for row in rows]
