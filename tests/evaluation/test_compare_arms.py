"""Arms scored by every measure, compared with the baseline, at several temperatures; verdicts."""

import math

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.evaluation.by_prompt import draw_sets
from ddpo_lib.evaluation.compare_arms import (
    HEADLINE,
    NO_SEED,
    describe_samples,
    score_by_prompt,
    summarise,
    summarise_sweep,
    why_not_comparable,
)
from ddpo_lib.evaluation.published import verdict
from ddpo_lib.measures.quality import Reward
from ddpo_lib.spaces.embed import Space

SETTINGS = {"draws": 400, "confidence": 0.95, "seed": 0}
AGAINST = {"dpo": None, "ddpo": "dpo", "gold": "dpo", "dorpo": "orpo"}
STYLE = Space("stylometric")


# Arms


def by_prompt(**scores: dict[str, float]) -> pd.DataFrame:
    """Of each arm, a mapping from prompt to score, which stands for every measure."""
    rows = [
        {"arm": arm, "prompt_id": prompt, "seed": 0, "quality": value, "semantic": 2 * value, "style": -value}
        for arm, values in scores.items()
        for prompt, value in values.items()
    ]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict:
    return summarise(table, against=AGAINST, confidence=0.95)


def test_arms_are_compared_over_the_prompts_that_both_have():
    table = by_prompt(
        dpo={"p1": 1.0, "p2": 2.0, "p3": 30.0}, ddpo={"p4": 50.0, "p2": 2.5, "p1": 1.6}, gold={"p3": 29.0}
    )
    result = summary(table)
    assert {arm: interval["quality"]["mean"] for arm, interval in result["arms"].items()} == {
        "dpo": 11.0,
        "ddpo": pytest.approx(54.1 / 3),
        "gold": 29.0,
    }
    assert result["differences"].keys() == {"ddpo", "gold"}
    for measure, expected in (("quality", 0.55), ("semantic", 1.1), ("style", -0.55)):
        difference = result["differences"]["ddpo"][measure]
        assert (difference["mean"], difference["prompts"]) == (pytest.approx(expected), 2)
        half = 12.7062 * abs(expected) / 11  # t at one degree of freedom times half of what the two differ by
        assert difference["high"] - difference["mean"] == pytest.approx(half, rel=1e-4)
    gold = result["differences"]["gold"]["quality"]
    assert (gold["mean"], gold["low"], gold["p"]) == (-1.0, None, None)  # one prompt is too few for an interval


def test_an_arm_without_a_prompt_in_common_has_no_difference():
    result = summary(by_prompt(dpo={"p1": 1.0, "p2": 2.0}, ddpo={"p3": 3.0, "p4": 5.0}))
    assert result["arms"]["ddpo"]["quality"]["mean"] == 4.0
    assert result["differences"]["ddpo"]["quality"]["mean"] is None
    assert result["differences"]["ddpo"]["quality"]["prompts"] == 0


def test_paired_differences_are_tighter_than_the_arms():
    rng = np.random.default_rng(0)
    base = dict(enumerate(rng.normal(0, 5, 50)))
    moved = {prompt: value + rng.normal(0.3, 0.2) for prompt, value in base.items()}
    difference = summary(by_prompt(dpo=base, ddpo=moved))["differences"]["ddpo"]["quality"]
    assert 0.2 < difference["low"] < difference["high"] < 0.4


def test_an_arm_is_compared_with_its_own_twin_or_with_none():
    table = by_prompt(
        dpo={1: 1.0, 2: 2.0}, ddpo={1: 2.0, 2: 4.0}, orpo={1: 5.0, 2: 5.0}, dorpo={1: 5.0, 2: 7.0}, new={1: 0.0, 2: 0.0}
    )
    result = summary(table)
    assert result["against"] == {"ddpo": "dpo", "dorpo": "orpo"}
    assert {arm: of["quality"]["mean"] for arm, of in result["differences"].items()} == {"ddpo": 1.5, "dorpo": 1.0}
    assert result["arms"].keys() == {"dpo", "ddpo", "orpo", "dorpo", "new"}
    alone = summary(table[table["arm"] != "orpo"])
    assert alone["differences"].keys() == alone["against"].keys() == {"ddpo"}


