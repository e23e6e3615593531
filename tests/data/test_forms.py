"""One corpus in every form that tools write, whatever the name of the file."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import EMPTY, read_corpus, read_prompts

# texts and scores that are false in Python, or that tools take for a missing value
GROUPED = [
    {"prompt": "Sea", "responses": [{"text": "Blue.", "score": 0}, {"text": "0", "score": 7}]},
    {
        "prompt": "0",
        "responses": [{"text": "None", "score": None}, {"text": "nan", "score": 3}, {"text": "null", "score": -1}],
    },
]
EXPECTED = [("Sea", "Blue.", 0.0), ("Sea", "0", 7.0), ("0", "None", None), ("0", "nan", 3.0), ("0", "null", -1.0)]
ROWS = [{"prompt": line["prompt"], **response} for line in GROUPED for response in line["responses"]]
LINES = [json.dumps(line) for line in GROUPED]
TABLE, FRAME = pd.DataFrame(GROUPED), pd.DataFrame(ROWS)
RESPONSES = pa.large_list(pa.struct([("score", pa.float64()), ("text", pa.large_string())]))
LARGE = pa.table(
    {
        "responses": pa.array([line["responses"] for line in GROUPED], RESPONSES),
        "prompt": pa.array([line["prompt"] for line in GROUPED], pa.large_string()).dictionary_encode(),
    }
)
AS_TEXT = TABLE.assign(responses=TABLE["responses"].map(json.dumps))
IN_COLUMNS = [
    {**line, "responses": {name: [response[name] for response in line["responses"]] for name in ("text", "score")}}
    for line in GROUPED
]
BYTES = pa.table({name: pa.array([row[name].encode() for row in ROWS]) for name in ("prompt", "text")})


def to_bytes(write) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def zipped(content: bytes) -> bytes:
    def write(sink):
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("corpus.jsonl", content)

    return to_bytes(write)


def packed(content: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def parquet(table) -> bytes:
    return to_bytes(lambda sink: pq.write_table(table, sink))


def stream(table: pa.Table) -> bytes:
    def write(sink):
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    return to_bytes(write)


PLAIN = "\n".join(LINES).encode()
NESTED = pa.Table.from_pylist(GROUPED)
FORMS = {
    "lines": PLAIN,
    "CRLF": "\r\n".join(LINES).encode() + b"\r\n",
    "blank lines": b"\n\n" + "\n \n".join(LINES).encode() + b"\n\n",
    "byte order mark": PLAIN.decode().encode("utf-8-sig"),
    "byte order marks of joined files": b"".join(line.encode("utf-8-sig") + b"\n" for line in LINES),
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-16 without a mark": PLAIN.decode().encode("utf-16-le"),
    "UTF-16 big endian": PLAIN.decode().encode("utf-16-be"),
    "UTF-32": PLAIN.decode().encode("utf-32"),
    "one after another": "".join(LINES).encode(),
    "commas after lines": ",\n".join(LINES).encode() + b",\n",
    "record separators": b"".join(b"\x1e" + line.encode() + b"\n" for line in LINES),
    "over several lines": "\n".join(json.dumps(line, indent=2) for line in GROUPED).encode(),
    "a list": json.dumps(GROUPED).encode(),
    "a list over lines": json.dumps(GROUPED, indent=1).encode(),
    "a list with a comma at its end": ("[" + ",\n".join(LINES) + ",\n]").encode(),
    "lists one after another": "\n".join(f"[{line}]" for line in LINES).encode(),
    "data in a field": json.dumps({"version": "1", "data": GROUPED}).encode(),
    "a dict of columns": json.dumps(TABLE.to_dict("list")).encode(),
    **{f"pandas JSON {how}": TABLE.to_json(orient=how).encode() for how in ("records", "columns", "index", "split")},
    "pandas JSON table": FRAME.to_json(orient="table").encode(),
    "pandas JSON rows": FRAME.to_json(orient="columns", indent=2).encode(),
    "gzip": gzip.compress(PLAIN),
    "gzip in two parts": gzip.compress(LINES[0].encode() + b"\n") + gzip.compress(LINES[1].encode()),
    "bzip2": bz2.compress(PLAIN),
    "xz": lzma.compress(PLAIN),
    "zstd": packed(PLAIN, "zstd"),
    "lz4": packed(PLAIN, "lz4"),
    "zip": zipped(PLAIN),
    "gzipped Parquet": gzip.compress(parquet(NESTED)),
    "gzipped CSV": gzip.compress(FRAME.to_csv().encode()),
    "Parquet": parquet(NESTED),
    "Parquet, large types, fields in another order": parquet(LARGE),
    "Parquet of pandas": to_bytes(TABLE.to_parquet),
    "Parquet of pandas, rows": to_bytes(FRAME.to_parquet),
    "Parquet of pandas, categories": to_bytes(FRAME.astype({"prompt": "category", "text": "category"}).to_parquet),
    "Parquet with JSON text": to_bytes(AS_TEXT.to_parquet),
    "Parquet with columns of lists": parquet(pa.Table.from_pylist(IN_COLUMNS)),
    "Parquet with bytes": parquet(BYTES.append_column("score", pa.array([row["score"] for row in ROWS]))),
    "Parquet with decimals": parquet(
        pa.Table.from_pandas(FRAME).set_column(
            2, "score", pa.array([row["score"] for row in ROWS], pa.float64()).cast(pa.decimal128(5, 1))
        )
    ),
    "Arrow file": to_bytes(lambda sink: feather.write_feather(NESTED, sink)),
    "Arrow stream": stream(NESTED),
    "CSV": FRAME.to_csv(index=False).encode(),
    "CSV with an index": FRAME.to_csv().encode(),
    "CSV of Excel": ("sep=;\r\n" + FRAME.to_csv(sep=";", index=False, lineterminator="\r\n")).encode("utf-8-sig"),
    "TSV": FRAME.to_csv(sep="\t", index=False).encode(),
    "CSV in UTF-16": FRAME.to_csv(index=False).encode("utf-16"),
    "CSV with JSON text": AS_TEXT.to_csv(index=False).encode(),
    "CSV with lists as Python prints them": TABLE.to_csv(index=False).encode(),
}


def triples(table: pd.DataFrame) -> list[tuple]:
    scores = (None if np.isnan(score) else score for score in table["score"])
    return list(zip(table["prompt"], table["text"], scores, strict=True))


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_every_form_gives_one_table_whatever_the_name(tmp_path, content):
    for name in ("0f3a9c", "stories.PARQUET", "stories.csv"):
        path = tmp_path / name
        path.write_bytes(content)
        table = read_corpus(path, held_out=0.0)
        assert triples(table) == EXPECTED
        assert table.attrs == {"read": {"prompts": 2, "responses": 5}, "dropped": [], "changed": []}


def _hive(folder: Path) -> None:
    for row in ROWS:
        part = folder / f"prompt={row['prompt']}"
        part.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([{"text": row["text"], "score": row["score"]}]), part / f"{row['text']}.pq")


def _parts(folder: Path) -> None:
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.crc").write_bytes(b"crc")
    (folder / "README.md").write_text("Two parts.")
    for number, line in enumerate(GROUPED):
        pq.write_table(pa.Table.from_pylist([line]), folder / f"part-{number:05d}.snappy.parquet")


def _gzipped_parts(folder: Path) -> None:
    folder.mkdir()
    for number, line in enumerate(LINES):
        (folder / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(line.encode()))


def _saved_again(folder: Path) -> None:
    """Two shards, and then one in the same place: the second file is left."""
    Dataset.from_list([*GROUPED, *GROUPED]).save_to_disk(folder, num_shards=2)
    Dataset.from_list(GROUPED).save_to_disk(folder)


FOLDERS = {
    "parts": _parts,
    "gzipped parts": _gzipped_parts,
    "saved by datasets": lambda folder: Dataset.from_list(GROUPED).save_to_disk(folder),
    "saved by datasets, split": lambda folder: DatasetDict(train=Dataset.from_list(GROUPED)).save_to_disk(folder),
    "saved twice by datasets": _saved_again,
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_read_in_the_order_of_its_files(tmp_path, make):
    make(tmp_path / "corpus")
    assert triples(read_corpus(tmp_path / "corpus", held_out=0.0)) == EXPECTED


def test_a_partitioned_folder_has_fields_in_its_names(tmp_path):
    _hive(tmp_path / "corpus")
    assert sorted(map(str, triples(read_corpus(tmp_path / "corpus", held_out=0.0)))) == sorted(map(str, EXPECTED))


def test_rows_of_a_prompt_need_not_be_together(tmp_path):
    path = tmp_path / "rows.csv"
    FRAME.iloc[[0, 2, 1, 4, 3]].to_csv(path, index=False)
    table = read_corpus(path, held_out=0.0)
    assert table["text"].tolist() == ["Blue.", "0", "None", "null", "nan"]
    assert table["prompt_id"].tolist() == ["p00000", "p00000", "p00001", "p00001", "p00001"]


def test_a_row_keeps_its_source_and_flags(tmp_path):
    path = tmp_path / "rows.csv"
    fields = {"prompt": "p", "source": "0", "seen": "True", "finished": "false"}
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, [*fields, "text"])
        rows.writeheader()
        rows.writerows([{**fields, "text": "One, two"}, {**fields, "text": 'Three\n"four"', "finished": ""}])
    table = read_corpus(path, held_out=0.0, keep_repeats=True, flags=("seen", "finished"))
    assert table["text"].tolist() == ["One, two", 'Three\n"four"']
    assert table["source"].tolist() == ["0", "0"]
    assert table["seen"].tolist() == [True, True]
    assert table["finished"].tolist() == [False, None]


@pytest.mark.parametrize(
    "content",
    [
        b"prompt\nOne.\nTwo.\n",
        b'[{"prompt": "One."}, {"prompt": "Two."}]',
        b'{"post_title": "[WP] One."}\n{"post_title": "Two."}',
    ],
)
def test_prompts_alone_are_read_in_every_form(tmp_path, content):
    path = tmp_path / "alone"
    path.write_bytes(content)
    table = read_prompts(path, held_out=0.1, seed=0)
    assert table["prompt"].tolist() == ["One.", "Two."]
    assert table["split"].tolist() == ["test", "test"]


def test_what_is_blank_or_no_number_is_dropped_and_counted_and_the_rest_is_read(tmp_path):
    path = tmp_path / "odd.jsonl"
    responses = [
        {"text": " ", "score": 9},
        {"text": None, "score": 8},
        None,
        {"text": "Kept.", "score": float("nan")},
        {"text": "Half \ud83d", "score": 1},
    ]
    lines = [{"prompt": "p", "responses": responses}, {"prompt": " ", "responses": responses[3:]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    table = read_corpus(path, held_out=0.0)
    assert triples(table) == [("p", "Kept.", None), ("p", "Half \ufffd", 1.0)]
    assert {d["what"]: d["count"] for d in table.attrs["dropped"]} == {
        "responses of blank prompts": 2,
        "blank samples": 3,
    }
    assert {d["what"]: d["count"] for d in table.attrs["changed"]} == {
        "scores that are NaN": 1,
        "texts with half a character": 1,
    }
    assert read_corpus(path, held_out=0.0, keep_repeats=True)["text"].tolist()[:3] == [EMPTY] * 3


def test_one_blank_comment_among_many_ends_no_read(tmp_path):
    comments = [f"Story {number}." for number in range(3000)]
    comments[1500] = "  "
    post = {"post_title": "[WP] Many.", "comment_texts": comments, "comment_scores": [1] * 3000}
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([post]))
    table = read_corpus(path, held_out=0.0)
    assert len(table) == 2999
    assert [(d["what"], d["count"]) for d in table.attrs["dropped"]] == [("blank comments", 1)]


def test_a_record_longer_than_a_read_is_whole(tmp_path):
    text = "word é " * 500_000
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps({**line, "responses": [{"text": text}]}) for line in GROUPED))
    assert read_corpus(path, held_out=0.0)["text"].tolist() == [text.strip()] * 2


def test_the_hub_is_not_asked_for_a_missing_file():
    for name in ("data/stories.pq", "data/stories.jsonl.gz", "data/stories.ARROW"):
        with pytest.raises(InputError, match="no such file"):
            read_corpus(name)


def test_a_list_of_one_message_is_its_text_and_more_are_refused(tmp_path):
    def message(role: str, content: str) -> dict:
        return {"role": role, "content": content}

    path = tmp_path / "chat.jsonl"
    answers = [{"text": [message("assistant", text)], "score": i} for i, text in enumerate(("Blue.", "Green."))]
    path.write_text(json.dumps({"prompt": [message("user", "Sea")], "responses": answers}) + "\n")
    table = read_corpus(path, held_out=0.0)
    assert table["prompt"].unique().tolist() == ["Sea"]
    assert table["text"].tolist() == ["Blue.", "Green."]
    turns = [message("system", "Be brief."), message("user", "Sea")]
    path.write_text(json.dumps({"prompt": turns, "responses": answers}) + "\n")
    with pytest.raises(InputError, match=r"line 1, field `prompt`: 2 messages; a corpus has one text per prompt"):
        read_corpus(path, held_out=0.0)
