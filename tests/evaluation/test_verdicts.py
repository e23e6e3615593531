"""Every profile of the package, with its own arms, rows and numbers of seeds, can reach each verdict on each claim."""

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.evaluation.compare_arms import HEADLINE, summarise
from ddpo_lib.evaluation.published import decide_claims, published
from ddpo_lib.profiles.profile import Profile, load_profile, names, twins
from ddpo_lib.worlds import grids

TRAINED = [name for name in names() if load_profile(name).arms]
PROMPTS = 24  # a few dozen: the fewest that a profile holds out
REWARD = {"better_than_chance": True, "p_within_prompt": 0.001, "p_within_prompt_error": 0.0007}
SIGN = {"higher": 1, "lower": -1, "not lower": 1, "unchanged": 0}
NOISE = 1e-4


def arms_with(profile: Profile, shifts: dict[tuple[str, str], float], seed: int = 0) -> dict:
    """A profile's evaluation: its arms over its seeds, with noise of a prompt and of a value and, where there are
    several seeds, of a seed; plus the shift of an arm and measure."""
    rng = np.random.default_rng(seed)
    seeds, arms = profile.seeds, ("gold", "sft", *profile.arms, *profile.baselines)
    tables = []
    for arm in arms:
        own = seeds if arm in ("sft", *profile.arms) else 1
        noise = (
            rng.normal(size=(3, PROMPTS, own))
            + rng.normal(size=(3, PROMPTS, 1))
            + (own > 1) * rng.normal(size=(3, 1, own))
        )
        gain = 100 * NOISE * (arm in ("dpo", "orpo"))  # over sft, so that there is a margin of quality
        for s in range(own):
            values = {m: NOISE * noise[k, :, s] + shifts.get((arm, m), 0.0) for k, m in enumerate(HEADLINE)}
            values["quality"] = values["quality"] + gain + shifts.get(("all", "quality"), 0.0)
            tables.append(pd.DataFrame({"arm": arm, "prompt_id": range(PROMPTS), "seed": s, **values}))
    by_prompt = pd.concat(tables, ignore_index=True)
    return summarise(by_prompt, against=twins(profile), confidence=profile.evaluation.confidence)


def rows_with(profile: Profile, shift, claims: list[dict], seed: int = 0) -> pd.DataFrame:
    """A grid as `collect.join` writes it, of the claims' rows that the profile has: noise, and in each row of a
    claim the shift of that claim added. Each claim has rows of its own, so that claims do not contradict each other."""
    rng, rows = np.random.default_rng(seed), []
    for i, claim in enumerate(claims):
        for side in ("row", "against"):
            for s in range(profile.worlds.seeds):
                moved = shift(claim) if side == "row" else 0.0
                rows.append({"row": f"{i}-{side}", "seed": s, claim["measure"]: NOISE * rng.normal() + moved})
    return pd.DataFrame(rows)


def of_the_grid(profile: Profile) -> list[dict]:
    """The claims on worlds that the profile's rows can decide."""
    rows = {*profile.worlds.rows, *(f"sft:{world}" for world in profile.worlds.kinds)}
    return [claim for claim in published()["worlds"] if {claim["row"], claim["against"]} <= rows]


def decide_grid(profile: Profile, shift, seed: int = 0) -> list[dict]:
    claims = of_the_grid(profile)
    renamed = [claim | {"row": f"{i}-row", "against": f"{i}-against"} for i, claim in enumerate(claims)]
    table = rows_with(profile, shift, claims, seed)
    return grids.decide_rows(table, renamed, confidence=profile.evaluation.confidence)


def on_claims(sign: float) -> dict[tuple[str, str], float]:
    """An enormous effect in each claim's direction, or against it."""
    return {(c["arm"], c["measure"]): sign * SIGN[c["expect"]] * 1e4 * NOISE for c in published()["claims"]}


@pytest.mark.parametrize("name", TRAINED)
def test_arms_reach_each_verdict_at_the_profiles_number_of_seeds(name):
    profile = load_profile(name)
    for sign, answer in ((1, "reproduced"), (-1, "not reproduced")):
        decided = decide_claims(published()["claims"], arms_with(profile, on_claims(sign)), REWARD)
        ids = {claim["id"] for claim in decided}
        assert {"main-semantic", "main-style", "main-quality"} <= ids
        assert ("orpo-quality" in ids) == ("orpo" in profile.arms)
        assert {claim["id"]: claim["verdict"] for claim in decided} == dict.fromkeys(ids, answer)


@pytest.mark.parametrize("name", TRAINED)
def test_rows_of_worlds_reach_each_verdict_at_the_profiles_number_of_seeds(name):
    profile = load_profile(name)
    assert {claim["number"] for claim in of_the_grid(profile)} == {1, 2, 3, 4, 5}  # each argument of the paper
    for sign, answer in ((1, "reproduced"), (-1, "not reproduced")):

        def shift(claim, sign=sign):
            if claim["expect"] == "unchanged":
                return 0.0 if sign == 1 else 1e4 * NOISE
            return sign * SIGN[claim["expect"]] * 1e4 * NOISE

        assert {claim["verdict"] for claim in decide_grid(profile, shift)} == {answer}


@pytest.mark.parametrize("name", TRAINED)
def test_where_nothing_differs_hardly_a_family_has_a_claim_reproduced(name):
    """By chance one family in forty: one in twenty has a finding, and half of those in the claim's direction."""
    profile, found = load_profile(name), []
    for seed in range(10):
        on_arms = decide_claims(published()["claims"], arms_with(profile, {}, seed), REWARD)
        families = {claim["family"]: [] for claim in on_arms}
        for claim in on_arms:
            families[claim["family"]].append(claim)
        for family in (*families.values(), decide_grid(profile, lambda claim: 0.0, seed)):
            directed = [claim["verdict"] for claim in family if claim["expect"] in ("higher", "lower")]
            found.append("reproduced" in directed)
    assert np.mean(found) <= 0.1