def test_seeds_are_a_second_level_and_an_arm_without_them_stands_for_all():
    rng = np.random.default_rng(0)
    base = by_prompt(dpo=dict(enumerate(rng.normal(0, 1, 12))), gold=dict(enumerate(rng.normal(0, 1, 12))))
    of_dpo = [base[base["arm"] == "dpo"].assign(seed=s) for s in range(5)]
    of_ddpo = [
        part.assign(arm="ddpo", quality=part["quality"] + shift)
        for part, shift in zip(of_dpo, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)
    ]
    table = pd.concat([*of_dpo, *of_ddpo, base[base["arm"] == "gold"]], ignore_index=True)
    difference = summary(table)["differences"]["ddpo"]["quality"]
    assert difference["mean"] == pytest.approx(0.3)
    # prompts agree, seeds do not: t at 4 degrees of freedom times sqrt(0.1 / 4 / 5)
    assert (difference["seeds"], difference["freedom"]) == (5, pytest.approx(4))
    assert difference["high"] - 0.3 == pytest.approx(2.77645 * math.sqrt(0.005), rel=1e-4)
    assert summary(table)["arms"]["gold"]["quality"]["mean"] == pytest.approx(
        summary(base)["arms"]["gold"]["quality"]["mean"]
    )


def test_what_comes_from_no_training_stands_beside_every_seed_and_a_seed_less_trained_does_not():
    arm = by_prompt(dpo={1: 1.0, 2: 2.0, 3: 4.0})
    dpo = pd.concat([arm.assign(seed=s, quality=arm["quality"] + s) for s in range(3)])
    people = by_prompt(gold={1: 5.0, 2: 6.0, 3: 8.0}).assign(seed=NO_SEED)
    once = by_prompt(ddpo={1: 1.5, 2: 2.5, 3: 4.5})  # trained from seed 0 alone
    differences = summary(pd.concat([dpo, people, once], ignore_index=True))["differences"]
    gold, ddpo = differences["gold"]["quality"], differences["ddpo"]["quality"]
    assert (gold["mean"], gold["seeds"]) == (pytest.approx(3.0), 3)  # 4 minus 0, 1 and 2
    assert (ddpo["mean"], ddpo["seeds"], ddpo["prompts"]) == (pytest.approx(0.5), 1, 3)


# Samples that the token limit cut


class Words(Reward):
    """A hundredth for each word."""

    name, facts = "words", {}

    def predict(self, prompts, texts):
        return np.array([len(text.split()) / 100 for text in texts])

    def save(self, folder):
        raise NotImplementedError

    @classmethod
    def load(cls, folder):
        raise NotImplementedError


def samples_of(*finished: bool) -> pd.DataFrame:
    """Four samples to each of two prompts, the first of one word, the next of two, and so on."""
    texts = ["the " * words + "cat" for words in range(4)]
    rows = [{"prompt_id": p, "prompt": p, "text": text} for p in ("p1", "p2") for text in texts]
    return pd.DataFrame(rows).assign(finished=list(finished) * 2)


def test_finished_samples_are_measured_by_themselves():
    tables = {"dpo": samples_of(True, True, True, True), "ddpo": samples_of(True, False, False, True)}
    spaces = {"semantic": STYLE, "style": STYLE}
    found, _ = score_by_prompt(tables, Words(), spaces, baseline="dpo", to_match=["dpo"])
    quality = found.set_index(["arm", "length", "prompt_id"])["quality"]
    assert quality["ddpo", "whole", "p1"] == pytest.approx(0.025)
    assert quality["ddpo", "finished", "p1"] == pytest.approx((0.01 + 0.04) / 2)
    assert quality["dpo", "finished", "p2"] == pytest.approx(0.025)
    result = summarise(found[found["length"] == "finished"], against={"ddpo": "dpo"}, confidence=0.95)
    assert set(result["differences"]["ddpo"]) == set(HEADLINE)


def test_an_arm_that_the_limit_cut_everywhere_has_no_finished_set():
    tables = {"dpo": samples_of(True, True, True, True), "ddpo": samples_of(False, False, False, True)}
    found, _ = score_by_prompt(tables, Words(), {"semantic": STYLE, "style": STYLE}, baseline="dpo", to_match=["dpo"])
    assert set(found[found["length"] == "finished"]["arm"]) == {"dpo"}


@pytest.mark.parametrize(
    ("cut", "other", "apart"), [(10, 0, False), (11, 0, True), (0, 11, True), (40, 31, False), (40, 29, True)]
)
def test_arms_whose_shares_of_cut_samples_differ_by_more_than_ten_points_are_not_comparable(cut, other, apart):
    about = {"a": {"cut": cut, "finished_known": 100}, "b": {"cut": other, "finished_known": 100}}
    said = why_not_comparable(about, "a", "b")
    assert (said is not None) == apart
    if apart:
        assert f"{cut}%" in said and f"{other}%" in said


