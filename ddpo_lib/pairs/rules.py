"""Scored responses to a prompt -> winner/loser pairs: the gap rule, and DivPO's rule (paper, data; released code)."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.ids import check_ids

ROUNDING = 1e-9  # a share of responses or of a range of scores that is this close to a bound is on the bound


def make_pairs(corpus: pd.DataFrame, gap: float = 5, seed: int = 0) -> pd.DataFrame:
    """Random disjoint pairs for each prompt: first with a score gap of `gap` or more, then with any different scores.

    A response is used at most once, and the pairs of a prompt do not depend on the other prompts. Responses without a
    score are not used.

    Args:
        corpus: the table of `corpus.read_corpus`.
        gap: the least difference in score of the first round, in upvotes.
        seed: seed of the draw.

    Returns:
        One row per pair: `prompt_id prompt chosen_id rejected_id chosen rejected chosen_score rejected_score`.

    Raises:
        InputError: no prompt has two responses with different scores, or one `prompt_id` stands for several prompts.
    """
    chosen, rejected = [], []
    for rows, rng in _scored_prompts(corpus, seed):
        winners, losers = draw_rows(corpus["score"].to_numpy()[rows], gap, rng)
        chosen.extend(rows[winners])
        rejected.extend(rows[losers])
    if not chosen:
        raise InputError(_why_no_pairs(corpus))
    return _table(corpus, chosen, rejected)


def draw_rows(scores: np.ndarray, gap: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Rows of the winners and of the losers among one prompt's scores: the rule of `make_pairs`, without its table.

    There are two rounds over all pairs in random order, the first with `gap`, and each row is used at most once. A NaN
    score is in no pair.

    The pairs are never listed. A round draws from them with replacement and skips a pair with a used row, so the next
    pair is equally likely to be any pair of unused rows, as in a random order. After two draws per row, it removes the
    used rows. The time is about that of a sort; memory is linear in the number of rows.

    Args:
        scores: (n,) floats.
        gap: the least difference in score of the first round.
        rng: decides the order.

    Returns:
        Indices of the winners, and of their losers, from 0 to n - 1.
    """
    rows = np.argsort(scores, kind="stable")
    rows = rows[~np.isnan(scores[rows])].tolist()  # those that are not used yet, lowest score first
    chosen, rejected = [], []
    for least in (gap, 0):
        while pairs := (above := _count_above(scores[rows].tolist(), least)).sum():
            end = above.cumsum()  # pairs have numbers, in the order of their losers and then of their winners
            drawn = rng.integers(pairs, size=2 * len(rows))
            losers = np.searchsorted(end, drawn, side="right")
            winners = len(rows) - (end[losers] - drawn)
            used = [False] * len(rows)
            for loser, winner in zip(losers.tolist(), winners.tolist(), strict=True):
                if not (used[loser] or used[winner]):
                    used[loser] = used[winner] = True
                    chosen.append(rows[winner])
                    rejected.append(rows[loser])
            rows = [row for row, taken in zip(rows, used, strict=True) if not taken]
    return chosen, rejected


def _count_above(scores: list[float], least: float) -> np.ndarray:
    """For each of the ascending scores, how many are higher by `least` or more, and by more than 0: the last ones.

    The differences themselves are compared, since `score + least` would be rounded otherwise than they are.
    """
    counts, first = [], 0
    for score in scores:
        while first < len(scores) and not (scores[first] - score >= least and scores[first] - score > 0):
            first += 1
        counts.append(len(scores) - first)
    return np.array(counts, dtype=np.int64)


