"""The paper's numbers and claims, and verdicts on the claims, computed from intervals; and the paper's neighbours."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from ddpo_lib.statistics.intervals import ALPHA, holm, p_at, undecided

CLAIMS = Path(__file__).with_name("published.yaml")  # the paper's numbers, and the claims that a run decides
NEIGHBOURS = Path(__file__).with_name("neighbours.yaml")


@cache
def published() -> dict:
    """The content of `published.yaml`."""
    return yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))


def neighbours() -> list[dict]:
    """Methods near this one: `method source year changes by online code licence`; what was not found is None."""
    return yaml.safe_load(NEIGHBOURS.read_text(encoding="utf-8"))


def claims_of(twins: Mapping[str, str | None]) -> list[dict]:
    """The claims whose arm a profile has, compared with the same twin as in the claim.

    Args:
        twins: by arm, the arm that it is compared with (`profile.twins`).
    """
    return [claim for claim in published()["claims"] if twins.get(claim["arm"]) == claim["against"]]


def quality_margin(results: dict, twin: str) -> tuple[float, str]:
    """The loss of quality that counts as small, and why: half of the unweighted twin's gain over SFT in this run.

    Half of an effect is the usual margin of a non-inferiority test. The margin is 0 if the interval of the gain
    contains zero.

    Args:
        results: of `compare_arms.summarise`.
        twin: the arm without weights, dpo or orpo.
    """
    gained = results["differences"].get(twin, {}).get("quality")
    if gained is None or results["against"][twin] != "sft":
        return 0.0, f"0: {twin} is not compared with sft here"
    if gained["low"] is None or gained["low"] <= 0:
        return 0.0, f"0: the interval of what {twin} gained over sft does not lie above zero"
    return gained["mean"] / 2, f"half of what {twin} gained over sft"


def decide_claims(
    claims: list[dict], results: dict, reward: dict, *, blocked: Mapping[str, str] | None = None
) -> list[dict]:
    """The claims of `published.yaml` that a run can decide, each with its difference, p and verdict.

    A claim is decided if the run compares its arm with the claim's twin. p is corrected over the claims of a family. A
    blocked claim gets no verdict, but still counts in the correction.

    Args:
        claims: entries of `claims` in `published.yaml`.
        results: of `compare_arms.summarise`.
        reward: the reward's report, with `better_than_chance`, `p_within_prompt` and its error. A reward that ranks
            held-out responses no better than chance, or perhaps no better, blocks claims on quality.
        blocked: by id of a claim, another reason why it gets no verdict.

    Returns:
        The claims, each with `difference`, `margin` and `margin_why` (None if the measure is not quality), `blocked`
        (the reason, or None) and the fields that `decide_family` adds.
    """
    blocked = blocked or {}
    decided = []
    for claim in claims:
        arm, twin, measure = claim["arm"], claim["against"], claim["measure"]
        if results["against"].get(arm) != twin or measure not in results["differences"][arm]:
            continue
        margin, why = quality_margin(results, twin) if measure == "quality" else (0.0, None)
        reason = blocked.get(claim["id"]) or (_unfit(reward) if measure == "quality" else None)
        found = {"difference": results["differences"][arm][measure], "margin": margin, "margin_why": why}
        decided.append({**claim, **found, "blocked": reason})
    together = {
        family: iter(decide_family([c for c in decided if c["family"] == family])) for family in _families(decided)
    }
    return [next(together[claim["family"]]) for claim in decided]


def _unfit(reward: dict) -> str | None:
    """Why a reward cannot decide on quality; None if it can."""
    if not reward["better_than_chance"]:
        return "the reward ranks held-out responses no better than chance"
    near = undecided({"p": reward.get("p_within_prompt"), "p_error": reward.get("p_within_prompt_error")})
    return near and f"the reward may rank held-out responses no better than chance: {near}"


def _families(claims: list[dict]) -> list[str]:
    return list(dict.fromkeys(claim["family"] for claim in claims))


def decide_family(claims: list[dict], level: float = ALPHA) -> list[dict]:
    """Verdicts on claims that are decided together, from intervals and from each claim's p.

    Args:
        claims: each with `expect`, `difference` (the fields of `intervals.Difference`), and optionally `margin` and
            `blocked`.
        level: a verdict needs a corrected p below it.

    Returns:
        The claims, each with `p` (`claim_p`), `p_corrected` (Holm over all of them) and `verdict`: that of the
        interval if the corrected p is below the level and nothing blocks the claim, else "not enough data".
    """
    p = np.array([claim_p(claim["difference"], claim["expect"], claim.get("margin", 0.0)) for claim in claims])
    decided = []
    for claim, own, corrected in zip(claims, p.tolist(), holm(p).tolist(), strict=True):
        answer = "not enough data"
        if corrected < level and not claim.get("blocked"):
            ends = {end: claim["difference"][end] for end in ("mean", "low", "high")}
            answer = verdict(ends, claim["expect"], claim.get("margin", 0.0))
        tested = {"p": None, "p_corrected": None} if np.isnan(own) else {"p": own, "p_corrected": corrected}
        decided.append({**claim, **tested, "verdict": answer})
    return decided


def claim_p(difference: dict, expect: str, margin: float) -> float:
    """Two-sided p of the test whether a difference lies at the boundary of a claim.

    The boundary is 0 for "higher" and "lower", and -margin for "not lower". For "unchanged" it is the margin, with
    either sign, that is nearer to the mean. If the mean is within the margins, p is then twice that of the equivalence
    test, the larger of two one-sided tests (TOST). The factor of two is needed since either verdict may follow: p is
    under 5% exactly if the 95% interval lies on one side of the boundary.

    Returns:
        NaN if the data give no p.
    """
    mean, error, freedom = (difference[key] for key in ("mean", "error", "freedom"))
    if mean is None or error is None or freedom is None:
        return float("nan")
    edge = {"not lower": -margin, "unchanged": float(np.copysign(margin, mean))}.get(expect, 0.0)
    return float(p_at(mean, error, freedom, edge))


def verdict(difference: dict, expect: str, margin: float = 0.0, level: float = 0.05) -> str:
    """The verdict of a difference on a claim, by its interval and, if several arms were tested, its corrected p.

    Args:
        difference: `mean`, `low` and `high` of arm minus twin, None if there are too few prompts for an interval; also
            `p_corrected` or None, and for a resampled p `p` and `p_error`.
        expect: "higher", "lower", "not lower" (by more than `margin`), or "unchanged" (by no more than `margin`).
        margin: the largest difference that still counts as none, in the measure's units.
        level: for "higher" and "lower", the corrected p of any difference must be below it. A resampled p must not be
            so near to it that more draws could change the answer (`intervals.undecided`).

    Returns:
        "reproduced" or "not reproduced" if the interval lies on one side of the boundary and, for "higher" and
        "lower", p is small enough; else "not enough data".

    Raises:
        ValueError: `expect` is none of the four.
    """
    if expect not in ("higher", "lower", "not lower", "unchanged"):
        raise ValueError(f'expect: expected "higher", "lower", "not lower" or "unchanged", got {expect!r}')
    if difference["low"] is None:
        return "not enough data"
    low, high = difference["low"], difference["high"]
    if expect == "unchanged":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
        return "reproduced" if inside else "not reproduced" if outside else "not enough data"
    if expect == "lower":
        low, high = -high, -low
    corrected = difference.get("p_corrected")
    tested = expect in ("higher", "lower")
    if tested and ((corrected is not None and corrected >= level) or undecided(difference, level)):
        return "not enough data"
    bar = -margin if expect == "not lower" else 0.0
    if low > bar:
        return "reproduced"
    if high < bar:
        return "not reproduced"
    return "not enough data"