def test_people_are_not_cut_and_what_is_not_known_forbids_nothing():
    about = {"a": {"cut": 20, "finished_known": 100}, "b": {"cut": 0, "finished_known": 0}}
    assert "20%" in why_not_comparable(about, "gold", "a")
    assert why_not_comparable(about, "a", "b") is None


def test_samples_of_which_it_is_not_known_whether_they_were_cut_are_counted_apart():
    table = pd.DataFrame({"prompt_id": "p", "text": ["a b", "", "(empty)"], "finished": [True, False, None]})
    about = describe_samples(table)
    assert (about["samples"], about["cut"], about["finished_known"], about["blank"]) == (3, 1, 2, 2)


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "expect", "margin", "expected"),
    [
        (0.1, 0.3, "higher", 0.0, "reproduced"),
        (-0.3, -0.1, "higher", 0.0, "not reproduced"),
        (-0.1, 0.3, "higher", 0.0, "not enough data"),
        (-0.05, 0.3, "not lower", 0.1, "reproduced"),
        (-0.3, -0.15, "not lower", 0.1, "not reproduced"),
        (-0.15, 0.3, "not lower", 0.1, "not enough data"),
        (-0.05, 0.3, "not lower", 0.0, "not enough data"),
    ],
)
def test_a_verdict_follows_from_the_interval(low, high, expect, margin, expected):
    assert verdict({"mean": (low + high) / 2, "low": low, "high": high}, expect, margin) == expected


@pytest.mark.parametrize(("p", "expected"), [(0.04, "reproduced"), (0.05, "not enough data"), (None, "reproduced")])
def test_a_claim_of_more_needs_a_corrected_p_too(p, expected):
    assert verdict({"mean": 0.2, "low": 0.1, "high": 0.3, "p_corrected": p}, "higher") == expected
    assert verdict({"mean": 0.2, "low": 0.1, "high": 0.3, "p_corrected": p}, "not lower") == "reproduced"


def test_without_an_interval_there_is_no_verdict():
    assert verdict({"mean": 0.2, "low": None, "high": None, "p_corrected": None}, "higher") == "not enough data"


def test_a_margin_is_for_not_lower_alone():
    assert verdict({"mean": 0.0, "low": -0.05, "high": 0.05}, "higher", margin=0.1) == "not enough data"


def test_a_claim_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expect"):
        verdict({"mean": 0.0, "low": 0.0, "high": 0.0}, "better")


# Samples


class Length(Reward):
    """Scores a response by what it adds to its prompt."""

    name, facts = "length", {}

    def predict(self, prompts, texts):
        return [(len(text) - len(prompt)) / 1000 for prompt, text in zip(prompts, texts, strict=True)]

    def save(self, folder):
        raise NotImplementedError

    load = save


ONE, TWO, THREE = "The dog ran.", "Nobody, he said, would ever come!", "A king slept under the old star; it burned."
SPACES = {"semantic": STYLE, "style": STYLE}


def samples(rows: list[tuple[str, str]]) -> pd.DataFrame:
    """Of (prompt, text)."""
    return pd.DataFrame([{"prompt_id": prompt.lower(), "prompt": prompt, "text": text} for prompt, text in rows])


