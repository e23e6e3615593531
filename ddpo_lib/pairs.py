"""Scored responses of a prompt -> winner/loser pairs (paper, data; released code)."""

import numpy as np
import pandas as pd

from ddpo_lib.errors import InputError


def make_pairs(corpus: pd.DataFrame, gap: float = 5, seed: int = 0) -> pd.DataFrame:
    """Random disjoint pairs for each prompt: first with a score gap of `gap` or more, then with any two scores.

    A response is used at most once, and the pairs of a prompt do not depend on the other prompts. Responses without
    a score take no part.

    Args:
        corpus: the table of `corpus.read_corpus`.
        gap: the least difference in score of the first round, in upvotes.
        seed: of the draw.

    Returns:
        A row a pair: `prompt_id prompt chosen_id rejected_id chosen rejected chosen_score rejected_score`.

    Raises:
        InputError: no prompt has two responses with different scores.
    """
    parts = []
    for prompt_id, group in corpus[corpus["score"].notna()].groupby("prompt_id", sort=True):
        rng = np.random.default_rng([seed, *prompt_id.encode()])
        chosen, rejected = draw_rows(group["score"].to_numpy(), gap, rng)
        winner, loser = group.iloc[chosen], group.iloc[rejected]
        parts.append(
            pd.DataFrame(
                {
                    "prompt_id": prompt_id,
                    "prompt": winner["prompt"].to_numpy(),
                    "chosen_id": winner["response_id"].to_numpy(),
                    "rejected_id": loser["response_id"].to_numpy(),
                    "chosen": winner["text"].to_numpy(),
                    "rejected": loser["text"].to_numpy(),
                    "chosen_score": winner["score"].to_numpy(),
                    "rejected_score": loser["score"].to_numpy(),
                }
            )
        )
    pairs = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if pairs.empty:
        raise InputError(_why_no_pairs(corpus))
    return pairs


def draw_rows(scores: np.ndarray, gap: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Rows of the winners and of the losers among one prompt's scores: the rule of `make_pairs`, without its table.

    Two rounds over all pairs in random order, each row used at most once. A score that is NaN is in no pair.
    """
    first, second = np.triu_indices(len(scores), 1)
    order = rng.permutation(len(first))
    difference = np.abs(scores[first] - scores[second])
    used = np.zeros(len(scores), dtype=bool)
    chosen, rejected = [], []
    for allowed in ((difference >= gap) & (difference > 0), difference > 0):
        for k in order[allowed[order]]:
            i, j = first[k], second[k]
            if used[i] or used[j]:
                continue
            used[i] = used[j] = True
            winner, loser = (i, j) if scores[i] > scores[j] else (j, i)
            chosen.append(int(winner))
            rejected.append(int(loser))
    return chosen, rejected


def _why_no_pairs(corpus: pd.DataFrame) -> str:
    sizes = corpus.groupby("prompt_id").size()
    scored = int(corpus["score"].notna().sum())
    if scored == 0:
        why = "no response has a score, and training needs pairs of a better and a worse one"
    elif sizes.max() < 2:
        why = "every prompt has one response, and a pair needs two"
    else:
        why = f"no prompt has two responses with different scores ({scored} of {len(corpus)} responses have one)"
    return f"no training pair can be made: {why}; `ddpo weights` still computes deviations"
