"""Sources of one corpus ranked by every measure."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.evaluation.ranking import rank_sources, sets_by_source
from ddpo_lib.measures.quality import Reward
from ddpo_lib.measures.table import MEASURES
from ddpo_lib.spaces.embed import Space

KEPT = Path(__file__).parents[2] / "results" / "measures-hanna" / "ranking.json"
SPACES = {"semantic": Space("lexical"), "style": Space("stylometric")}
SETTINGS = {"size": 4, "confidence": 0.95, "seed": 0}
WORDS = "star dog king door ship sea lamp road bird stone rain wolf glass bread fire horse".split()


class Words(Reward):
    name, facts = "words", {}

    def predict(self, prompts, texts):
        return [len(text.split()) / 100 for text in texts]

    def save(self, folder):
        raise NotImplementedError

    load = save


def corpus(prompts: int = 48) -> pd.DataFrame:
    """One source that varies with the prompt, and one that hardly does; the second writes more."""
    rng = np.random.default_rng(0)
    rows = []
    for p in range(prompts):
        varied = " ".join(rng.choice(WORDS, 10))
        same = "the old dog sat by the fire and ate bread and slept " + rng.choice(WORDS)
        for source, text in (("varied", varied), ("same", same)):
            rows.append({"prompt_id": f"p{p:02d}", "prompt": f"Prompt {p}", "source": source, "text": text})
    return pd.DataFrame(rows)


def test_every_measure_puts_the_varied_source_above_the_other():
    found = rank_sources(corpus(), Words(), SPACES, **SETTINGS)
    assert (found["sources"], found["sets"], found["size"]) == (["same", "varied"], 12, 4)
    for length in ("whole", "matched"):
        for name in ("semantic", "vendi", "distinct-2", "ead-2", "self-bleu", "rouge-l", "compression", "n-gram"):
            assert found[length]["orders"][name] == [["varied", "same"]], (length, name)
            worse = max if MEASURES[name].diverse == "lower" else min
            means = found[length]["means"][name]
            assert worse(means, key=lambda source: means[source]["mean"]) == "same"
    assert found["whole"]["orders"]["quality"] == [["same", "varied"]]


def test_a_set_has_the_same_prompts_for_every_source():
    table = corpus(10)
    table = table.drop(table[(table["source"] == "same") & (table["prompt_id"] == "p03")].index)
    one, other = sets_by_source(table, 4, seed=0).values()
    assert one[["prompt_id", "prompt"]].equals(other[["prompt_id", "prompt"]])
    assert one["prompt_id"].value_counts().tolist() == [4, 4]
    assert "Prompt 3" not in set(one["prompt"])
    assert one["prompt"].is_unique


def test_sources_without_prompts_in_common_are_named():
    table = corpus(10)
    table.loc[table["source"] == "same", "prompt_id"] += "x"
    with pytest.raises(InputError, match="2 sources answered 0 prompts"):
        sets_by_source(table, 4, seed=0)


def test_what_is_kept_of_hanna_is_whole():
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert len(kept["sources"]) == 7
    assert kept["sets"] * kept["size"] == 96
    for length in ("whole", "matched"):
        assert set(kept[length]["means"]) == set(MEASURES)
        for means in kept[length]["means"].values():
            assert all(value["low"] <= value["mean"] <= value["high"] for value in means.values())
