"""Samples without an answer: in the file that `ddpo generate` writes, in a table, and in what `ddpo evaluate` tells."""

import json

import pandas as pd
import pytest
from recorded import message, openai
from scripted import Scripted, Sent
from test_main import said

from ddpo_lib.cli.evaluate_samples import describe_unanswered
from ddpo_lib.data.corpus import EMPTY, read_corpus
from ddpo_lib.evaluation.compare_arms import describe_samples
from ddpo_lib.sampling.completions import answered, count_unanswered


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


def test_a_file_marks_what_is_refused_or_only_thoughts(server, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "A bench."}\n{"prompt": "A knife."}\n{"prompt": "A moon."}\n')

    def rule(body):
        asked = body["messages"][0]["content"]
        if "knife" in asked:
            return Sent(400, openai("The prompt was filtered.", "content_filter"))
        return Sent(body=message("<think>A moon?", "length")) if "moon" in asked else None

    server.rule = rule
    words = ["--samples", "2", "--tokens", "77", "--sends", "temperature,top_k", "--url", server.url, "--model", "m"]
    told = said("generate", "-", tmp_path / "prompts.jsonl", tmp_path / "out.jsonl", *words)
    assert "6 samples for 3 of 3 held-out prompts; 2 refused and 2 only thoughts, which no measure counts" in told
    assert {(body["max_tokens"], body["top_k"], "top_p" in body) for body in server.seen} == {(77, 50, False)}
    lines = {line["prompt"]: line["responses"] for line in map(json.loads, (tmp_path / "out.jsonl").open())}
    assert all(r["text"] == EMPTY and r["refused"] and not r["finished"] for r in lines["A knife."])
    assert all(r["text"] == EMPTY and r["only_thoughts"] and not r["finished"] for r in lines["A moon."])
    assert not any("refused" in r or "only_thoughts" in r for r in lines["A bench."])
    flags = ("finished", "refused", "only_thoughts")
    table = read_corpus(tmp_path / "out.jsonl", held_out=0, keep_repeats=True, flags=flags)
    assert set(answered(table)["prompt"]) == {"A bench."}
    about = {"m": describe_samples(table)}
    assert (about["m"]["samples"], about["m"]["blank"], about["m"]["cut"]) == (2, 0, 0)
    assert describe_unanswered(about) == ["m: of 6 samples 2 refused and 2 only thoughts: not measured"]
    learned = read_corpus(tmp_path / "out.jsonl", held_out=0)  # nothing learns from them either
    assert set(learned["prompt"]) == {"A bench."}


def test_tables_of_before_have_no_such_columns():
    table = pd.DataFrame({"text": ["a", ""]})
    assert len(answered(table)) == 2
    assert count_unanswered(table) == {"refused": 0, "only_thoughts": 0}
    marked = table.assign(refused=[None, True], only_thoughts=[None, None])  # a file that does not say it for each
    assert answered(marked)["text"].tolist() == ["a"]
    assert count_unanswered(marked) == {"refused": 1, "only_thoughts": 0}
