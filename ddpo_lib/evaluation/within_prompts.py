"""Numbers of each response -> how they go together in a prompt: correlations, ranks of sources, agreement of spaces.

Tables have one row per response and a column `prompt_id`; `groups` is as in `deviation`. Prompts are the units of
every interval (`stats`).
"""

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from ddpo_lib.deviation.weighting import weights
from ddpo_lib.evaluation.by_prompt import interval_columns
from ddpo_lib.statistics.intervals import Interval, bootstrap_ratio, mean_interval


def correlate_within(
    table: pd.DataFrame, x: str, y: str, *, given: str | None = None, confidence: float
) -> Interval | None:
    """Spearman's rho of two columns within a prompt, mean over prompts.

    Args:
        table: `prompt_id` and the columns; rows with NaN in one of them are left out.
        x, y: names of numeric columns.
        given: a column to hold fixed. Rho is then the partial rank correlation: the correlation that remains after the
            ranks in this column are regressed out.
        confidence: of the t interval over prompts.

    Returns:
        None if no prompt qualifies. A prompt qualifies if it has 3 complete rows (4 with `given`, since 3 always give
        1 or -1), both columns vary, and neither ranks the responses exactly as `given` does.
    """
    rhos = _rhos(table, x, y, given)
    return mean_interval(rhos, confidence=confidence) if len(rhos) else None


def _rhos(table: pd.DataFrame, x: str, y: str, given: str | None) -> np.ndarray:
    """Rho of each prompt that qualifies."""
    columns = list(filter(None, (x, y, given)))
    table = table.dropna(subset=columns)
    prompt = table["prompt_id"]
    ranks = table.groupby(prompt)[columns].rank()
    centred = ranks - ranks.groupby(prompt).transform("mean")

    def product(a: str, b: str) -> pd.Series:
        return (centred[a] * centred[b]).groupby(prompt).sum()

    def rho(a: str, b: str) -> pd.Series:
        return product(a, b) / np.sqrt(product(a, a) * product(b, b))  # 0 / 0 = NaN where one does not vary

    value = rho(x, y)
    if given:
        with_x, with_y = rho(x, given), rho(y, given)
        left = (1 - with_x**2) * (1 - with_y**2)
        value = (value - with_x * with_y) / np.sqrt(left.where(left > 0))
    enough = prompt.groupby(prompt).size() >= (4 if given else 3)
    return value[enough].dropna().to_numpy()


def rank_by_source(table: pd.DataFrame, column: str, *, confidence: float) -> list[tuple[str, Interval]]:
    """The relative rank of each source's responses among those to the same prompt, from 0 (lowest) to 1 (highest).

    Args:
        table: `prompt_id source` and the column; rows where it is NaN are left out.
        column: of numbers, such as deviations. Equal numbers share their rank.
        confidence: of the t interval over prompts.

    Returns:
        Each source and its mean relative rank, the highest first. Only prompts with a response of this source and one
        of another count. Chance gives 0.5.
    """
    table = table.dropna(subset=[column])
    prompts = table.groupby("prompt_id")[column]
    place = (prompts.rank() - 1) / (prompts.transform("size") - 1)
    several = table.groupby("prompt_id")["source"].transform("nunique") > 1
    by_prompt = place[several].groupby([table["source"], table["prompt_id"]]).mean().dropna()
    places = [(source, mean_interval(of, confidence=confidence)) for source, of in by_prompt.groupby(level=0)]
    return sorted(places, key=lambda found: -found[1].mean)


def agreement(
    distances: Mapping[str, np.ndarray],
    groups: np.ndarray,
    winners: np.ndarray,
    *,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """How far each pair of spaces agrees on which responses deviate.

    Args:
        distances: (n,) for each space.
        groups: (n,) integers.
        winners: row numbers of the pairs' winners; may be empty.
        draws, confidence, seed: of the bootstrap over prompts.

    Returns:
        One row per pair of spaces, `first second`, in the order given. Every number is symmetric in the two spaces. All
        but the counts and chances also have `_low` and `_high`.

        - `prompts rho`: Spearman's rho within a prompt; NaN if no prompt qualifies.
        - `top chance`: of the ceil(n/10) responses of a prompt that deviate most in one space, the share that is also
          among those of the other space, mean over prompts with 3 or more responses; chance gives ceil(n/10)/n.
        - `winners apart apart_chance`: the share of winners whose weight (minmax, from one space) in one space is below
          half of that in the other, where two zeros are equal; and this share if the other weight were that of a random
          response to the prompt. NaN without winners.
    """
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    distances = {name: np.asarray(space) for name, space in distances.items()}
    table = pd.DataFrame({"prompt_id": groups, **distances})
    weight = {name: weights(space, groups) for name, space in distances.items()}
    tenth = {name: _share_of_top(table, name) for name in distances}
    size = table.groupby("prompt_id").size()
    top = np.ceil(size / 10)
    rows = []
    for first, second in combinations(distances, 2):
        rho = correlate_within(table, first, second, confidence=confidence)
        common = ((tenth[first] * tenth[second]).groupby(table["prompt_id"]).sum() / top)[size >= 3]
        overlap = mean_interval(common, confidence=confidence) if len(common) else None
        one, other = weight[first], weight[second]
        by_prompt = pd.Series(_far(one[winners], other[winners])).groupby(groups[winners]).agg(["sum", "size"])
        apart = bootstrap_ratio(by_prompt["sum"], by_prompt["size"], **settings) if len(winners) else None
        row = {"first": first, "second": second, "prompts": rho.prompts if rho else 0, **interval_columns("rho", rho)}
        row |= interval_columns("top", overlap) | {"chance": float((top / size)[size >= 3].mean())}
        rows.append(row | {"winners": len(winners)} | interval_columns("apart", apart))
        rows[-1]["apart_chance"] = _far_by_chance(one, other, groups, winners)
    return pd.DataFrame(rows)


def _far(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether the smaller of two weights is below half of the larger."""
    return np.minimum(one, other) < np.maximum(one, other) / 2


def _far_by_chance(one: np.ndarray, other: np.ndarray, groups: np.ndarray, winners: np.ndarray) -> float:
    """The exact expected share of winners with weights apart if one weight were drawn from all of the prompt's."""
    far = []
    rows_of = pd.Series(groups).groupby(groups).indices
    for group, won in pd.Series(winners).groupby(groups[winners]):
        rows, won = rows_of[group], won.to_numpy()
        there, back = (
            _far(mine[won, None], its[None, rows]).mean(axis=1) for mine, its in ((one, other), (other, one))
        )
        far.append(there + back)
    return float(np.concatenate(far).mean() / 2) if far else math.nan


def _share_of_top(table: pd.DataFrame, column: str) -> pd.Series:
    """Membership of each row in its prompt's top tenth: 1 or 0, or a fraction for rows that tie for the last places."""
    prompts = table.groupby("prompt_id")[column]
    above = prompts.rank(method="min", ascending=False) - 1
    tied = prompts.rank(method="max", ascending=False) - above
    return ((np.ceil(prompts.transform("size") / 10) - above) / tied).clip(0, 1)
