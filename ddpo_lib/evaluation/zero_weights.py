"""Vectors and distances -> how many responses have weight zero, and how many responses the weights leave at work.

`groups` is as in `deviation`. Prompts are the units of every interval (`stats`), and the random cuts and pairs are made
per prompt (`by_prompt`).
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.evaluation.by_prompt import generator_of, interval_columns, rows_by_prompt
from ddpo_lib.pairs.rules import draw_rows
from ddpo_lib.statistics.intervals import bootstrap_ratio

ZERO = 1e-9  # a weight up to this counts as zero
FLOOR = 0.1  # the paper's, in its ablation on the number of responses per prompt


def zero_share(
    vectors: Sequence[np.ndarray],
    groups: np.ndarray,
    sizes: Sequence[int],
    *,
    scores: np.ndarray | None = None,
    gap: float = 5,
    scale: str = "minmax",
    cuts: int = 5,
    draws: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Share of responses, and of winners, with weight zero when prompts have n responses (paper, few responses).

    Prompts with at least n responses are cut to n at random, several times. Distances and weights are computed among
    the n, and winners come from the pairs that `pairs.make_pairs` draws from the n.

    Args:
        vectors: one (responses, d) array per space; the weights combine the spaces.
        groups: (responses,) integers.
        sizes: the values of n; one that no prompt reaches gives no row.
        scores: (responses,) floats, NaN where there is none.
        gap: as in `pairs.make_pairs`.
        scale: as in `deviation.weights`.
        cuts: how often each prompt is cut to n.
        draws, confidence, seed: of the bootstrap over prompts; the seed also determines the cuts and pairs.

    Returns:
        One row per size: `n prompts share formula winners winners_share`, the shares with `_low` and `_high`. `formula`
        is 1 - (1 - 1/n)^spaces: the share if each space has one lowest response, independently of the other spaces. It
        does not hold at n = 2, where both responses have the same distance and none has weight zero. `winners` counts
        winners over all cuts; if it is 0, their share is NaN.
    """
    scores = np.full(len(groups), np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    counts = {n: [] for n in sizes}  # per prompt: responses, those at zero, winners, those at zero
    for group, rows in rows_by_prompt(
        groups, scores, *vectors
    ):  # scores first, so that the cuts are the same in every space
        for n in (n for n in sizes if n <= len(rows)):
            rng = generator_of(seed, group, n)
            kept = [rng.choice(rows, n, replace=False) for _ in range(cuts)]
            zero = _at_zero(vectors, kept, scale)
            chosen = [draw_rows(scores[cut], gap, rng)[0] for cut in kept]
            won = np.concatenate([at_zero[winners] for at_zero, winners in zip(zero, chosen, strict=True)])
            counts[n].append((zero.size, zero.sum(), len(won), won.sum()))
    rows = []
    for n, prompts in counts.items():
        if prompts:
            responses, at_zero, winners, won = np.array(prompts).T
            share = bootstrap_ratio(at_zero, responses, **settings)
            of_winners = bootstrap_ratio(won, winners, **settings) if winners.any() else None
            row = {"n": n, "prompts": share.prompts, **interval_columns("share", share)}
            row |= {"formula": 1 - (1 - 1 / n) ** len(vectors), "winners": int(winners.sum())}
            rows.append(row | interval_columns("winners_share", of_winners))
    return pd.DataFrame(rows)


def _at_zero(vectors: Sequence[np.ndarray], cuts: list[np.ndarray], scale: str) -> np.ndarray:
    """(cuts, n) booleans: which rows of each cut of a prompt have weight zero. Distances are those within the cut."""
    ids = np.arange(len(cuts)).repeat(len(cuts[0]))
    distances = [mean_distance(space[np.concatenate(cuts)], ids) for space in vectors]
    return (weights(distances, ids, scale=scale) <= ZERO).reshape(len(cuts), -1)


def scaled_weights(distances: np.ndarray | Sequence[np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    """Weights of each response by "minmax", by "ratio", and by "minmax" with the paper's floor of 0.1: `floor`."""
    return pd.DataFrame(
        {
            "minmax": weights(distances, groups),
            "ratio": weights(distances, groups, scale="ratio"),
            "floor": weights(distances, groups, floor=FLOOR),
        }
    )


def effective_share(weight: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2), Kish's effective sample size as a share of n; equal weights give 1."""
    if not len(weight):
        return math.nan
    return float(np.sum(weight) ** 2 / (len(weight) * np.sum(np.square(weight))))
