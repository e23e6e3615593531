"""Rows of a table -> each prompt's rows and a random generator of its own; an interval over prompts -> columns.

Random draws are made per prompt, from the seed, the group's id and the responses, so they depend neither on the order
of the rows nor on the other prompts.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ddpo_lib.statistics.intervals import Interval

ENDS = ("", "_low", "_high")  # of the columns of an estimate and its interval


def rows_by_prompt(groups: np.ndarray, *columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each group's id and rows, in an order that depends on the columns' values and not on the order of the rows."""
    for group, rows in pd.Series(groups).groupby(groups).indices.items():
        yield int(group), np.array(sorted(rows, key=lambda row: [column[row].tobytes() for column in columns]))


def generator_of(seed: int, group: int, *more: int) -> np.random.Generator:
    """A generator of random numbers for one prompt, and for one purpose where `more` tells several apart."""
    return np.random.default_rng([seed, group % 2**64, *more])


def draw_sets(table: pd.DataFrame, size: int, draws: int, seed: int) -> pd.DataFrame:
    """Random sets of a prompt's responses, so that people are measured on as many responses as a model.

    Args:
        table: one row per response, with `prompt_id`.
        size: responses per set; a prompt with fewer contributes all of them.
        draws: sets per prompt. Each is drawn without replacement, independently of the others.
        seed: of the draws.

    Returns:
        The rows of all sets, with a column `draw`.
    """
    rng = np.random.default_rng(seed)
    places = list(table.reset_index(drop=True).groupby("prompt_id", sort=True).indices.values())
    chosen = [(rng.permutation(rows)[:size], draw) for draw in range(draws) for rows in places]
    parts = [table.iloc[rows].assign(draw=draw) for rows, draw in chosen]
    return pd.concat(parts, ignore_index=True)


def interval_columns(name: str, interval: Interval | None) -> dict[str, float]:
    """An estimate and the ends of its interval, as columns; NaN if there is none."""
    values = (interval.mean, interval.low, interval.high) if interval else (math.nan,) * 3
    return {f"{name}{end}": value for end, value in zip(ENDS, values, strict=True)}
