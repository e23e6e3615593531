"""A corpus -> parts of its records on disk, read once; each shard of a large corpus then reads its own part only.

A part is a Parquet file with one row per record: its number in the corpus, the words that say where it is, and the
record as JSON. So a shard is what it would be if it were read from the whole corpus, bit for bit.
"""

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import read_mapping, write_json
from ddpo_lib.data.values import has_half

ABOUT = "parts.json"
ROWS = 1000  # of a part that are held until they are written together
HELD = 2**27  # characters of all parts that are held at most
MOST = 1000  # parts; each is an open file while the corpus is divided


def is_divided(source: Path) -> bool:
    return (source / ABOUT).is_file()


def content_of(folder: Path) -> str | None:
    """The hash of all records and the parts that they are in; None for a folder of an earlier version."""
    return read_mapping(folder / ABOUT).get("content")


def write_parts(records: Iterable[tuple[int, int, str, object]], folder: Path, parts: int, about: dict) -> int:
    """Write records to the parts that they belong to; nothing is left if it fails.

    Args:
        records: (part from 1, number, where, record) in the order of the numbers.
        folder: the folder to make; it must not exist.
        parts: number of parts, 1 to `MOST`.
        about: JSON values that reading the parts depends on.

    Returns:
        The number of records.

    Raises:
        InputError: the folder exists, or a number of parts out of range.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not 1 <= parts <= MOST:
        raise InputError(f"--parts {parts}: expected 1 to {MOST}")
    if folder.exists():
        raise InputError(f"{folder}: exists already; name a new folder")
    schema = pa.schema({"number": pa.int64(), "where": pa.string(), "record": pa.large_string()})
    aside, count, content = folder.with_name(f".{folder.name}.partial"), 0, hashlib.sha256()
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    writers = [pq.ParquetWriter(aside / _name(k), schema, compression="zstd") for k in range(1, parts + 1)]
    waiting: list[list[dict]] = [[] for _ in writers]
    held = [0] * parts

    def write(place: int) -> None:
        writers[place].write_table(pa.Table.from_pylist(waiting[place], schema))
        waiting[place], held[place] = [], 0

    try:
        for part, number, where, record in records:
            text = json.dumps(record, ensure_ascii=False, default=str)
            if has_half(text):  # no file can hold it as UTF-8
                text = json.dumps(record, default=str)
            waiting[part - 1].append({"number": number, "where": where, "record": text})
            content.update(f"{part} {number} {len(text)} {text}".encode())
            held[part - 1] += len(text)
            count += 1
            if len(waiting[part - 1]) >= ROWS or held[part - 1] * parts >= HELD:
                write(part - 1)
        for place in range(parts):
            write(place)
            writers[place].close()
        write_json(aside / ABOUT, about | {"parts": parts, "records": count, "content": content.hexdigest()})
        aside.replace(folder)
    finally:
        for writer in writers:
            writer.close()
        shutil.rmtree(aside, ignore_errors=True)
    return count


def read_parts(folder: Path, shard: tuple[int, int] | None, about: dict) -> Iterator[tuple[int, str, object]]:
    """The records of one part, or of all: (number, where, record) in the order of the numbers.

    Raises:
        InputError: a folder that was divided into another number of parts or with other settings.
    """
    made = read_mapping(folder / ABOUT)
    parts = made.get("parts")
    if shard and shard[1] != parts:
        raise InputError(
            f"{folder}: was divided into {parts} parts; ask for shard {shard[0]}/{parts}, or divide it anew"
        )
    for name, value in about.items():
        if made.get(name) != value:
            raise InputError(
                f"{folder}: was divided with {name} {made.get(name)}; use the same here, or divide it anew"
            )
    files = [folder / _name(k) for k in ([shard[0]] if shard else range(1, parts + 1))]
    yield from heapq.merge(*map(_read, files), key=lambda row: row[0])


def _name(k: int) -> str:
    return f"part-{k:04d}.parquet"


def _read(part: Path) -> Iterator[tuple[int, str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(part).iter_batches(ROWS):
            for row in batch.to_pylist():
                yield row["number"], row["where"], json.loads(row["record"])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{part}: cannot be read ({str(error).splitlines()[0]}); divide the corpus anew") from None
