"""Verdicts on the arms of a run: the paper's claims, and the reasons that block a verdict."""

from ddpo_lib.evaluation.compare_arms import why_not_comparable
from ddpo_lib.evaluation.published import decide_claims, published
from ddpo_lib.measures.probes import BROKEN, rises


def decide_arms(results: dict, reward: dict) -> list[dict]:
    """The claims of `published.yaml` that a run can decide, as `published.decide_claims` returns them.

    Args:
        results: of `compare_arms.summarise`, with `samples` and `probes`.
        reward: the reward's report.
    """
    claims = published()["claims"]
    blocked = {c["id"]: why_blocked(results, reward, c["arm"], c["against"], c["measure"]) for c in claims}
    return decide_claims(claims, results, reward, blocked={name: why for name, why in blocked.items() if why})


def why_blocked(results: dict, reward: dict, arm: str, against: str, measure: str) -> str | None:
    """Why two arms get no verdict on a measure; None if nothing blocks one.

    Either the token limit cut far more samples of one arm than of the other, or, for quality, the reward scores an
    arm's stories higher when they are broken.

    Args:
        results, reward: as in `decide_arms`.
        arm, against: the two arms.
        measure: of the headline measures.
    """
    if apart := why_not_comparable(results["samples"], arm, against):
        return apart
    ways = {way for name in (arm, against) for way in rises(results["probes"].get(name, {}))}
    if measure != "quality" or not ways:
        return None
    broken = ", ".join(what for way, what in BROKEN.items() if way in ways)
    return f"the {reward['name']} scores stories of these arms higher when they are broken: {broken}"