def scored(baseline: str = "dpo", **tables: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    table, shared = score_by_prompt(tables, Length(), SPACES, baseline=baseline, to_match=list(tables))
    return table.set_index(["arm", "length", "prompt_id"]).sort_index(), shared


def test_samples_are_scored_by_prompt(caplog):
    rows = [("B", ONE), ("A", TWO), ("B", ONE), ("C", ONE), ("A", THREE), ("D", THREE), ("D", TWO)]
    found, shared = scored(dpo=samples(rows))
    whole = found.loc["dpo", "whole"]
    assert whole.index.tolist() == ["a", "b", "d"]  # c has one response and no diversity
    assert "dpo: 1 prompts have fewer than two samples" in caplog.text
    assert whole.loc["b", "style"] == pytest.approx(0, abs=1e-6)
    assert whole.loc["a", "style"] == whole.loc["d", "style"] > 0.05
    assert whole.loc["a", "quality"] == pytest.approx((len(TWO) + len(THREE) - 2) / 2000)
    assert shared["bar"] == pytest.approx((len(TWO) - 1) / 1000)  # the median of two of each


def test_at_matched_length_texts_are_cut_and_their_quality_is_not():
    found, shared = scored(dpo=samples([("A", TWO), ("A", THREE)]), short=samples([("A", ONE), ("A", "The dog sat.")]))
    assert shared["words"] == 3
    whole, cut = found.loc["dpo", "whole"].loc["a"], found.loc["dpo", "matched"].loc["a"]
    assert whole["quality"] == cut["quality"]
    assert whole["compression"] != cut["compression"]
    unchanged = found.loc["short", "whole"].loc["a"], found.loc["short", "matched"].loc["a"]
    assert unchanged[0]["rouge-l"] == unchanged[1]["rouge-l"]


def test_blank_samples_count_as_alike_and_as_the_worst():
    found, _ = scored(dpo=samples([("A", ""), ("A", " "), ("B", ONE), ("B", TWO)]))
    assert found.loc["dpo", "whole"].loc["a", "style"] == pytest.approx(0, abs=1e-6)
    assert found.loc["dpo", "whole"].loc["a", "quality"] == -1.0


def test_sets_of_one_prompt_are_averaged():
    table = samples([("A", ONE), ("A", ONE), ("A", TWO), ("A", THREE)])
    sets, _ = scored(dpo=table.assign(draw=[0, 0, 1, 1]))
    alone, _ = scored(dpo=table.assign(prompt_id=["x", "x", "y", "y"]))
    for measure in ("quality", "style", "vendi", "self-bleu"):
        expected = alone.loc["dpo", "whole"][measure].mean()
        assert sets.loc["dpo", "whole"].loc["a", measure] == pytest.approx(expected)


def test_an_arm_without_two_samples_a_prompt_is_left_out_but_not_the_baseline():
    tables = {"dpo": samples([("A", ONE), ("A", TWO)]), "other": samples([("A", ONE), ("B", TWO)])}
    assert set(scored(**tables)[0].index.get_level_values("arm")) == {"dpo"}
    with pytest.raises(InputError, match="other: no prompt has two samples"):
        scored("other", **tables)


def test_a_reward_without_a_number_is_named():
    class Broken(Length):
        def predict(self, prompts, texts):
            return np.full(len(texts), np.nan)

    tables = {"dpo": samples([("A", ONE), ("A", TWO)])}
    with pytest.raises(InputError, match="2 of 2 scores are not finite"):
        score_by_prompt(tables, Broken(), SPACES, baseline="dpo", to_match=["dpo"])


def test_random_sets_are_of_one_size_and_without_repeats():
    table = samples([("A", str(i)) for i in range(9)] + [("B", str(i)) for i in range(3)])
    sets = draw_sets(table, 4, 50, seed=0)
    sizes = sets.groupby(["prompt_id", "draw"])["text"].agg(["size", "nunique"])
    assert (sizes.loc["a"] == 4).all(axis=None)
    assert (sizes.loc["b"] == 3).all(axis=None)
    assert sets[sets["prompt_id"] == "a"]["text"].value_counts().min() > 10  # every response has its turn
    assert sets.equals(draw_sets(table, 4, 50, seed=0))
    assert not sets.equals(draw_sets(table, 4, 50, seed=1))


def test_a_sweep_compares_arms_at_the_baselines_diversity():
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "temperature": t, "prompt_id": p, "quality": 1 - 0.5 * t + gain + noise, "style": 0.2 * t + noise}
        for p, noise in enumerate(rng.normal(0, 0.02, 20))
        for arm, gain in (("dpo", 0.0), ("ddpo", 0.1))
        for t in (0.7, 1.0, 1.5)
    ]
    options = {"baseline": "dpo", "temperature": 1.0, **SETTINGS}
    found = summarise_sweep(pd.DataFrame(rows), **options)
    assert (found["temperatures"], found["prompts"]) == ([0.7, 1.0, 1.5], 20)
    style = found["spaces"]["style"]
    assert [point["temperature"] for point in style["curves"]["ddpo"]] == [0.7, 1.0, 1.5]
    assert style["matched"]["ddpo"]["mean"] == pytest.approx(0.1)  # the curve is the baseline's, 0.1 higher
    assert style["differences"]["ddpo"]["low"] > 0
    assert style["reference"]["diversity"] == min(point["diversity"] for point in style["curves"]["dpo"])
