"""Bytes of JSON -> its records, in whatever form a tool left them, each with the words that say where it is.

One scanner reads JSON Lines, objects over several lines, objects one after another or separated by commas, and lists.
So blank lines, CRLF, byte order marks, record separators and a trailing comma need no rule of their own. A table that
pandas or datasets wrote as one object is turned into its rows (`unfold`). Only the record that is being read is held
in memory.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from ddpo_lib.base.errors import InputError

CHUNK = 1 << 20  # bytes that are read at once
LONGEST = 1 << 28  # characters of one record; more is a file that was damaged
BETWEEN = re.compile("[\\s\\x1e\\ufeff]*")  # white space, RFC 7464's separator, byte order marks of joined files
NEAR = 16  # characters: an error this close to the end of what was read may be due to what was not
TEXT = ("prompt", "post_title")  # one of these fields is in each record


def text_encoding(head: bytes) -> str:
    """The encoding of a text by its first bytes: UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head[1:2] == b"\0" and head[:1] != b"\0":
        return "utf-16-le"
    if head[:1] == b"\0" and head[1:2] != b"\0":
        return "utf-16-be"
    return "utf-8-sig"


def json_records(stream: BinaryIO, name: str) -> Iterator[tuple[str, object]]:
    """Each record of a stream, with the words that say where it is.

    Args:
        stream: opened for reading bytes; its encoding is recognised.
        name: of the file, for the words.

    Raises:
        InputError: bytes that are no text, or text that is no JSON; names the line. A record or a list that the end of
            the file cuts, and a field that one object has twice with different values.
    """
    text = _Text(stream, name)
    inside = listed = False  # inside a list; and whether the file is made of lists
    entry = 0
    while character := text.next_character():
        if character == "[" and not inside and (listed or not entry):
            inside = listed = True
            text.advance(1)
        elif character == "," or (character == "]" and inside):
            inside = inside and character == ","
            text.advance(1)
        else:
            entry += 1
            where = f"{name}, line {text.line}" + (f", entry {entry}" if listed else "")
            for part, record in unfold(text.value(where)):
                yield where + part, record
    if inside:
        raise InputError(f"{name}, line {text.line}: the list has no end; the file was cut, so get all of it")


class _Text:
    """Decoded text of a stream, read as it is needed. `line` is the number of the line at the present place."""

    def __init__(self, stream: BinaryIO, name: str):
        self.stream, self.name = stream, name
        self.buffer, self.at, self.line, self.ended = "", 0, 1, False
        head = stream.read(CHUNK)
        self.encoding = text_encoding(head)
        self.incremental = codecs.getincrementaldecoder(self.encoding)()
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.where = name
        self._add(head)

    def next_character(self) -> str:
        """The next character that is not between records; empty at the end."""
        while True:
            end = BETWEEN.match(self.buffer, self.at).end()
            self.advance(end - self.at)
            if end < len(self.buffer) or self.ended:
                return self.buffer[end : end + 1]
            self._add(self.stream.read(CHUNK))

    def value(self, where: str):
        """The value at the present place, read whole."""
        self.where = where
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - NEAR
                if self.ended or not goes_on:
                    raise self._malformed(error, goes_on) from None
                self._add(self.stream.read(max(CHUNK, 2 * (len(self.buffer) - self.at))))
                if len(self.buffer) > LONGEST:
                    raise InputError(f"{where}: one record of more than {LONGEST:,} characters") from None
            except InputError:
                raise
            except (ValueError, RecursionError) as error:  # thousands of digits, or of nested brackets
                raise InputError(f"{where}: JSON that cannot be read ({error})") from None
            else:
                self.advance(end - self.at)
                return value

    def advance(self, characters: int) -> None:
        self.line += self.buffer.count("\n", self.at, self.at + characters)
        self.at += characters

    def _add(self, data: bytes) -> None:
        self.ended = not data
        try:
            new = self.incremental.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            before = self.buffer[self.at :] + error.object[: error.start].decode(self.encoding, "ignore")
            line, byte = self.line + before.count("\n"), len(before[before.rfind("\n") + 1 :].encode())
            kind = "UTF-8" if self.encoding == "utf-8-sig" else self.encoding.upper()
            raise InputError(
                f"{self.name}, line {line}: not {kind} at byte {byte}; save the file as UTF-8, or get it again if it "
                "is damaged"
            ) from None
        self.buffer, self.at = self.buffer[self.at :] + new, 0

    def _malformed(self, error: json.JSONDecodeError, goes_on: bool) -> InputError:
        if goes_on and self.buffer[self.at :].rstrip() == self.buffer[self.at :] and "\n" not in self.buffer[self.at :]:
            return InputError(
                f"{self.where}: not JSON: the file ends inside this record; it was cut, so get all of it, or delete "
                "this record"
            )
        line = self.line + self.buffer.count("\n", self.at, error.pos)
        column = error.pos - max(self.buffer.rfind("\n", 0, error.pos), self.at - 1)
        place = f"at column {column}" if line == self.line else f"at line {line}, column {column}"
        return InputError(f"{self.where}: not JSON {place} ({error.msg}); write one object per line")

    def _object(self, pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            for key, value in pairs:
                if json.dumps(found[key]) != json.dumps(value):
                    raise InputError(f"{self.where}: one object has the field `{key}` twice; keep one of them")
        return found


def unfold(value) -> Iterator[tuple[str, object]]:
    """The records of a value: itself, or the rows of a table that pandas or datasets wrote as one object.

    Yields each record with the words that say where it is in the value: pandas' `to_json` with `orient` "columns",
    "index", "split" and "table", a dict of columns, and one list of records under a name of its own, as in
    `{"data": [...]}`.
    """
    rows = _rows(value) if isinstance(value, dict) else None
    if rows is None:
        yield "", value
    else:
        yield from ((f", row {number}", row) for number, row in enumerate(rows, 1))


def _rows(table: dict) -> list | None:
    """The rows of a table; None if it is one record."""
    key = next((field for field in TEXT if field in table), None)
    if key is None:
        if isinstance(table.get("columns"), list) and isinstance(table.get("data"), list):
            return [dict(zip(table["columns"], row, strict=False)) for row in table["data"]]
        if table and all(_is_record(value) for value in table.values()):
            return list(table.values())
        lists = [value for value in table.values() if isinstance(value, list) and value and all(map(_is_record, value))]
        return lists[0] if len(lists) == 1 else None
    columns = table[key]
    if isinstance(columns, dict):
        return [
            {name: column.get(row) for name, column in table.items() if isinstance(column, dict)} for row in columns
        ]
    if isinstance(columns, list) and all(isinstance(text, str) for text in columns):
        full = {name: of for name, of in table.items() if isinstance(of, list) and len(of) == len(columns)}
        return [dict(zip(full, row, strict=True)) for row in zip(*full.values(), strict=True)]
    return None


def _is_record(value) -> bool:
    return isinstance(value, dict) and any(field in value for field in TEXT)
