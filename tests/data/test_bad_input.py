"""Kinds of bad input, and what the message says: where the fault is, and what to do."""

import bz2
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus, read_prompts

GOOD = '{"prompt": "A door.", "responses": [{"text": "It was me.", "score": 7}]}'


def lines(*bad: str) -> bytes:
    """A good line, and then the others."""
    return "\n".join([GOOD, *bad, ""]).encode("utf-8", "surrogatepass")


def response(value: str) -> bytes:
    return lines('{"prompt": "p", "responses": [' + value + "]}")


def raw(texts: str, scores: str, title: str = '"[WP] A door."') -> bytes:
    return lines(f'{{"post_title": {title}, "post_text": "", "comment_texts": {texts}, "comment_scores": {scores}}}')


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def zipped(*names: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, GOOD)
    return sink.getvalue()


def arrow_with_wrong_offsets() -> bytes:
    """A stream whose first text says that it ends far behind the memory; reading it would end the process."""
    sink, table = io.BytesIO(), pa.table({"prompt": ["abc", "d"], "text": ["e", "f"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    offsets, wrong = (np.array(each, dtype="<i4").tobytes() for each in ([0, 3, 4], [0, 2**31 - 1, 4]))
    assert sink.getvalue().count(offsets) == 1
    return sink.getvalue().replace(offsets, wrong)


NOT_TEXT = pa.array([b"\xff\xfe"], pa.binary())
TABLE = parquet(prompt=["p"], responses=[[{"text": "t", "score": 1.0}]])
DEEP = '{"prompt": ' + "[" * 100_000
DATA = {
    # files of another kind
    "nothing": (b"", "is empty"),
    "white space": (b"\n \r\n\t", "is blank"),
    "a SQLite database": (b"SQLite format 3\0" + bytes(50), "a SQLite database; export its table"),
    "a DuckDB database": (bytes(8) + b"DUCK" + bytes(50), "a DuckDB database; export its table"),
    "a pickle": (b"\x80\x05\x95" + bytes(20), "a Python pickle, which can run code; write the table as Parquet"),
    "an old pickle": (b"\x80\x02}q\x00.", "a Python pickle"),
    "a NumPy array": (b"\x93NUMPY\x01\0" + bytes(20), "a NumPy array; write the table as Parquet"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(20), "an HDF5 file"),
    "an ORC file": (b"ORC" + bytes(20), "an ORC file"),
    "an Avro file": (b"Obj\x01" + bytes(20), "an Avro file"),
    "encrypted Parquet": (b"PARE" + bytes(20), "encrypted Parquet; write it without encryption"),
    "old Feather": (b"FEA1" + bytes(20), "Feather of version 1"),
    "an old spreadsheet": (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(20), "an old Microsoft Office; export it as CSV"),
    "a spreadsheet": (zipped("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet or another Office file"),
    "an archive of several files": (zipped("a.jsonl", "b.jsonl"), "an archive of 2 files; unpack it"),
    "a tar archive": (b"corpus.jsonl".ljust(257, b"\0") + b"ustar\x0000" + bytes(200), "a tar archive; unpack it"),
    "a tar archive in gzip": (gzip.compress(b"x".ljust(257, b"\0") + b"ustar\x0000"), "a tar archive; unpack it"),
    "a 7z archive": (b"7z\xbc\xaf'\x1c" + bytes(20), "a 7z archive"),
    "a PDF": (b"%PDF-1.7\n", "a PDF; give the texts"),
    "a model": (b"GGUF\x03\0\0\0", "a model (GGUF)"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
    "a web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page, not data; the download went wrong"),
    "an answer of a bucket": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "noise": (bytes(range(1, 9)) * 5, "of an unknown kind (first bytes 01 02 03 04)"),
    "plain text": (b"Once upon a time.\n", "line 1: not JSON, and no CSV whose first line names a column `prompt`"),
    "YAML": (b"prompt: a door\nresponses: []\n", "it begins with 'prompt: a door"),
    "CSV with other columns": (b"question,answer\na,b\n", "no CSV whose first line names a column `prompt`"),
    # damaged files
    "cut gzip": (gzip.compress(lines() * 50)[:-12], "the compressed file has no end; it was cut"),
    "damaged gzip": (gzip.compress(lines())[:-8] + bytes(8), "a compressed file that is damaged"),
    "cut bzip2": (bz2.compress(lines() * 50)[:-12], "the compressed file has no end; it was cut"),
    "a damaged zip": (zipped("a.jsonl")[:40], "a compressed file that is damaged"),
    "cut Parquet": (TABLE[:-40], "not Parquet that can be read"),
    "damaged Parquet": (TABLE[:4] + b"\xff" * 40 + TABLE[44:], "not Parquet that can be read"),
    "cut Arrow": (b"ARROW1\0\0" + bytes(30), "not Arrow that can be read"),
    "Arrow that would be read behind its end": (arrow_with_wrong_offsets(), "near row 1: not UTF-8, or damaged"),
    "not UTF-8": (lines() + "é".encode("latin-1") + b'{"prompt": 1}', "line 2: not UTF-8 at byte 0"),
    "not UTF-8 after a letter of two bytes": (lines()[:-1] + "é".encode() + b"\xff\n", "line 1: not UTF-8 at byte"),
    "Parquet that is not UTF-8": (
        parquet(prompt=NOT_TEXT.view(pa.string()), responses=[[{"text": "t"}]]),
        "near row 1: not UTF-8",
    ),
    "bytes that are not UTF-8": (
        parquet(prompt=NOT_TEXT, responses=[[{"text": "t"}]]),
        "row 1, field `prompt`: not UTF-8",
    ),
    # JSON
    "an open object": (lines('{"prompt": "p", "responses": ['), "line 2: not JSON"),
    "a last line that was cut": (
        lines('{"prompt": "p", "resp')[:-1],
        "line 2: not JSON: the file ends inside this record",
    ),
    "a list that was cut": (f"[{GOOD},\n{GOOD},".encode(), "the list has no end; the file was cut"),
    "single quotes": (lines("{'prompt': 'p'}"), "line 2: not JSON at column 2"),
    "a line broken inside a text": (lines('{"prompt": "one\ntwo"}'), "line 2: not JSON at column 16"),
    "a key without quotes": (lines('{prompt: "p"}'), "line 2: not JSON"),
    "a number with 5,000 digits": (lines(f'{{"prompt": {"1" * 5000}}}'), "line 2: JSON that cannot be read"),
    "brackets without end": (lines(DEEP), "line 2: "),
    "a field twice": (response('{"text": "a", "text": "b"}'), "line 2: one object has the field `text` twice"),
    "a list for a line": (lines("[1, 2]"), "line 2: expected an object with `prompt` and `responses`, got a list"),
    "a text for a line": (lines('"p"'), "line 2: expected an object with `prompt` and `responses`, got text"),
    "rows without names": (b'[["A door.", "It was me."]]', "line 1, entry 1: expected an object"),
    # fields
    "no prompt": (lines('{"text": "t"}'), "line 2: no field `prompt`; it has 'text'"),
    "a prompt that is a number": (
        lines('{"prompt": 3, "responses": []}'),
        "line 2, field `prompt`: expected text, got int 3",
    ),
    "a prompt of messages": (
        lines('{"prompt": [{"role": "user"}], "responses": []}'),
        "field `prompt`: expected text, got a list",
    ),
    "no responses": (
        lines('{"prompt": "p", "completions": ["t"]}'),
        "line 2, field `responses`: expected a list, but there is no such field; it has 'prompt', 'completions'",
    ),
    "preferences": (lines('{"prompt": "p", "chosen": "a", "rejected": "b"}'), "it has 'prompt', 'chosen', 'rejected'"),
    "responses that are a text": (
        lines('{"prompt": "p", "responses": "t"}'),
        "field `responses`: expected a list, got text",
    ),
    "responses that are broken JSON": (
        lines('{"prompt": "p", "responses": "[{text}]"}'),
        "neither JSON nor a list; write it with json.dumps",
    ),
    "responses that call a function": (lines('{"prompt": "p", "responses": "[print(1)]"}'), "neither JSON nor a list"),
    "responses that are one object": (
        lines('{"prompt": "p", "responses": {"text": "t"}}'),
        "expected a list, got an object",
    ),
    "columns of two lengths": (
        lines('{"prompt": "p", "responses": {"text": ["a"], "score": []}}'),
        "its lists have 0, 1 entries",
    ),
    "a response that is a text": (
        response('{"text": "t"}, "t"'),
        "entry 2: expected an object with `text` and `score`, got text",
    ),
    "a response without a text": (
        response('{"score": 1}'),
        "entry 1, field `text`: expected text, but there is no such field; it has 'score'",
    ),
    "a text that is a number": (response('{"text": 5}'), "entry 1, field `text`: expected text, got int 5"),
    "a score that is a text": (
        response('{"text": "t", "score": "5"}'),
        "entry 1, field `score`: expected a finite number or null, got text",
    ),
    "a score that is true": (
        response('{"text": "t", "score": true}'),
        "field `score`: expected a finite number or null, got a truth value",
    ),
    "an infinite score": (
        response('{"text": "t", "score": -Infinity}'),
        "field `score`: expected a finite number or null, got -inf",
    ),
    "a score over the range": (
        response('{"text": "t", "score": 1e999}'),
        "field `score`: expected a finite number or null, got inf",
    ),
    "raw, no title": (lines('{"comment_texts": ["t"], "comment_scores": [1]}'), "line 2: no field `post_title`"),
    "raw, a title that is a number": (raw('["t"]', "[1]", "4"), "line 2, field `post_title`: expected text"),
    "raw, a text that is a number": (raw("[4]", "[1]"), "line 2, field `comment_texts`, entry 1: expected text"),
    "raw, texts that are a text": (raw('"t"', "[1]"), "line 2, field `comment_texts`: expected a list, got text"),
    "raw, one score too few": (raw('["t", "u"]', "[1]"), "`comment_texts` has 2 entries and `comment_scores` 1"),
    "raw, a score that is a text": (
        raw('["t"]', '["many"]'),
        "field `comment_scores`, entry 1: expected a finite number",
    ),
    # CSV
    "CSV, a score that is no number": (
        b"prompt,text,score\np,t,many\n",
        "row 1, field `score`: expected a number, got 'many'",
    ),
    "CSV, a score with a comma": (
        b'prompt,text,score\np,t,"1,5"\n',
        "row 1, field `score`: expected a number, got '1,5'",
    ),
    "CSV, an infinite score": (b"prompt,text,score\np,t,inf\n", "row 1, field `score`: expected a finite number"),
    "CSV, a field too many": (b"prompt,text\np,Well, yes.\n", "row 1: more fields than the first line names; quote"),
    "CSV, a quote without end": (b'prompt,text\np,"One\np,two\n', "not CSV (unexpected end of data)"),
    "CSV, not UTF-8": (b"prompt,text\np,caf\xe9\n", "not UTF-8; save the file as UTF-8"),
    "CSV, no text": (
        b"prompt,story\np,t\n",
        "row 1, field `responses`: expected a list, but there is no such field; it has 'prompt', 'story'",
    ),
    # nothing is left
    "no response": (b'{"prompt": "p", "responses": []}', "no response is left after cleaning; dropped nothing"),
    "placeholders alone": (
        response('{"text": "[removed]"}').removeprefix(lines()),
        "no response is left after cleaning; dropped 1 removed comments",
    ),
}


@pytest.mark.parametrize(("content", "message"), DATA.values(), ids=DATA)
def test_bad_data(tmp_path, content, message):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_corpus(path)
    said = str(error.value)
    assert said.startswith(f"{path}")
    assert message in said
    assert "\n" not in said
    assert len(said) < 400


def _empty_folder(path: Path) -> None:
    path.mkdir()


def _folder_of_pictures(path: Path) -> None:
    path.mkdir()
    (path / "a.png").write_bytes(b"\x89PNG")


PLACES = {
    "nothing there": (lambda path: None, "no such file; give JSON Lines"),
    "an empty folder": (_empty_folder, "is a folder without JSON Lines"),
    "a folder of pictures": (_folder_of_pictures, "is a folder without JSON Lines"),
}


@pytest.mark.parametrize(("make", "message"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("read", [read_corpus, lambda path: read_prompts(path, held_out=0.1, seed=0)])
def test_bad_places(tmp_path, make, message, read):
    make(tmp_path / "mine")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "mine")


def test_there_are_at_least_eighty_kinds():
    assert len(DATA) + len(PLACES) >= 80
