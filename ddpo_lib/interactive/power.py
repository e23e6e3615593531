"""A calculator of precision: prompts, samples and seeds -> the half-widths of intervals, and the minutes they cost.

`power.js` computes both with the formulas of `evaluation.sharpness` and `evaluation.precision`, from what `power` hands
over. Quantiles of chi-square and t are interpolated between those of scipy, with errors below 1e-10.
"""

import html
from functools import partial

import numpy as np
import pandas as pd
from numpy.polynomial.chebyshev import chebinterpolate
from scipy.stats import chi2, t

from ddpo_lib.evaluation.compare_arms import GOLD, HEADLINE
from ddpo_lib.evaluation.precision import LEVELS, SHARES
from ddpo_lib.evaluation.sharpness import Cost, at_samples, project
from ddpo_lib.interactive.parts import POWER, part
from ddpo_lib.report import figures

DEGREE = 24  # of the polynomials that interpolate quantiles
AT_MOST = {"prompts": 400, "samples": 64, "seeds": 20}  # of what a reader can choose
AT_LEAST = {"prompts": 2, "samples": 2, "seeds": 1}


def power(found: dict[str, pd.DataFrame], cost: Cost, results: dict, claims: list[dict], *, confidence: float) -> str:
    """The calculator as HTML, for a page beside a folder `_static/` that contains `parts.assets()`.

    Args:
        found: by headline measure, the components of variance of a difference of two arms (`sharpness.variances`).
        cost: of both arms (`sharpness.costs_of`).
        results: of `compare_arms.summarise`.
        claims: of `results`, about these two arms: one per headline measure.
        confidence: of the intervals.

    Returns:
        A `figure` element. Its still form is a table of this run's half-widths.
    """
    last = found[HEADLINE[0]].iloc[-1]
    here = {name: int(last[name]) for name in AT_LEAST}
    arm, against = claims[0]["arm"], claims[0]["against"]
    data = {
        "arms": f"{figures.name(arm)} minus {figures.name(against)}",
        "here": here,
        "least": AT_LEAST,
        "most": {name: max(most, 2 * here[name]) for name, most in AT_MOST.items()},
        "confidence": confidence,
        "cost": {"training": cost.training, "sampling": cost.sampling},
        "measures": [_measure(found[c["measure"]], c) | {"sizes": sizes(results, c)} for c in claims],
        "quantiles": quantiles(confidence),
        "note": note(claims),
    }
    return part(POWER.stem, data, still=_still(data, claims, found, cost))


def sizes(results: dict, claim: dict) -> list[dict]:
    """Sizes of effect that a reader may want to detect: `what` each is, and its `size` >= 0; `note` explains them.

    Args:
        results: of `compare_arms.summarise`.
        claim: one of its claims.
    """
    measured = {"what": "the difference in this run", "size": abs(claim["difference"]["mean"])}
    if claim["expect"] == "not lower":
        return [{"what": "the margin of the claim", "size": claim["margin"]}] * (claim["margin"] > 0) + [measured]
    arms, measure, twin = results["arms"], claim["measure"], claim["against"]
    gap = arms[GOLD][measure]["mean"] - arms[twin][measure]["mean"] if GOLD in arms else 0.0
    return [{"what": f"from {figures.name(twin)} to people’s texts", "size": gap}] * (gap > 0) + [measured]


def note(claims: list[dict]) -> str:
    """What "decidable" means, and where the sizes are from."""
    twin = figures.name(claims[0]["against"])
    margin = f" For quality, the size is the margin of the claim: half of what {twin} gained over SFT."
    has_margin = any(claim["margin"] > 0 for claim in claims)
    return (
        "A claim is decidable if the half-width is below the size to detect. An interval around a difference of that "
        "size then does not contain zero, and an interval around zero does not contain a margin of that size. A size "
        "that equals the half-width is found in about half of all runs. The correction for several claims needs "
        "somewhat more. The paper shows its differences in figures, without numbers, but reports a model that is about "
        f"as diverse as people’s texts; so one size leads from {twin} to the corpus’s own responses."
        f"{margin * has_margin}"
    )


def quantiles(confidence: float) -> dict:
    """Chebyshev coefficients from which `power.js` computes quantiles, and the weights of the mean over them.

    `chi2` has a row per level of `precision.LEVELS`: the cube root of quantile / k as a function of 2 / sqrt(k) - 1,
    for k degrees of freedom. `t` is the logarithm of the quantile as a function of 2 / k - 1. Both need k >= 1.
    """

    def root_of_chi2(x: np.ndarray, level: float) -> np.ndarray:
        k = (2 / (x + 1)) ** 2
        return np.cbrt(chi2.ppf(level, k) / k)

    def log_of_t(x: np.ndarray) -> np.ndarray:
        return np.log(t.ppf((1 + confidence) / 2, 2 / (x + 1)))

    of_chi2 = [chebinterpolate(partial(root_of_chi2, level=level), DEGREE).tolist() for level in LEVELS + 0.5]
    return {"chi2": of_chi2, "t": chebinterpolate(log_of_t, DEGREE).tolist(), "shares": SHARES.tolist()}


def _measure(table: pd.DataFrame, claim: dict) -> dict:
    """A claim with its components of variance: a part that stays, and a part that falls with 1 / samples."""
    stays = np.array(at_samples(table, np.inf))
    return {
        "name": claim["measure"],
        "measured": (claim["difference"]["high"] - claim["difference"]["low"]) / 2,
        "stays": stays.tolist(),
        "falls": (np.array(at_samples(table, 1)) - stays).tolist(),
    }


def _still(data: dict, claims: list[dict], found: dict[str, pd.DataFrame], cost: Cost) -> str:
    """The table of this run's half-widths, and what it can decide."""
    confidence = data["confidence"]
    here = data["here"]
    rows = []
    for claim, measure in zip(claims, data["measures"], strict=True):
        half, size = project(found[measure["name"]], **here, confidence=confidence), measure["sizes"][0]
        widths = [f"{half:.4f}", f"{measure['measured']:.4f}", f"{size['size']:.4f}: {size['what']}"]
        rows.append([claim["claim"], measure["name"], *widths, "yes" if half < size["size"] else "no"])
    head = ["claim", "measure", "expected half-width", "in this run", "to detect", "decidable"]
    lines = ["".join(f'<td class="left">{html.escape(cell)}</td>' for cell in row) for row in rows]
    cells = "".join(f"<tr>{line}</tr>" for line in lines)
    titles = "".join(f'<th class="left">{title}</th>' for title in head)
    choice = f"{here['prompts']} held-out prompts, {here['samples']} samples per prompt"
    words = (
        f"{data['arms']} with {choice} and {figures.count(here['seeds'], 'training seed')}: half-width of the "
        f"{confidence:.0%} interval, for {cost.minutes(**here):.0f} minutes of computing on the machine of this run. "
        f"{data['note']}"
    )
    table = f'<table class="ddpo-table"><thead><tr>{titles}</tr></thead><tbody>{cells}</tbody></table>'
    return f'<div class="ddpo-scroll">{table}</div><p>{html.escape(words)}</p>'
