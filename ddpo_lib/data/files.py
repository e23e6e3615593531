"""A file or folder -> its records. Its first bytes say what it is; its name does not matter."""

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.json_records import json_records, text_encoding
from ddpo_lib.data.tables import arrow_records, csv_records, parquet_records, separator

HEAD = 4096  # bytes that say what a file is
FORMS = "JSON Lines, JSON, CSV, Parquet or Arrow, plain or compressed"
NO_FILE = f"no such file; give {FORMS}, a folder of such files, or a hub data set as owner/name"
PACKED = {  # first bytes -> what opens the bytes inside; pyarrow reads the last two
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
ARROW_STREAM = b"\xff\xff\xff\xff"
NOT_READ = (  # first bytes, where they begin, what they are, what to do
    (b"PARE", 0, "encrypted Parquet", "write it without encryption"),
    (b"FEA1", 0, "Feather of version 1", "write it again with a newer pyarrow, or as Parquet"),
    (b"SQLite format 3", 0, "a SQLite database", "export its table as Parquet or CSV"),
    (b"DUCK", 8, "a DuckDB database", "export its table: COPY ... TO 'corpus.parquet'"),
    (b"\x80\x02", 0, "a Python pickle, which can run code", "write the table as Parquet"),
    (b"\x80\x03", 0, "a Python pickle, which can run code", "write the table as Parquet"),
    (b"\x80\x04", 0, "a Python pickle, which can run code", "write the table as Parquet"),
    (b"\x80\x05", 0, "a Python pickle, which can run code", "write the table as Parquet"),
    (b"\x93NUMPY", 0, "a NumPy array", "write the table as Parquet"),
    (b"\x89HDF", 0, "an HDF5 file", "write the table as Parquet"),
    (b"ORC", 0, "an ORC file", "write the table as Parquet"),
    (b"Obj\x01", 0, "an Avro file", "write the table as Parquet"),
    (b"\xd0\xcf\x11\xe0", 0, "a file of an old Microsoft Office", "export it as CSV"),
    (b"%PDF", 0, "a PDF", "give the texts as JSON Lines"),
    (b"GGUF", 0, "a model (GGUF)", "give a corpus"),
    (b"ustar", 257, "a tar archive", "unpack it, and give the file inside"),
    (b"7z\xbc\xaf", 0, "a 7z archive", "unpack it, and give the file inside"),
    (b"Rar!", 0, "a RAR archive", "unpack it, and give the file inside"),
    (b"version https://git-lfs", 0, "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
)
WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")


def file_records(path: Path) -> Iterator[tuple[str, object]]:
    """Each record of a file, or of the files of a folder, with the words that say where it is.

    A folder is one that `datasets.save_to_disk` wrote, or it contains Parquet or Arrow files, or else JSON or CSV
    files; they are read in the order of their names.

    Raises:
        InputError: no such file, an empty or damaged one, or one of another kind; the message says what it is.
    """
    if not path.exists():
        raise InputError(f"{path}: {NO_FILE}")
    if not path.is_dir():
        yield from _one_file(path)
        return
    for part in folder_parts(path):
        named = [place.split("=", 1) for place in part.relative_to(path).parts[:-1] if "=" in place]
        fields = {field: unquote(value) for field, value in named}  # as Spark and DuckDB partition a table
        for where, record in _one_file(part):
            yield where, (fields | record if fields and isinstance(record, dict) else record)


def is_parquet(path: Path) -> bool:
    """Whether a file's first bytes are those of Parquet."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def folder_parts(folder: Path) -> list[Path]:
    """The files of a folder that contain its records, in the order of their names.

    Names that begin with a dot or an underscore are passed over, as Spark's. Parquet and Arrow files are taken if there
    are any; otherwise JSON and CSV files. Of a folder that `datasets.save_to_disk` wrote, only the files that its
    `state.json` lists are taken, not those of an earlier set in the same place.
    """
    found = [
        Path(place) / name
        for place, folders, names in os.walk(folder)
        if not _hidden(Path(place).relative_to(folder))
        for name in names
        if name[0] not in "._" and (Path(place) / name).is_file()
    ]
    found = sorted(path for path in found if path.stat().st_size)
    tables = [path for path in found if _head(path).startswith((b"PAR1", b"ARROW1", ARROW_STREAM))]
    named = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
    about = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
    texts = [p for p in found if {s.lower() for s in p.suffixes} & set(named) and p.name not in about]
    parts = [path for path in tables if not path.name.startswith("cache-") and _listed(path)] or texts
    if not parts:
        raise InputError(f"{folder}: is a folder without {FORMS}; give a file, or a folder of such files")
    return parts


def _listed(path: Path) -> bool:
    """False for a file that the `state.json` beside it, which datasets wrote, does not list."""
    state = path.with_name("state.json")
    if not state.is_file():
        return True
    try:
        return path.name in {file["filename"] for file in json.loads(state.read_bytes())["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return True  # a file of that name that is not of datasets


def _hidden(place: Path) -> bool:
    return any(part[0] in "._" for part in place.parts)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD)


def _one_file(path: Path) -> Iterator[tuple[str, object]]:
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; expected one JSON object per line")
    with _damage_named(path), path.open("rb") as stream:
        yield from _records(io.BufferedReader(_unpacked(stream, path), HEAD), str(path))


def _records(stream: io.BufferedReader, name: str) -> Iterator[tuple[str, object]]:
    head = stream.peek(HEAD)[:HEAD]
    if head.startswith((b"PAR1", b"ARROW1")) and not stream.seekable():
        stream = io.BytesIO(stream.read())
    if not head.strip():
        raise InputError(f"{name}: is blank; expected one JSON object per line")
    if head.startswith(b"PAR1"):
        return parquet_records(stream, name)
    if head.startswith(b"ARROW1"):
        return arrow_records(stream, name, stream=False)
    if head.startswith(ARROW_STREAM):
        return arrow_records(stream, name, stream=True)
    for mark, at, what, remedy in NOT_READ:
        if head[at : at + len(mark)] == mark:
            raise InputError(f"{name}: is {what}; {remedy}")
    if head.lstrip().lower().startswith(WEB_PAGE):
        raise InputError(f"{name}: is a web page, not data; the download went wrong, so get the file again")
    text = head.decode(text_encoding(head), "ignore").lstrip("\ufeff\x1e \t\r\n")
    if text[:1] in ("{", "["):
        return json_records(stream, name)
    if separator(head):
        return csv_records(stream, name)
    if text[:1] and _is_text(head):
        raise InputError(
            f"{name}, line 1: not JSON, and no CSV whose first line names a column `prompt`; it begins with "
            f'{text[:20]!r}. Write {{"prompt": ..., "responses": [...]}}, one object per line'
        )
    raise InputError(f"{name}: of an unknown kind (first bytes {head[:4].hex(' ')}); give {FORMS}")


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 for byte in head) or text_encoding(head).startswith("utf-16")


def _unpacked(stream: BinaryIO, path: Path) -> BinaryIO:
    """The bytes inside a compressed file; else those of the file itself."""
    head = stream.read(HEAD)
    stream.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _only_member(stream, path)
    opener = next((opener for mark, opener in PACKED.items() if head.startswith(mark)), None)
    if opener is None:
        return stream
    if isinstance(opener, str):
        import pyarrow as pa

        return pa.CompressedInputStream(stream, opener)
    return opener(stream)


def _only_member(stream: BinaryIO, path: Path) -> BinaryIO:
    archive = zipfile.ZipFile(stream)
    names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
    if "[Content_Types].xml" in names:
        raise InputError(f"{path}: is a spreadsheet or another Office file; export it as CSV")
    if len(names) != 1:
        raise InputError(f"{path}: is an archive of {len(names)} files; unpack it, and give one file or the folder")
    return archive.open(names[0])


@contextmanager
def _damage_named(path: Path):
    try:
        yield
    except EOFError:
        raise InputError(f"{path}: the compressed file has no end; it was cut, so get all of it") from None
    except (zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: a compressed file that is damaged ({error}); get it again") from None
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); get it again") from None
