"""What a model's texts come to in a world with known modes, against worked numbers and the world's own truth."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.worlds import modes
from ddpo_lib.worlds.grammar import Mode, wordings
from ddpo_lib.worlds.modeworld import World, write_corpus

WORLD = World(prompts=16, held_out=0, plots=6, voices=3)


def table(*rows):
    return pd.DataFrame(rows, columns=["plot", "voice", "flawed"]).assign(faithful=True)


def test_a_worked_example():
    found = modes.measure(table((0, 0, False), (0, 1, True), (5, 2, False), (-1, -1, False)), WORLD)
    assert found["texts"] == 4 and found["none"] == 0.25
    assert found["plots"] == pytest.approx([2 / 3, 0, 0, 0, 0, 1 / 3])
    assert found["voices"] == pytest.approx([1 / 3] * 3)
    assert found["voice_entropy"] == pytest.approx(math.log2(3))
    assert found["plot_entropy"] == pytest.approx(math.log2(3) - 2 / 3)
    assert found["flawed"] == found["rare_plots"] == pytest.approx(1 / 3)
    assert found["rare_good"] == pytest.approx(1 / 2)  # of the two without a flaw
    assert found["plot_coverage"] == pytest.approx(2 / 6) and found["voice_coverage"] == 1.0


def test_a_rare_plot_with_a_flaw_is_no_rare_good_one():
    found = modes.measure(table((5, 0, True), (0, 0, False)), WORLD)
    assert found["rare_plots"] == 0.5 and found["rare_good"] == 0.0
    assert np.isnan(modes.measure(table((5, 0, True)), WORLD)["rare_good"])  # no good story says nothing of them


def test_texts_that_cannot_be_read_leave_no_numbers_but_their_share():
    found = modes.measure(modes.read_modes(pd.DataFrame({"prompt": "", "text": ["Once upon a time.", ""]})), WORLD)
    assert found["none"] == 1.0
    assert np.isnan(found["rare_plots"]) and np.isnan(found["plot_entropy"])


def test_what_is_read_from_a_corpus_is_what_was_written_into_it():
    corpus = write_corpus(WORLD)
    read = modes.read_modes(corpus)
    assert read.pop("faithful").all()
    assert read.astype({"plot": int}).equals(corpus[["plot", "voice", "flawed"]].astype(read.dtypes.to_dict()))


def test_a_story_is_faithful_that_names_its_prompts_hero_place_and_object_before_any_other():
    prompt = "Simply imagine Mara, the foggy harbour and a brass lamp."
    stories = [text for flawed in (False, True) for text in wordings(prompt, Mode(0, 0, flawed))]
    strangers = [
        text.replace(name, other)
        for text in stories[:3]
        for name, other in (("Mara", "Ruth"), ("harbour", "mill"), ("lamp", "clock"))
    ]
    read = modes.read_modes(pd.DataFrame({"prompt": prompt, "text": [*stories, *strangers, "Mara, harbour, lamp"]}))
    assert read["faithful"].tolist() == [True] * len(stories) + [False] * len(strangers) + [False]
    assert modes.measure(read, WORLD)["faithful"] == pytest.approx(len(stories) / (len(stories) + len(strangers)))


def test_a_large_corpus_comes_to_the_truth():
    world = World(prompts=400, held_out=0, responses=100)
    found, truth = modes.measure(modes.read_modes(write_corpus(world)), world), modes.true_shares(world)
    for name in ("rare_plots", "rare_voices", "flawed"):
        spread = math.sqrt(truth[name] * (1 - truth[name]) / found["texts"])
        assert abs(found[name] - truth[name]) < 4 * spread
    assert found["plot_entropy"] == pytest.approx(truth["plot_entropy"], abs=0.02)


def test_uniform_modes_have_the_largest_entropy_and_one_mode_has_none():
    assert modes.entropy(np.full(8, 1 / 8)) == pytest.approx(3.0)
    assert modes.entropy(np.array([1.0, 0.0])) == 0.0
    assert modes.true_shares(World(zipf=0, voice_zipf=0))["plot_entropy"] == pytest.approx(math.log2(6))
