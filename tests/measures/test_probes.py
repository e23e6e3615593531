"""Broken stories: what is broken, what that does to a score, and which probes count."""

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.measures import probes
from ddpo_lib.measures.quality import Reward


class Words(Reward):
    """Longer is worse: a hundredth off for each word, as no reward should have it."""

    name, facts = "words", {}

    def predict(self, prompts, texts):
        return np.array([-len(text.split()) / 100 for text in texts])

    def save(self, folder): ...

    @classmethod
    def load(cls, folder): ...


class FirstWord(Words):
    """1 where the text begins with the first word of its prompt."""

    def predict(self, prompts, texts):
        return np.array([float(p.split()[0] == t.split()[0]) for p, t in zip(prompts, texts, strict=True)])


STORIES = pd.DataFrame(
    {
        "prompt_id": ["a", "a", "b", "b", "c", "c"],
        "prompt": ["Ash burns"] * 2 + ["Birds sing"] * 2 + ["Cats sleep"] * 2,
        "text": [
            "Ash fell. It was grey. We left.",
            "Ash again. Nobody came. The end.",
            "Birds flew. They sang! Night came.",
            "Birds left. Why? None knew.",
            "Cats slept. Rain fell. Morning came.",
            "Cats woke. They ate. They slept.",
        ],
    }
)


def test_a_cut_story_is_the_first_half_of_its_words():
    prompts, texts = probes.cut(STORIES)
    assert texts[0] == "Ash fell. It" and prompts.equals(STORIES["prompt"])


def test_every_story_stands_under_another_prompt():
    prompts, texts = probes.swap_prompts(STORIES)
    assert prompts.tolist() == ["Birds sing"] * 2 + ["Cats sleep"] * 2 + ["Ash burns"] * 2
    assert texts.equals(STORIES["text"])


def test_shuffling_keeps_the_sentences():
    _, texts = probes.shuffle(STORIES, np.random.default_rng(0))
    assert [sorted(t.split()) for t in texts] == [sorted(t.split()) for t in STORIES["text"]]
    assert (texts != STORIES["text"]).any()


def test_two_sentences_are_not_shuffled():
    rows = pd.DataFrame({"prompt": ["p"], "text": ["One. Two."]})
    assert probes.shuffle(rows, np.random.default_rng(0))[1].tolist() == ["One. Two."]


def test_a_reward_of_brevity_rises_when_stories_are_cut():
    found = probes.probe(Words(), STORIES, confidence=0.95, seed=0)
    # 7 words lose 4, 6 words lose 3; two stories per prompt of 7 and 6, 6 and 5 (2 left), 6 and 6 words
    assert found["cut"]["mean"] == pytest.approx(np.mean([(0.04 + 0.03) / 2, (0.03 + 0.03) / 2, 0.03]))
    assert found["swapped"]["mean"] == found["shuffled"]["mean"] == 0
    assert probes.rises(found) == ["cut"]


def test_a_reward_that_reads_the_prompt_falls_when_it_is_swapped():
    found = probes.probe(FirstWord(), STORIES, confidence=0.95, seed=0)
    assert found["swapped"]["mean"] == -1 and probes.rises(found) == []


def test_blank_and_cut_stories_are_not_broken():
    rows = STORIES.assign(finished=[True, False] * 3)
    rows.loc[0, "text"] = " "
    found = probes.probe(Words(), rows, confidence=0.95, seed=0)
    assert found["cut"]["prompts"] == 2
