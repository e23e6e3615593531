import pytest

from ddpo_lib.evaluation import MEASURES
from ddpo_lib.profiles import load_profile
from ddpo_lib.published import judge, published, quality_margin, verdict


def results(sft_minus_dpo: float) -> dict:
    return {"differences": {"sft": {"quality": {"mean": sft_minus_dpo}}}}


def test_little_loss_is_half_of_what_dpo_gained_and_none_where_it_gained_nothing():
    assert quality_margin(results(-0.03)) == pytest.approx(0.015)
    assert quality_margin(results(0.02)) == 0


def test_a_small_loss_passes_only_within_the_margin():
    difference = {"mean": -0.01, "low": -0.014, "high": -0.002}
    assert verdict(difference, "not lower", 0.015) == "reproduced"
    assert verdict(difference, "not lower", 0.01) == "not enough data"
    assert verdict(difference, "not lower", 0.001) == "not reproduced"


def test_every_claim_of_the_scoreboard_can_be_judged_and_no_unknown_number_is_filled_in():
    difference = {"mean": 0.0, "low": -1.0, "high": 1.0}
    for claim in published()["claims"]:
        assert verdict(difference, claim["expect"]) == "not enough data"
        assert "not at hand" in claim["paper"]
    assert published()["human_evaluation"]["dpo"]["quality"] is None


def test_quality_is_not_judged_by_a_reward_at_chance():
    better = {"mean": 0.2, "low": 0.1, "high": 0.3}
    measured = {"differences": {"sft": {"quality": {"mean": -0.1}}, "ddpo-both": dict.fromkeys(MEASURES, better)}}
    at_chance = [judge(claim, measured, {"better_than_chance": False}) for claim in published()["claims"]]
    assert at_chance == ["reproduced", "reproduced", "not enough data"]
    assert {judge(claim, measured, {"better_than_chance": True}) for claim in published()["claims"]} == {"reproduced"}


@pytest.mark.parametrize(
    ("low", "high", "expect", "answer"),
    [
        (-0.3, -0.1, "lower", "reproduced"),
        (0.1, 0.3, "lower", "not reproduced"),
        (-0.1, 0.1, "lower", "not enough data"),
        (-0.04, 0.03, "unchanged", "reproduced"),
        (-0.2, -0.06, "unchanged", "not reproduced"),
        (0.06, 0.2, "unchanged", "not reproduced"),
        (0.01, 0.2, "unchanged", "not enough data"),
        (None, None, "unchanged", "not enough data"),
    ],
)
def test_lower_and_unchanged_are_read_off_the_interval(low, high, expect, answer):
    margin = 0.05 if expect == "unchanged" else 0.0
    assert verdict({"mean": 0.0, "low": low, "high": high}, expect, margin) == answer


def test_a_large_corrected_p_leaves_lower_open_but_not_unchanged():
    value = {"mean": 0.0, "low": -0.04, "high": -0.01, "p_corrected": 0.2}
    assert verdict(value, "lower") == "not enough data"
    assert verdict(value, "unchanged", margin=0.05) == "reproduced"


def test_every_claim_on_worlds_names_rows_of_the_full_grid():
    rows = load_profile("full").worlds.rows
    for claim in published()["worlds"]:
        assert claim["row"] in rows
        assert claim["against"] in rows or claim["against"].startswith("sft:")


def test_the_arms_of_the_divpo_comparison_are_trained_by_the_full_profile_as_it_says():
    """Equal prompts: nothing is cut. Equal pairs: those of DivPO's rule. Equal steps: by more epochs."""
    arms, claim = load_profile("full").arms, published()["divpo"]
    assert set(claim["expect"]) == {"semantic", "style", "quality"}
    sides = {what: (arms[pair["row"]], arms[pair["against"]]) for what, pair in claim["equal"].items()}
    for weighted, picked in sides.values():
        assert weighted.weights == ["semantic", "style"] and weighted.divpo is None
        assert picked.divpo is not None and not picked.weights
    assert sides["prompts"][0].pairs is None and sides["pairs"][0].pairs and sides["steps"][1].equal_steps
