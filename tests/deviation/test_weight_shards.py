"""Weights of a corpus in parts: what one machine would have given, bit for bit."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import PACKAGE_CORPUS, Limits, read_corpus
from ddpo_lib.data.formats import divide
from ddpo_lib.deviation import weight_shards, weights_table

WORKFLOW = Path(__file__).parents[2] / "workflow" / "weights.smk"
N = 4


def weigh(source, shard=None, semantic="minilm") -> pd.DataFrame:
    return weights_table.weights(
        str(source), semantic, "stylometric", "minmax", 0.0, shard, held_out=0.4, split_seed=42
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Twelve prompts of the package's corpus; one comes twice, at the first line and the last."""
    lines = PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines()[:12]
    again = json.loads(lines[0])
    again["comment_texts"], again["comment_scores"] = ["Another end.", "And another one."], [3, 9]
    path = tmp_path_factory.mktemp("shards") / "corpus.jsonl"
    path.write_text("\n".join([*lines, json.dumps(again)]), encoding="utf-8")
    return path


def test_four_shards_with_caches_of_their_own_give_the_whole_bit_for_bit(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "whole"))
    whole = weigh(corpus)
    assert whole["prompt_id"].nunique() == 12
    assert whole["prompt_id"].eq("p00000").sum() == 18
    assert set(whole["split"]) == {"train", "test"}
    for k in range(1, N + 1):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{k}"))
        weigh(corpus, f"{k}/{N}").to_parquet(tmp_path / f"{k}.parquet")
    parts = [tmp_path / f"{k}.parquet" for k in range(1, N + 1)]
    assert sum(len(pd.read_parquet(part)) > 0 for part in parts) > 1
    assert weight_shards.merge(parts[::-1], tmp_path / "merged.parquet") == len(whole)
    merged = pd.read_parquet(tmp_path / "merged.parquet")
    pd.testing.assert_frame_equal(merged, whole, check_exact=True)


def test_the_workflow_runs_the_shards_and_merges_them(corpus, tmp_path):
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(WORKFLOW),
        "--cores",
        "2",
        "--directory",
        str(tmp_path),
    ]
    settings = [f"source={corpus}", "out=it's all.parquet", f"shards={N}", "options=--semantic lexical --held-out 0.4"]
    done = subprocess.run(
        [*command, "--config", *settings],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "it's all.parquet"), weigh(corpus, semantic="lexical"), check_exact=True
    )
    assert not list(tmp_path.glob("*.shards/*.parquet"))


def test_shards_hold_each_prompt_once_and_can_be_empty(corpus):
    whole = read_corpus(corpus, held_out=0.0)
    parts = [read_corpus(corpus, held_out=0.0, shard=(k, 40)) for k in range(1, 41)]
    assert min(map(len, parts)) == 0
    assert sorted(name for part in parts for name in part["response_id"]) == sorted(whole["response_id"])
    assert all(part.dtypes.equals(whole.dtypes) for part in parts)
    for key in ("prompts", "responses"):
        assert sum(part.attrs["read"][key] for part in parts) == whole.attrs["read"][key]
    dropped = sum((left_out(part) for part in parts), Counter())
    assert dropped == left_out(whole)
    assert dropped["duplicate prompts"] == 1


def left_out(table: pd.DataFrame) -> Counter:
    return Counter({entry["what"]: entry["count"] for entry in table.attrs["dropped"]})


def test_an_empty_shard_is_a_table_that_merges(corpus, tmp_path):
    for k in range(1, 41):
        weigh(corpus, f"{k}/40", semantic="lexical").to_parquet(tmp_path / f"{k}.parquet")
    weight_shards.merge([tmp_path / f"{k}.parquet" for k in range(1, 41)], tmp_path / "merged.parquet")
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "merged.parquet"), weigh(corpus, semantic="lexical"), check_exact=True
    )


