"""A part of a page: quality and diversity of arms at several temperatures, as curves that a reader turns on and off.

`quality_plane.js` draws it. Every number and every sentence in it is made here.
"""

from typing import Any

import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.interactive.parts import arm_look, part
from ddpo_lib.profiles.wording import interval, name
from ddpo_lib.statistics.intervals import mean_interval


def page(
    fronts: dict[str, Any],
    by_prompt: pd.DataFrame,
    *,
    baseline: str,
    quality: str,
    confidence: float,
    still: str,
    caption: str,
) -> str:
    """The part as HTML, for a page beside a folder `_static/` that contains `parts.assets()`.

    Args:
        fronts: of `compare_arms.summarise_sweep`, with `cut`, as the artifact `fronts` has it.
        by_prompt: quality and diversity by arm, temperature and prompt, from which `fronts` was made.
        baseline: the arm that the others are compared with.
        quality: the name of the measure of quality.
        confidence: of the intervals over prompts.
        still: HTML for print and for readers without scripts.
        caption: a sentence below the part.

    Returns:
        A `figure` element.
    """
    cut = {arm: {each["temperature"]: each["share"] for each in of} for arm, of in fronts["cut"].items()}
    arms = list(next(iter(fronts["spaces"].values()))["curves"])
    measures = []
    for space, found in fronts["spaces"].items():
        curves = []
        for arm in arms:
            ends = _ends(by_prompt[by_prompt["arm"] == arm], space, confidence)
            sampled = [point for point in found["curves"][arm] if point["diversity"] is not None]
            points = [_point(point, space, ends, quality, cut[arm]) for point in sampled]
            for point in points:
                matched = found["matched"].get(arm)
                if matched and point["temperature"] == fronts["temperature"]:
                    point["words"] += _matched(matched, baseline)
            curves.append(points)
        measures.append({"name": f"{space} diversity", "curves": curves})
    data = {
        "arms": [arm_look(arm) for arm in arms],
        "quality": quality,
        "confidence": f"{confidence:.0%}",
        "measures": measures,
    }
    return part("quality_plane", plain(data), still=still, caption=caption)


def _ends(by_prompt: pd.DataFrame, space: str, confidence: float) -> dict[float, dict[str, Any]]:
    """By temperature, the intervals of an arm's quality and diversity, over the prompts with both at each of them."""
    wide = by_prompt.pivot(index="prompt_id", columns="temperature", values=["quality", space]).dropna()
    return {
        temperature: {
            axis: plain(mean_interval(wide[column, temperature].to_numpy(), confidence=confidence))
            for axis, column in (("quality", "quality"), ("diversity", space))
        }
        for temperature in wide["quality"].columns
    }


def _point(
    point: dict[str, float], space: str, ends: dict[float, dict[str, Any]], quality: str, cut: dict[float, float]
) -> dict[str, Any]:
    """A point of a curve, its intervals, and what a reader is told of it."""
    of = ends[point["temperature"]]
    diversity, mean_quality = (interval(of[axis] | {"mean": point[axis]}) for axis in ("diversity", "quality"))
    words = (
        f"temperature {point['temperature']:g}: {space} diversity {diversity}, {quality} {mean_quality}, "
        f"{of['quality']['prompts']} prompts; {cut[point['temperature']]:.0%} of the samples are truncated."
    )
    sides = {axis: [of[axis]["low"], of[axis]["high"]] for axis in ("diversity", "quality")}
    return {**point, "ends": sides, "words": words}


def _matched(found: dict[str, Any], baseline: str) -> str:
    """The comparison with the baseline at equal diversity, as a sentence."""
    if found["mean"] is None:
        return f" {name(baseline)} does not reach this diversity at any sampled temperature."
    return f" At this diversity, its quality minus that of {name(baseline)} is {interval(found, sign=True)}."
