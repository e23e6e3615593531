"""Rounds of learning from one's own samples: the prompts that a round asks, and the samples that it learns from."""

import numpy as np
import pandas as pd


def draw_prompts(corpus: pd.DataFrame, prompts: int, number: int, seed: int) -> pd.DataFrame:
    """The training prompts of a round, `prompt_id prompt`, at random; no prompt is repeated before all were used.

    Args:
        corpus: of `corpus.read_corpus`.
        prompts: prompts per round; all of them if there are fewer.
        number: of the round, from 1.
        seed: of the order of the prompts; the same for every round.
    """
    known = corpus[corpus["split"] == "train"].drop_duplicates("prompt_id").sort_values("prompt_id")
    known = known[["prompt_id", "prompt"]].reset_index(drop=True)
    order = np.random.default_rng(seed).permutation(len(known))
    places = np.arange((number - 1) * prompts, number * prompts) % len(known)
    return known.iloc[np.sort(order[places[: len(known)]])].reset_index(drop=True)


def whole(pool: pd.DataFrame) -> pd.DataFrame:
    """The samples to learn from: not blank and not cut, since a cut sample would teach the model to stop early."""
    return pool[pool["finished"] & (pool["text"].str.strip() != "")].reset_index(drop=True)