def test_prompts_that_straddle_what_is_read_at_once_stay_whole(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(weight_shards, "ROWS", 5)
    for k in (1, 2):
        weigh(corpus, f"{k}/2", semantic="lexical").to_parquet(tmp_path / f"{k}.parquet")
    weight_shards.merge([tmp_path / "1.parquet", tmp_path / "2.parquet"], tmp_path / "merged.parquet")
    whole = weigh(corpus, semantic="lexical")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "merged.parquet"), whole, check_exact=True)


def test_bad_parts_are_named(corpus, tmp_path):
    weigh(corpus, "1/2", semantic="lexical").to_parquet(tmp_path / "a.parquet")
    weigh(corpus, "2/2", semantic="delta").to_parquet(tmp_path / "delta.parquet")
    weigh(corpus, "2/3", semantic="lexical").to_parquet(tmp_path / "third.parquet")
    weigh(corpus, semantic="lexical").to_parquet(tmp_path / "whole.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    for parts, words in {
        ("a", "a"): "a.parquet: is shard 1/2, and so is",
        ("a",): "of 2 shards these are missing: 2",
        ("a", "delta"): "delta.parquet: is of another corpus, number of shards or options",
        ("a", "third"): "third.parquet: is of another corpus, number of shards or options",
        ("a", "whole"): "whole.parquet: is no shard",
        ("a", "text"): "text.parquet: not a Parquet file",
        ("a", "other"): "other.parquet: is no shard",
        ("a", "none"): "none.parquet",
    }.items():
        with pytest.raises(InputError, match=words):
            weight_shards.merge([tmp_path / f"{name}.parquet" for name in parts], tmp_path / "out.parquet")


def test_shards_of_one_file_that_was_changed_in_between_are_told_apart_and_a_moved_file_is_the_same(corpus, tmp_path):
    moved, changed = tmp_path / "moved.jsonl", tmp_path / corpus.name
    moved.write_bytes(corpus.read_bytes())
    changed.write_bytes(corpus.read_bytes().replace(b"lighthouse", b"lightship"))
    weigh(corpus, "1/2", semantic="lexical").to_parquet(tmp_path / "1.parquet")
    weigh(moved, "2/2", semantic="lexical").to_parquet(tmp_path / "2.parquet")
    weigh(changed, "2/2", semantic="lexical").to_parquet(tmp_path / "changed.parquet")
    with pytest.raises(InputError, match=r"changed.parquet: is of another corpus"):
        weight_shards.merge([tmp_path / "1.parquet", tmp_path / "changed.parquet"], tmp_path / "merged.parquet")
    weight_shards.merge([tmp_path / "1.parquet", tmp_path / "2.parquet"], tmp_path / "merged.parquet")
    whole = weigh(corpus, semantic="lexical")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "merged.parquet"), whole, check_exact=True)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "2", "a/b", "1/0", "-1/4", ""])
def test_a_shard_that_is_none_is_refused(corpus, shard):
    with pytest.raises(InputError, match="expected K/N"):
        weigh(corpus, shard)


@pytest.mark.parametrize("limits", [Limits(prompts=3), Limits(held_out=1)])
def test_a_shard_cannot_cap_prompts(corpus, limits):
    with pytest.raises(ValueError, match="compares all prompts"):
        read_corpus(corpus, limits=limits, shard=(1, 2))


def test_a_shard_of_a_counted_space_keeps_no_vectors_and_counts_few_texts_at_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_table, "COUNTED_AT_ONCE", 5)
    alone = weigh(corpus, "1/1", semantic="lexical")
    assert not (tmp_path / "cache").exists()
    pd.testing.assert_frame_equal(alone, weigh(corpus, semantic="lexical"), check_exact=True)


def test_a_shard_of_a_divided_corpus_reads_its_own_part_alone(corpus, tmp_path):
    divide(corpus, tmp_path / "parts", N, reddit=False)
    (tmp_path / "parts" / "part-0002.parquet").unlink()
    for k in (1, 3, 4):
        expected = weigh(corpus, f"{k}/{N}", semantic="lexical")
        pd.testing.assert_frame_equal(weigh(tmp_path / "parts", f"{k}/{N}", semantic="lexical"), expected)
