"""A corpus divided into parts is the corpus: whole, and shard by shard."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import divided
from ddpo_lib.data.corpus import PACKAGE_CORPUS, read_corpus
from ddpo_lib.data.formats import divide

N = 3


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with a row per response, whose prompts are not together; one of them is blank."""
    path = tmp_path_factory.mktemp("table") / "rows.jsonl"
    rows = [{"prompt": f"p {i % 7}" if i % 7 else " ", "text": f"story {i}", "score": i / 2} for i in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(params=["package", "table"])
def source(request, table):
    return PACKAGE_CORPUS if request.param == "package" else table


@pytest.mark.parametrize("reddit", [False, True])
def test_it_reads_as_the_corpus_does(source, reddit, tmp_path):
    divide(source, tmp_path / "parts", N, reddit=reddit)
    whole = read_corpus(source, reddit=reddit)
    again = read_corpus(tmp_path / "parts", reddit=reddit)
    pd.testing.assert_frame_equal(again, whole)
    assert again.attrs == whole.attrs
    shards = [read_corpus(tmp_path / "parts", shard=(k, N), reddit=reddit) for k in range(1, N + 1)]
    for k, shard in enumerate(shards, 1):
        expected = read_corpus(source, shard=(k, N), reddit=reddit)
        pd.testing.assert_frame_equal(shard, expected)
        assert shard.attrs == expected.attrs
    assert sum(map(len, shards)) == len(whole)


def test_a_shard_of_another_division_is_refused(table, tmp_path):
    divide(table, tmp_path / "parts", N, reddit=False)
    with pytest.raises(InputError, match="divided into 3 parts; ask for shard 1/3"):
        read_corpus(tmp_path / "parts", shard=(1, 4))
    with pytest.raises(InputError, match="divided with reddit False"):
        read_corpus(tmp_path / "parts", shard=(1, 3), reddit=True)


def test_a_torn_part_is_named(table, tmp_path):
    divide(table, tmp_path / "parts", N, reddit=False)
    part = tmp_path / "parts" / "part-0002.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match=r"part-0002.parquet: cannot be read"):
        read_corpus(tmp_path / "parts", shard=(2, 3))


def test_bad_input_leaves_nothing(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "text": "b"}\n{"text": "no prompt"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        divide(bad, tmp_path / "parts", N, reddit=False)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize("parts", [0, 1001])
def test_the_number_of_parts_has_limits(table, parts, tmp_path):
    with pytest.raises(InputError, match="expected 1 to 1000"):
        divide(table, tmp_path / "parts", parts, reddit=False)


def test_a_folder_that_exists_is_not_replaced(table, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        divide(table, tmp_path / "parts", N, reddit=False)
    assert (tmp_path / "parts" / "mine").read_text() == "mine"


def test_half_a_character_is_read_as_in_the_corpus_itself(tmp_path):
    source = tmp_path / "cut.jsonl"
    source.write_text('{"prompt": "a", "responses": [{"text": "cut \\ud83d"}, {"text": "whole \\ud83d\\ude00"}]}\n')
    divide(source, tmp_path / "parts", N, reddit=False)
    again = read_corpus(tmp_path / "parts")
    pd.testing.assert_frame_equal(again, read_corpus(source))
    assert again["text"].tolist() == ["cut \ufffd", "whole \U0001f600"]


def test_what_is_held_in_memory_does_not_grow_with_the_parts(table, tmp_path, monkeypatch):
    """Rows of more than 40 characters: a part that holds 50 or more is written, so at the second row at the latest."""
    monkeypatch.setattr(divided, "HELD", N * 50)
    divide(table, tmp_path / "parts", N, reddit=False)
    pd.testing.assert_frame_equal(read_corpus(tmp_path / "parts"), read_corpus(table))
    for part in (tmp_path / "parts").glob("*.parquet"):
        with pq.ParquetFile(part) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert len(sizes) > 5 and max(sizes) <= 2


def test_the_content_of_a_division_is_its_records_and_parts(table, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(PACKAGE_CORPUS.read_bytes())
    divide(PACKAGE_CORPUS, tmp_path / "one", N, reddit=False)
    divide(copy, tmp_path / "same", N, reddit=False)
    divide(copy, tmp_path / "other", N - 1, reddit=False)
    divide(table, tmp_path / "new", N, reddit=False)
    one, same, other, new = (divided.content_of(tmp_path / folder) for folder in ("one", "same", "other", "new"))
    assert one == same
    assert len({one, other, new}) == 3
    assert divided.content_of(table) is None
