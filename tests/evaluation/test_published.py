import pytest
from scipy.stats import t

from ddpo_lib.evaluation.published import decide_claims, published, quality_margin, verdict
from ddpo_lib.profiles.profile import load_profile

REWARD = {"better_than_chance": True, "p_within_prompt": 0.001, "p_within_prompt_error": 0.0007}


def difference(mean: float, error: float = 0.01, freedom: float = 30.0) -> dict:
    half = t.ppf(0.975, freedom) * error
    p = 2 * t.sf(abs(mean) / error, freedom)
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "error": error, "freedom": freedom}


def results(**arms: tuple[str, dict[str, float]]) -> dict:
    """By arm, its twin and the means of its differences."""
    return {
        "against": {arm: twin for arm, (twin, _) in arms.items()},
        "differences": {arm: {m: difference(v) for m, v in means.items()} for arm, (_, means) in arms.items()},
    }


def ddpo(quality: float, gain: float = 0.1, semantic: float = 0.2, style: float = 0.2) -> dict:
    measured = {"semantic": semantic, "style": style, "quality": quality}
    return results(**{"ddpo-both": ("dpo", measured), "dpo": ("sft", {"quality": gain})})


def test_little_loss_is_half_of_what_the_twin_gained_where_its_interval_shows_a_gain():
    assert quality_margin(ddpo(0, gain=0.03), "dpo") == (0.015, "half of what dpo gained over sft")
    assert quality_margin(ddpo(0, gain=0.02), "dpo")[0] == 0  # 0.020 with an interval of 0.0204 around
    assert quality_margin(ddpo(0, gain=-0.1), "dpo")[0] == 0
    assert quality_margin(ddpo(0), "orpo") == (0, "0: orpo is not compared with sft here")
    assert quality_margin(results(dpo=("other", {"quality": 1.0})), "dpo")[0] == 0


def test_claims_of_a_family_are_decided_with_their_own_p_after_holm():
    decided = {c["id"]: c for c in decide_claims(published()["claims"], ddpo(-0.02, semantic=0.025, style=0.3), REWARD)}
    assert decided.keys() == {"main-semantic", "main-style", "main-quality"}  # there is no orpo, so no other family
    quality = decided["main-quality"]
    assert (quality["margin"], quality["margin_why"]) == (0.05, "half of what dpo gained over sft")
    assert quality["p"] == pytest.approx(2 * t.sf(3, 30))  # of -0.05, not of zero
    assert quality["p_corrected"] == pytest.approx(2 * quality["p"])
    assert quality["verdict"] == "reproduced"
    semantic = decided["main-semantic"]
    assert semantic["p"] == semantic["p_corrected"] == pytest.approx(2 * t.sf(2.5, 30))
    assert semantic["verdict"] == "reproduced"
    assert semantic["margin"] == 0 and semantic["margin_why"] is None
    weaker = decide_claims(published()["claims"], ddpo(0.0, gain=0.0, semantic=0.025, style=0.025), REWARD)
    # each p is 0.018, times three: the interval leaves zero out, and Holm does not
    assert [c["verdict"] for c in weaker] == ["not enough data"] * 3


def test_a_claim_needs_its_arm_compared_with_its_own_twin():
    claims, found = published()["claims"], ddpo(0.0)
    found["against"]["ddpo-both"] = "sft"
    assert decide_claims(claims, found, REWARD) == []
    measured = dict.fromkeys(("semantic", "style", "quality"), 0.2)
    both = results(**{"dorpo-both": ("orpo", measured), "orpo": ("sft", {"quality": 0.1})})
    assert [c["id"] for c in decide_claims(claims, both, REWARD)] == ["orpo-semantic", "orpo-style", "orpo-quality"]


def test_each_family_is_corrected_by_itself():
    claims = published()["claims"]
    both = ddpo(0.0)
    measured = dict.fromkeys(("semantic", "style", "quality"), 0.025)
    of_orpo = results(**{"dorpo-both": ("orpo", measured), "orpo": ("sft", {"quality": 0.0})})
    together = {key: both[key] | of_orpo[key] for key in both}
    alone, all_of_them = decide_claims(claims, both, REWARD), decide_claims(claims, together, REWARD)
    assert all_of_them[:3] == alone
    assert len(all_of_them) == 6


def test_a_reason_blocks_a_verdict_whatever_the_interval_and_keeps_its_place_in_the_family():
    claims = published()["claims"]
    free = decide_claims(claims, ddpo(0.1), REWARD)
    assert [c["verdict"] for c in free] == ["reproduced"] * 3
    decided = decide_claims(claims, ddpo(0.1), REWARD, blocked={"main-style": "cut samples differ by 12 points"})
    assert [c["verdict"] for c in decided] == ["reproduced", "not enough data", "reproduced"]
    assert [c["blocked"] for c in decided] == [None, "cut samples differ by 12 points", None]
    assert [c["p_corrected"] for c in decided] == [c["p_corrected"] for c in free]


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        (
            {"better_than_chance": False, "p_within_prompt": 0.2, "p_within_prompt_error": 0.009},
            "no better than chance",
        ),
        ({"better_than_chance": True, "p_within_prompt": 0.045, "p_within_prompt_error": 0.005}, "may rank"),
    ],
)
def test_quality_is_not_decided_by_a_reward_at_chance_or_too_near_to_it(reward, reason):
    decided = decide_claims(published()["claims"], ddpo(0.1), reward)
    assert [c["verdict"] for c in decided] == ["reproduced", "reproduced", "not enough data"]
    assert reason in decided[2]["blocked"]


def test_without_a_p_there_is_no_verdict_and_the_others_are_not_corrected_for_it():
    found = ddpo(0.1)
    found["differences"]["ddpo-both"]["style"] = dict.fromkeys(difference(0.1))
    decided = decide_claims(published()["claims"], found, REWARD)
    assert [c["verdict"] for c in decided] == ["reproduced", "not enough data", "reproduced"]
    assert (decided[1]["p"], decided[1]["p_corrected"]) == (None, None)


def test_a_small_loss_passes_only_within_the_margin():
    difference = {"mean": -0.01, "low": -0.014, "high": -0.002}
    assert verdict(difference, "not lower", 0.015) == "reproduced"
    assert verdict(difference, "not lower", 0.01) == "not enough data"
    assert verdict(difference, "not lower", 0.001) == "not reproduced"


def test_the_claims_are_a_list_of_families_and_no_unknown_number_is_filled_in():
    claims = published()["claims"]
    assert len({claim["id"] for claim in claims}) == len(claims)
    assert {claim["family"] for claim in claims} == {"main", "orpo"}
    for claim in claims:
        assert verdict({"mean": 0.0, "low": -1.0, "high": 1.0}, claim["expect"]) == "not enough data"
        assert "not at hand" in claim["paper"]
    assert published()["human_evaluation"]["dpo"]["quality"] is None


def test_a_resampled_p_too_near_the_level_leaves_the_answer_open():
    value = {"mean": 0.2, "low": 0.01, "high": 0.4, "p": 0.046}
    assert verdict(value | {"p_error": 0.001}, "higher") == "reproduced"
    assert verdict(value | {"p_error": 0.003}, "higher") == "not enough data"
    assert verdict(value | {"p_error": 0.003}, "not lower", 0.1) == "reproduced"  # p of zero says nothing of a margin


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
