"""Claims with verdicts -> the sentences and tables in which pages and README report them."""

import pandas as pd

from ddpo_lib.profiles.wording import interval, name
from ddpo_lib.report.sources import estimated, probability

CLOSE = 0.02  # if both ends of an interval are within this distance of zero, the effect is small
KINDS = {"semantic": "semantic diversity", "style": "style diversity", "quality": "quality"}


def main_claims(results: dict) -> list[dict]:
    """The paper's main claims among the claims with verdicts in `results.json`."""
    return [claim for claim in results["claims"] if claim["family"] == "main"]


def in_words(claim: dict) -> str:
    """The result of a run on a claim, as a clause without a full stop: "semantic diversity is higher (+0.03 [...])"."""
    found = claim["difference"]
    low, high = found["low"], found["high"]
    if low is None:
        said = "was measured on too few prompts"
    elif claim.get("blocked"):
        said = "cannot be decided"
    elif claim["expect"] in ("higher", "lower") and claim["verdict"] != "not enough data":
        said = "is higher" if found["mean"] > 0 else "is lower"
    elif claim["verdict"] == "reproduced":
        said = "is not lower beyond the margin"
    elif claim["verdict"] == "not reproduced":
        said = "is lower"
    elif max(abs(low), abs(high)) <= CLOSE:
        said = f"differs by at most {max(abs(low), abs(high)):.3f} either way"
    else:
        said = "is not measurably different"
    return f"{KINDS[claim['measure']]} {said} ({interval(found, sign=True)})"


def on_what(claim: dict, samples: int) -> str:
    """The data behind a difference: "176 held-out prompts, 8 samples each, 3 training seeds"."""
    prompts, seeds = claim["difference"]["prompts"], claim["difference"]["seeds"]
    return f"{prompts} held-out prompts, {samples} samples each, {seeds} training seed" + "s" * (seeds > 1)


def table(claims: list[dict]) -> pd.DataFrame:
    """One row per claim, as text and cells."""
    return pd.DataFrame(
        [
            {
                "claim": claim["claim"],
                "compared": f"{name(claim['arm'])} minus {name(claim['against'])}",
                "here": estimated(claim["difference"], sign=True),
                "p, corrected": probability(claim["p_corrected"]),
                "verdict": claim["verdict"],
            }
            for claim in claims
        ]
    )


def reasons(claims: list[dict]) -> list[str]:
    """The reasons that block verdicts on claims, each once."""
    return list(dict.fromkeys(claim["blocked"] for claim in claims if claim.get("blocked")))