def make_divpo_pairs(
    corpus: pd.DataFrame,
    weights: np.ndarray | Callable[[np.ndarray], np.ndarray],
    rho: float = 0.25,
    max_pairs: int = 2,
    seed: int = 0,
    *,
    threshold: Literal["count", "range"] = "count",
) -> pd.DataFrame:
    """DivPO's pairs: the most diverse of a prompt's best responses, each with one of the least diverse of its worst.

    With `divpo.weights_within` and the defaults, this is the comparison in the paper (DivPO comparison, as released).
    With a diversity among all responses to a prompt and `max_pairs=1`, it follows DivPO (Lanchantin et al. 2025,
    arXiv:2501.18101). `threshold` says how DivPO's rho is used; descriptions of DivPO use the range, which was not
    checked in its paper. Criteria: `surprisal.mean_surprisal`, `divpo.diversity_by_words`, `deviation.mean_distance`.

    Every winner scores higher than every loser of its prompt. A response is used at most once. The pairs of a prompt
    depend neither on the other prompts nor on the order of rows. The draw decides between equal scores, and between
    responses with equal diversity and equal score, such as identical ones. Responses without a score are not used.

    Args:
        corpus: the table of `corpus.read_corpus`.
        weights: how diverse each response is; higher is more diverse. Either (n,) floats, one per row of `corpus`. Or,
            if the diversity depends on the compared responses, a function: m >= 2 positions of rows in `corpus` -> (m,)
            floats. It is called with the best of a prompt, and with the worst, if they are more than the pairs to make.
        rho: in (0, 0.5], how many responses count as the best and the worst; see `threshold`.
        max_pairs: the most pairs per prompt.
        seed: seed of the draw, which also decides which winner meets which loser.
        threshold: "count", as released: the best are the rho share of the responses, rounded down, but at least two and
            at most half, and so few that each of them scores higher than each of the worst. "range": the best are all
            responses whose score is at most rho times the range of the prompt's scores below the highest, so their
            number varies; a score exactly in the middle is neither among the best nor the worst. The worst likewise.

    Returns:
        One row per pair, as in `make_pairs`. `attrs["dropped"]`, as in `corpus.read_corpus`, counts the prompts without
        a pair and those with fewer than `max_pairs`, which are kept.

    Raises:
        ValueError: rho, max_pairs or threshold is not as above; diversities of a wrong shape, or a NaN or infinite
            diversity among responses that are compared (names the response).
        InputError: no prompt has two responses with different scores.
    """
    if not 0 < rho <= 0.5:
        raise ValueError(f"rho: expected a share in (0, 0.5], or the best are among the worst; got {rho}")
    if max_pairs < 1:
        raise ValueError(f"max_pairs: expected 1 or more, got {max_pairs}")
    if threshold not in ("count", "range"):
        raise ValueError(f'threshold: expected "count" or "range", got {threshold!r}')
    if not callable(weights) and np.shape(weights) != (len(corpus),):
        raise ValueError(f"weights: expected {len(corpus)} numbers, one per row of the corpus, got {np.shape(weights)}")
    diversity = weights if callable(weights) else np.asarray(weights).__getitem__
    scores, ids = corpus["score"].to_numpy(), corpus["response_id"].to_numpy()

    def most(rows: np.ndarray, number: int, sign: int) -> np.ndarray:
        """The most diverse rows (sign 1) or the least diverse (sign -1); among equals, the first ones."""
        if len(rows) == number:
            return rows
        value = np.asarray(diversity(rows), dtype=np.float64)
        if value.shape != rows.shape:
            raise ValueError(f"weights: expected {len(rows)} numbers for {len(rows)} rows, got shape {value.shape}")
        if not np.isfinite(value).all():
            bad = np.isfinite(value).argmin()
            raise ValueError(f"weights: response {ids[rows[bad]]} has {value[bad]}; expected a finite number")
        return rows[np.argsort(-sign * value, kind="stable")[:number]]

    chosen, rejected, dropped = [], [], Counter()
    for rows, rng in _scored_prompts(corpus, seed):
        rows = rows[np.argsort(ids[rows])]
        best, worst = (rows[end] for end in draw_ends(scores[rows], rho, threshold, rng))
        number = min(max_pairs, len(best), len(worst))
        chosen.extend(most(best, number, 1))
        rejected.extend(rng.permutation(most(worst, number, -1)))
        if number == 0:
            dropped["prompts", "fewer than two scored responses" if len(rows) < 2 else "all scores are equal"] += 1
        elif number < max_pairs:
            dropped[f"prompts with fewer than {max_pairs} pairs", "kept; too few responses are best or worst"] += 1
    if not chosen:
        raise InputError(_why_no_pairs(corpus))
    pairs = _table(corpus, chosen, rejected)
    pairs.attrs["dropped"] = [{"what": what, "count": count, "why": why} for (what, why), count in dropped.items()]
    return pairs


def draw_ends(
    scores: np.ndarray, rho: float, threshold: Literal["count", "range"], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the best, best first, and of the worst, worst first, among one prompt's scores: see `make_divpo_pairs`.

    Equal scores are in random order. Both are empty if all scores are equal or there are fewer than two.
    """
    order = rng.permutation(len(scores))
    order = order[np.argsort(-scores[order], kind="stable")]
    down = scores[order]
    if len(order) < 2 or down[0] == down[-1]:
        return order[:0], order[:0]
    if threshold == "count":
        k = max(2, int(rho * len(order) + ROUNDING))
        # as k grows, the k-th best and the k-th worst approach each other and meet at half of the responses or before
        high = low = int((down[:k] > down[::-1][:k]).sum())
    else:
        place = (down - down[-1]) / (down[0] - down[-1])
        high = int(((place >= 1 - rho - ROUNDING) & (place > 0.5 + ROUNDING)).sum())
        low = int(((place <= rho + ROUNDING) & (place < 0.5 - ROUNDING)).sum())
    return order[:high], order[::-1][:low]


def _scored_prompts(corpus: pd.DataFrame, seed: int) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    """For each prompt, by id: the positions of its scored responses in the corpus, and its own random generator."""
    check_ids(corpus)
    scored = corpus["score"].notna().to_numpy()
    for prompt_id, rows in sorted(corpus.groupby("prompt_id").indices.items()):
        yield rows[scored[rows]], np.random.default_rng([seed, *str(prompt_id).encode()])


def _table(corpus: pd.DataFrame, chosen: list[int], rejected: list[int]) -> pd.DataFrame:
    winner, loser = corpus.iloc[chosen], corpus.iloc[rejected]
    return pd.DataFrame(
        {
            "prompt_id": winner["prompt_id"].to_numpy(),
            "prompt": winner["prompt"].to_numpy(),
            "chosen_id": winner["response_id"].to_numpy(),
            "rejected_id": loser["response_id"].to_numpy(),
            "chosen": winner["text"].to_numpy(),
            "rejected": loser["text"].to_numpy(),
            "chosen_score": winner["score"].to_numpy(),
            "rejected_score": loser["score"].to_numpy(),
        }
    )


def _why_no_pairs(corpus: pd.DataFrame) -> str:
    sizes = corpus.groupby("prompt_id").size()
    scored = int(corpus["score"].notna().sum())
    if corpus.empty:
        why = "no prompt is in the training split; give more prompts, lower held_out or change split_seed"
    elif scored == 0:
        why = "no response has a score, and training needs pairs of a better and a worse one"
    elif sizes.max() < 2:
        why = "every prompt has one response, and a pair needs two"
    else:
        why = f"no prompt has two responses with different scores ({scored} of {len(corpus)} responses have one)"
    return f"no training pair can be made: {why}; `ddpo weights` still computes deviations"
