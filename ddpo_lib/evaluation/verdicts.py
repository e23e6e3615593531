"""Verdicts on the arms of a run: the paper's claims, and what forbids a verdict whatever the interval says."""

from ddpo_lib.evaluation.compare_arms import why_not_comparable
from ddpo_lib.evaluation.published import judge_claims, published
from ddpo_lib.measures.probes import BROKEN, rises


def judge_arms(results: dict, reward: dict) -> list[dict]:
    """The claims of `published.yaml` that a run can judge, of `published.judge_claims`.

    Args:
        results: of `compare_arms.summarise`, with `samples` and `probes`.
        reward: the reward's report.
    """
    claims = published()["claims"]
    blocked = {c["id"]: why_blocked(results, reward, c["arm"], c["against"], c["measure"]) for c in claims}
    return judge_claims(claims, results, reward, blocked={name: why for name, why in blocked.items() if why})


def why_blocked(results: dict, reward: dict, arm: str, against: str, measure: str) -> str | None:
    """Why two arms get no verdict on a measure: the token limit cut far more samples of one, or, of quality, the reward
    gives the stories of either more when they are broken. None where nothing forbids it.

    Args:
        results, reward: as in `judge_arms`.
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
