"""The rules of neighbouring methods on the same seam: CrPO's weights, and pairs after ReDiPO."""

import numpy as np
import pandas as pd
import pytest
from conftest import corpus as build
from pydantic import ValidationError

from ddpo_lib.base.errors import InputError
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.pairs.arms import training_pairs
from ddpo_lib.pairs.redipo import make_redipo_pairs
from ddpo_lib.profiles.profile import load_profile, twins
from ddpo_lib.profiles.settings import Arm


def vectors(corpus: pd.DataFrame, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(corpus), 5)).astype(np.float32)


def arm(**fields) -> Arm:
    return Arm(loss="dpo", start="sft", **fields)


# CrPO


def test_a_pair_weighs_how_much_more_its_winner_deviates():
    corpus = build(list(range(12)), list(range(0, 18, 3)))
    spaces = {"semantic": vectors(corpus, 0), "style": vectors(corpus, 1)}
    pairs = training_pairs(corpus, spaces, arm(weights=["semantic", "style"], weight_of="difference"), 0, 3)
    groups = corpus["prompt_id"].factorize()[0]
    expected = np.zeros(len(pairs))
    for space in spaces.values():
        distance = dict(zip(corpus["response_id"], mean_distance(space, groups), strict=True))
        sides = zip(pairs["chosen_id"], pairs["rejected_id"], strict=True)
        more = [distance[winner] - distance[loser] for winner, loser in sides]
        expected += np.clip(more, 0, None)
    assert pairs["weight"].tolist() == pytest.approx(expected.tolist())
    assert (pairs["weight"] == 0).any() and (pairs["weight"] > 0).any()


def test_its_pairs_are_those_of_the_weighted_arm():
    corpus = build(list(range(12)))
    spaces = {"semantic": vectors(corpus, 0)}
    by_winner = training_pairs(corpus, spaces, arm(weights=["semantic"]), 5, 3)
    by_difference = training_pairs(corpus, spaces, arm(weights=["semantic"], weight_of="difference"), 5, 3)
    names = [name for name in by_winner if name != "weight"]
    pd.testing.assert_frame_equal(by_winner[names], by_difference[names])


FLOOR, POWER = {"weights": ["semantic"], "floor": 0.1}, {"weights": ["semantic"], "power": 2.0}


@pytest.mark.parametrize("fields", [{}, FLOOR, POWER])
def test_a_difference_has_no_scale(fields):
    with pytest.raises(ValidationError, match="weight_of: a difference of deviations"):
        arm(weight_of="difference", **fields)


# ReDiPO


def test_among_like_scores_the_rarer_wins():
    # of the scores 10, 9, 8, 7 within a quarter of the range 0 to 10 of the best: 10, 9, 8
    corpus = build([10, 9, 8, 7, 0])
    pairs = make_redipo_pairs(corpus, np.array([0.1, 0.3, 0.2, 0.9, 0.8]), 0.25, 2, 0)
    assert pairs[["chosen_id", "rejected_id"]].to_numpy().tolist() == [["p0-01", "p0-00"]]
    assert pairs[["chosen_score", "rejected_score"]].to_numpy().tolist() == [[9, 10]]
    pairs = make_redipo_pairs(corpus, np.array([0.1, 0.3, 0.2, 0.9, 0.8]), 0.3, 2, 0)
    assert set(zip(pairs["chosen_id"], pairs["rejected_id"], strict=True)) == {("p0-03", "p0-00"), ("p0-01", "p0-02")}


def test_each_response_is_used_once_and_the_half_that_is_rarer_wins():
    corpus = build([1] * 9, [1] * 4)
    diversity = np.random.default_rng(0).random(13)
    pairs = make_redipo_pairs(corpus, diversity, 0.0, 9, 5)
    assert pairs.groupby("prompt_id").size().to_dict() == {"p0": 4, "p1": 2}
    used = [*pairs["chosen_id"], *pairs["rejected_id"]]
    assert len(used) == len({*used})
    of = dict(zip(corpus["response_id"], diversity, strict=True))
    for _, few in pairs.groupby("prompt_id"):
        assert few["chosen_id"].map(of).min() > few["rejected_id"].map(of).max()


def test_equal_diversity_makes_no_pair():
    with pytest.raises(InputError, match="differ in diversity"):
        make_redipo_pairs(build([1, 1, 1], [2], [None, None]), np.zeros(6))


def test_diversities_that_are_no_numbers_are_refused():
    for bad in (np.zeros(2), np.array([0.0, np.nan, 1.0])):
        with pytest.raises(ValueError, match="expected 3 finite numbers"):
            make_redipo_pairs(build([1, 2, 3]), bad)


def test_an_arm_picks_by_the_mean_distance_in_its_spaces():
    corpus = build([1] * 6)
    spaces = {"semantic": vectors(corpus, 0), "style": vectors(corpus, 1)}
    pairs = training_pairs(corpus, spaces, arm(redipo={"max_pairs": 1}), 0, 0)
    distance = np.mean([mean_distance(space, np.zeros(6, int)) for space in spaces.values()], axis=0)
    assert pairs[["chosen_id", "rejected_id"]].to_numpy().tolist() == [
        [f"p0-{distance.argmax():02d}", f"p0-{distance.argmin():02d}"]
    ]


def test_rules_exclude_each_other():
    with pytest.raises(ValidationError, match="leave out one of the two rules"):
        arm(divpo={}, redipo={})
    with pytest.raises(ValidationError, match="policy_beta: belongs to DPO"):
        Arm(loss="orpo", start="sft", policy_beta=0.2)


def test_each_is_compared_with_dpo(tmp_path):
    new = {
        "spl": {"policy_beta": 0.2},
        "redipo": {"redipo": {}},
        "crpo": {"weights": ["style"], "weight_of": "difference"},
    }
    arms = {name: {"loss": "dpo", "start": "sft", **fields} for name, fields in {"dpo": {}, **new}.items()}
    file = tmp_path / "mine.yaml"
    file.write_text(f"{{extends: smoke, name: mine, online: {{}}, arms: {arms}}}".replace("'", ""))
    found = twins(load_profile(str(file)))
    assert found["dpo"] == "sft" and {name: found[name] for name in new} == dict.fromkeys(new, "dpo")


def test_manifests_of_other_arms_do_not_name_what_they_do_not_set():
    assert not {"redipo", "weight_of", "policy_beta"} & arm().model_dump().keys()
    assert arm(policy_beta=0.2).model_dump()["policy_beta"] == 0.2
