"""What forbids a verdict on the arms of a run, whatever the interval says."""

import pytest

from ddpo_lib.evaluation.verdicts import decide_arms, why_blocked

REWARD = {"name": "stand-in reward", "better_than_chance": True, "p_within_prompt": 0.001, "p_within_prompt_error": 0.0}
SURE = {"low": 0.1, "mean": 0.2, "high": 0.3}
FALLS = {"low": -0.3, "mean": -0.2, "high": -0.1}
LARGE = {"mean": 0.5, "low": 0.4, "high": 0.6, "prompts": 40, "seeds": 3, "p": 1e-9, "error": 0.04, "freedom": 40.0}


def results(cut: int = 0, probes: dict | None = None) -> dict:
    """A run in which every difference is large, and the second arm had so many of 100 samples cut."""
    arms = {"dpo": "sft", "ddpo-both": "dpo"}
    return {
        "against": arms,
        "differences": {arm: dict.fromkeys(("quality", "semantic", "style"), LARGE) for arm in arms},
        "samples": {arm: {"cut": cut * (arm == "dpo"), "finished_known": 100} for arm in ("sft", *arms)},
        "probes": probes or {},
    }


def verdicts(of: dict) -> dict[str, str]:
    return {claim["measure"]: claim["verdict"] for claim in decide_arms(of, REWARD)}


def test_nothing_forbids_a_verdict_on_arms_that_can_be_compared():
    assert verdicts(results()) == dict.fromkeys(("semantic", "style", "quality"), "reproduced")


def test_no_verdict_is_given_where_the_limit_cut_far_more_samples_of_one_arm():
    assert set(verdicts(results(cut=11)).values()) == {"not enough data"}
    assert all("11%" in claim["blocked"] for claim in decide_arms(results(cut=11), REWARD))


@pytest.mark.parametrize("arm", ["dpo", "ddpo-both"])
def test_a_reward_that_rises_when_stories_are_broken_decides_no_quality(arm):
    of = results(probes={arm: {"cut": SURE, "swapped": FALLS, "shuffled": FALLS}})
    assert verdicts(of) == {"semantic": "reproduced", "style": "reproduced", "quality": "not enough data"}
    said = why_blocked(of, REWARD, "ddpo-both", "dpo", "quality")
    assert "cut after half of its words" in said and "shuffled" not in said


def test_broken_stories_of_another_arm_forbid_nothing():
    assert verdicts(results(probes={"sft": {"cut": SURE}}))["quality"] == "reproduced"
