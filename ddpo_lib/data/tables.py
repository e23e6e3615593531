"""Parquet, Arrow and CSV -> their rows as records, each with the words that say where it is."""

import csv
import io
import math
from collections.abc import Iterator
from typing import BinaryIO

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.json_records import LONGEST, TEXT, text_encoding

ROWS = 1000  # that are read at once
NUMBERS = ("score",)
TRUTHS = ("finished", "seen")
NO_VALUE = ("", "na", "nan", "null", "none")  # as pandas, R and databases write a missing number
SEPARATORS = ",\t;|"


def parquet_records(file: BinaryIO, name: str) -> Iterator[tuple[str, dict]]:
    """The rows of a Parquet file. Raises InputError if it is damaged or encrypted."""
    import pyarrow.parquet as pq

    yield from _rows(lambda: pq.ParquetFile(file).iter_batches(ROWS), name, "Parquet")


def arrow_records(file: BinaryIO, name: str, *, stream: bool) -> Iterator[tuple[str, dict]]:
    """The rows of an Arrow (Feather) file, or of an Arrow stream, as datasets writes. Raises InputError if damaged."""
    import pyarrow as pa

    def batches():
        if stream:
            yield from pa.ipc.open_stream(file)
        else:
            opened = pa.ipc.open_file(file)
            yield from (opened.get_batch(number) for number in range(opened.num_record_batches))

    yield from _rows(batches, name, "Arrow")


def _rows(batches, name: str, kind: str) -> Iterator[tuple[str, dict]]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in batches():
            if not _is_sound(batch):
                raise InputError(
                    f"{name}, near row {number + 1}: not UTF-8, or damaged; save the text as UTF-8, or get the file "
                    "again"
                )
            for start in range(0, batch.num_rows, ROWS):
                for record in batch.slice(start, ROWS).to_pylist():
                    number += 1
                    yield f"{name}, row {number}", record
    except UnicodeDecodeError:
        raise InputError(f"{name}, near row {number + 1}: not UTF-8; save the text as UTF-8") from None
    except (ArrowException, OSError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: not {kind} that can be read ({words}); get the file again") from None


def _is_sound(batch) -> bool:
    """Whether what a batch says of its own memory is true; reading a damaged one can end the process."""
    from pyarrow import ArrowException

    try:
        batch.validate(full=True)
    except (ArrowException, UnicodeDecodeError):
        return False
    return True


def separator(head: bytes) -> str | None:
    """What separates the columns of a CSV or TSV file; None if its first line does not name the column of a prompt."""
    encoding = text_encoding(head)
    lines = head.decode(encoding, "ignore").lstrip("\ufeff").splitlines()
    if lines and lines[0].lower().startswith("sep="):  # as Excel writes it
        lines = lines[1:]
    for mark in SEPARATORS:
        names = next(csv.reader(lines[:1], delimiter=mark), [])
        if any(name.strip() in TEXT for name in names):
            return mark
    return None


def csv_records(stream: io.BufferedReader, name: str) -> Iterator[tuple[str, dict]]:
    """The rows of a CSV or TSV file whose first line names the columns.

    Text stays as it is, so "0", "None" and "nan" are texts; numbers and truth values are read, and an empty one is
    None.

    Raises:
        InputError: a row with more fields than the first line, a quote without an end, bytes that are no text, or a
            score that is no number; names the row.
    """
    head = stream.peek()
    csv.field_size_limit(LONGEST)
    text = io.TextIOWrapper(stream, encoding=text_encoding(head), newline="")
    number = 0
    try:
        if head.decode(text_encoding(head), "ignore").lstrip("\ufeff").lower().startswith("sep="):
            text.readline()
        rows = csv.DictReader(text, delimiter=separator(head), strict=True)
        rows.fieldnames = [column.strip() for column in rows.fieldnames]
        for number, row in enumerate(rows, 1):
            where = f"{name}, row {number}"
            if None in row:
                raise InputError(f"{where}: more fields than the first line names; quote a text that has a separator")
            yield where, _typed(row, where)
    except csv.Error as error:
        raise InputError(f"{name}, row {number + 1}: not CSV ({error}); quote texts with double quotes") from None
    except UnicodeDecodeError:
        raise InputError(f"{name}, near row {number + 1}: not UTF-8; save the file as UTF-8") from None


def _typed(row: dict[str, str | None], where: str) -> dict:
    typed = dict(row)
    for field in NUMBERS:
        if field in row:
            typed[field] = _number(row[field], f"{where}, field `{field}`")
    for field in TRUTHS:
        if field in row:
            word = (row[field] or "").strip().lower()
            typed[field] = {"true": True, "1": True, "false": False, "0": False}.get(word)
    return {field: value for field, value in typed.items() if value is not None}


def _number(word: str | None, where: str) -> float | None:
    word = (word or "").strip()
    if word.lower() in NO_VALUE:
        return None
    try:
        number = float(word)
    except ValueError:
        raise InputError(f"{where}: expected a number, got {word!r}") from None
    return int(number) if math.isfinite(number) and number.is_integer() else number
