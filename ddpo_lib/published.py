"""The paper's numbers and claims, and verdicts on them computed from intervals; unknown stays unknown."""

from functools import cache
from pathlib import Path

import yaml


@cache
def published() -> dict:
    """The content of `published.yaml`."""
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def quality_margin(results: dict) -> float:
    """The loss of quality that counts as little: half of what DPO gained over SFT in the same run, 0 without a gain.

    To keep half of an effect is the usual bar of a non-inferiority test. `results`: what `evaluation.summarise` gives.
    """
    gained = -results["differences"]["sft"]["quality"]["mean"]
    return max(0.0, gained / 2)


def judge(claim: dict, results: dict, reward: dict, arm: str | None = None) -> str:
    """The verdict on a claim of `published.yaml`, for its own arm or another.

    A claim on quality cannot be judged by a reward that ranks held-out responses no better than chance.

    Args:
        claim: an entry of `claims`.
        results: what `evaluation.summarise` gives.
        reward: the reward's report, with `better_than_chance`.
        arm: in place of the claim's.

    Returns:
        One of `verdict`'s three answers.
    """
    if claim["measure"] == "quality" and not reward["better_than_chance"]:
        return "not enough data"
    difference = results["differences"][arm or claim["arm"]][claim["measure"]]
    return verdict(difference, claim["expect"], quality_margin(results) if claim["measure"] == "quality" else 0.0)


def verdict(difference: dict, expect: str, margin: float = 0.0, level: float = 0.05) -> str:
    """What a difference says of a claim, by its interval and, where several arms were tested, its corrected p.

    Args:
        difference: `mean`, `low` and `high` of arm minus baseline, None where too few prompts give no interval; and
            `p_corrected` or None.
        expect: "higher", "lower", "not lower" by more than `margin`, or "unchanged", by no more than `margin`.
        margin: what still counts as none; in the measure's units.
        level: that a corrected p must be under for "higher" and "lower"; p asks whether there is any difference.

    Returns:
        "reproduced" or "not reproduced" where the interval lies on one side, and p is small where it counts; else
        "not enough data".

    Raises:
        ValueError: another `expect`.
    """
    if expect not in ("higher", "lower", "not lower", "unchanged"):
        raise ValueError(f'expect: "higher", "lower", "not lower" or "unchanged", got {expect!r}')
    if difference["low"] is None:
        return "not enough data"
    low, high = difference["low"], difference["high"]
    if expect == "unchanged":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
        return "reproduced" if inside else "not reproduced" if outside else "not enough data"
    if expect == "lower":
        low, high = -high, -low
    corrected = difference.get("p_corrected")
    if expect in ("higher", "lower") and corrected is not None and corrected >= level:
        return "not enough data"
    bar = -margin if expect == "not lower" else 0.0
    if low > bar:
        return "reproduced"
    if high < bar:
        return "not reproduced"
    return "not enough data"
