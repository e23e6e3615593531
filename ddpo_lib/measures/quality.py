"""Prompt and response -> score (paper, evaluation): what every reward does, and the report on how well it does it.

There are two rewards: `reward_model.RewardModel`, the paper's, and `stand_in.StandIn`, a weak substitute that is
fitted in seconds. Scores are transformed upvotes, about -1 to 1 (`corpus.transform_scores`).
"""

import math
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain
from ddpo_lib.data.corpus import is_blank, transform_scores
from ddpo_lib.statistics.intervals import Interval, mean_interval
from ddpo_lib.statistics.resampling import draw_counts, ends

LOWEST, HIGHEST = -1.0, 1.0  # transformed scores; a blank text gets the lowest
CHANCE = 0.05  # a reward with a larger p counts as no better than chance
DRAWS = 2000  # of the bootstrap and of the permutations
CONFIDENCE = 0.95
DECILES, LENGTHS = 10, 4  # groups of responses by prediction, and by number of words


class Reward(ABC):
    """Scores responses. Each kind of reward defines `predict`; blank texts and bad numbers are handled here.

    Attributes:
        name: shown beside every number that the reward gives.
        facts: JSON values that describe how it was fitted.
    """

    name: str
    facts: dict

    def score(self, prompts: list[str], texts: list[str]) -> np.ndarray:
        """(n,) float64 predicted transformed upvotes, about -1 to 1; higher is better.

        A blank text gets the lowest score. So does `corpus.EMPTY`, which marks a blank text in files of samples.

        Raises:
            InputError: a prediction is not finite, or there are too few or too many predictions; the message gives
                their number and the first response concerned.
        """
        if len(prompts) != len(texts):
            raise InputError(
                f"{self.name}: {len(prompts)} prompts and {len(texts)} texts; expected one prompt per text"
            )
        full = [i for i, text in enumerate(texts) if not is_blank(text)]
        scores = np.full(len(texts), LOWEST)
        if not full:
            return scores
        predicted = np.asarray(self.predict([prompts[i] for i in full], [texts[i] for i in full]), dtype=np.float64)
        if predicted.shape != (len(full),):
            first = min(len(predicted), len(full) - 1) if predicted.ndim == 1 else 0
            raise InputError(
                f"{self.name}: scores of shape {predicted.shape} for {len(full)} responses; expected one per "
                f"response; the first mismatch is {_called(full[first], texts)}"
            )
        bad = np.flatnonzero(~np.isfinite(predicted))
        if bad.size:
            raise InputError(
                f"{self.name}: {bad.size} of {len(full)} scores are not finite; the first, {predicted[bad[0]]}, is of "
                f"{_called(full[bad[0]], texts)}"
            )
        scores[full] = predicted
        return scores

    @abstractmethod
    def predict(self, prompts: list[str], texts: list[str]) -> np.ndarray:
        """(n,) scores of n >= 1 texts, none of them blank."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` reads."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "Reward":
        """The reward that `save` wrote; it gives the same scores."""


def split_scored(corpus: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scored responses of the training split and of the test split.

    Scores are transformed by the range of the training scores (`corpus.transform_scores`).

    Raises:
        InputError: no response of the training split has a score.
    """
    scored = corpus[corpus["score"].notna()]
    train, test = (scored[scored["split"] == split] for split in ("train", "test"))
    if train.empty:
        raise InputError(
            "no response of the training split has a score; the reward is fitted to scores, so give some responses one"
        )
    low, high = train["score"].min(), train["score"].max()
    train, test = (part.assign(score=transform_scores(part["score"], low, high)) for part in (train, test))
    return train, test


def predict_held_out(reward: Reward, held_out: pd.DataFrame) -> pd.DataFrame:
    """Held-out responses with the reward's predictions: `prompt_id response_id score predicted words`."""
    predicted = reward.score(held_out["prompt"].tolist(), held_out["text"].tolist())
    words = held_out["text"].str.split().str.len().astype("int64")
    return held_out[["prompt_id", "response_id", "score"]].assign(predicted=predicted, words=words)


def report(predicted: np.ndarray, held_out: pd.DataFrame, seed: int) -> dict:
    """How good predictions are, on responses to prompts that the reward has not seen. All values are JSON.

    Args:
        predicted: (n,) finite floats.
        held_out: n rows with `prompt_id`, `score` (on the scale of the predictions) and `words`.
        seed: of the bootstrap over prompts and of the permutations.

    Returns:
        - `responses`, `prompts`
        - `spearman`: rho over all responses, with an interval: a mapping with mean, low, high and prompts. low and high
          are None if there are too few prompts. Whole prompts are resampled, as in `stats`.
        - `within_prompt`: the mean over prompts of rho within a prompt, with a t interval. Only prompts with at least
          two different scores count. A prompt whose predictions are all equal has rho 0.
        - `p_within_prompt`: the share of permutations of the scores within prompts whose mean rho is at least as high
          as the observed one, which is counted too; `p_within_prompt_error`, its Monte-Carlo standard error;
          `better_than_chance`: whether p is below 0.05.
        - `mean_absolute_error`, and `error_of_median`: the same if the median held-out score is predicted for every
          response
        - `calibration`: by tenths of the predictions, `responses`, mean `predicted` and mean `score`
        - `by_length`: by quarters of the number of words, from `fewest` to `most`: `responses`, `spearman`,
          `mean_absolute_error`, mean `predicted` and mean `score`
        - `length`: rho within a prompt between the number of words and `predicted`, and between it and `score`, as in
          `within_prompt`. For a reward that favours length, the first is higher.

        A value that cannot be computed (no prompt has two different scores; all numbers are equal) is None.
    """
    predicted, score = np.asarray(predicted, dtype=np.float64), held_out["score"].to_numpy(dtype=np.float64)
    words = held_out["words"].to_numpy()
    codes, ids = pd.factorize(held_out["prompt_id"], sort=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes, minlength=len(ids)))[:-1])
    pairs = _rank_pairs(predicted, score, rows)
    p = _chance(pairs, seed)
    found = {
        "responses": len(score),
        "prompts": len(ids),
        "spearman": _overall(predicted, score, codes, seed),
        "within_prompt": _within(pairs),
        "p_within_prompt": p,
        "p_within_prompt_error": None if p is None else math.sqrt(p * (1 - p) / DRAWS),
        "better_than_chance": p is not None and p < CHANCE,
        "mean_absolute_error": _mean(np.abs(predicted - score)),
        "error_of_median": _mean(np.abs(np.median(score) - score)) if len(score) else None,
        "calibration": [
            {"responses": len(part), "predicted": _mean(predicted[part]), "score": _mean(score[part])}
            for part in _parts(predicted, DECILES)
        ],
        "by_length": [
            {
                "fewest": int(words[part].min()),
                "most": int(words[part].max()),
                "responses": len(part),
                "spearman": _spearman(predicted[part], score[part]),
                "mean_absolute_error": _mean(np.abs(predicted[part] - score[part])),
                "predicted": _mean(predicted[part]),
                "score": _mean(score[part]),
            }
            for part in _parts(words, LENGTHS)
        ],
        "length": {
            "predicted": _within(_rank_pairs(predicted, words, rows)),
            "score": _within(_rank_pairs(score, words, rows)),
        },
    }
    return plain(found)


def _rank_pairs(a: np.ndarray, b: np.ndarray, rows: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ranks of `a` and of `b` within each prompt; prompts whose values of `b` are all equal are left out."""
    return [(_ranks(a[part]), _ranks(b[part])) for part in rows if len(np.unique(b[part])) > 1]


def _within(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict | None:
    """The mean over prompts of rho, with its interval; a single prompt gives no interval."""
    rhos = np.array([a @ b for a, b in pairs])
    return plain(mean_interval(rhos, confidence=CONFIDENCE)) if len(rhos) else None


def _chance(pairs: list[tuple[np.ndarray, np.ndarray]], seed: int) -> float | None:
    """The share of permutations within prompts with a mean rho at least as high as the observed one, which counts."""
    if not pairs:
        return None
    rng = np.random.default_rng(seed)
    permuted = sum(rng.permuted(np.tile(b, (DRAWS, 1)), axis=1) @ a for a, b in pairs)
    as_high = permuted >= sum(a @ b for a, b in pairs) - 1e-9  # sums of the same terms in another order count as equal
    return float((1 + as_high.sum()) / (DRAWS + 1))


def _overall(predicted: np.ndarray, score: np.ndarray, codes: np.ndarray, seed: int) -> dict | None:
    """Rho over all responses, with its interval. A resample of prompts only weights the rows, so they stay sorted."""
    rho, prompts = _spearman(predicted, score), len(np.unique(codes))
    if rho is None:
        return None
    places = [np.unique(values, return_inverse=True)[1] for values in (predicted, score)]
    drawn = []
    for counts in draw_counts(np.random.default_rng(seed), DRAWS, prompts):
        weight = counts[codes]
        a, b = (_weighted_ranks(place, weight) for place in places)
        spread = (weight @ a**2) * (weight @ b**2)
        drawn.append((weight * a) @ b / np.sqrt(spread) if spread > 0 else np.nan)
    low, high = ends(np.array(drawn)[:, None], np.array([prompts - 1.0]), CONFIDENCE)
    return plain(Interval(rho, low[0], high[0], prompts))


def _weighted_ranks(place: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Centred mean rank of each row when it is repeated `weight` times; `place` is its place in the order, from 0."""
    counts = np.bincount(place, weight)
    ranks = (np.cumsum(counts) - counts / 2)[place]
    return ranks - weight @ ranks / weight.sum()


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    varies = len(np.unique(a)) > 1 and len(np.unique(b)) > 1
    return float(_ranks(a) @ _ranks(b)) if varies else None


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, centred and of unit length, so that a dot product is Spearman's rho; zeros if all values are equal."""
    ranks = rankdata(values)
    ranks = ranks - ranks.mean()
    return ranks / (np.linalg.norm(ranks) or 1.0)


def _parts(values: np.ndarray, number: int) -> list[np.ndarray]:
    """Rows in up to `number` groups of similar size by value, lowest first; equal values stay together."""
    if not len(values):
        return []
    edges = np.quantile(values, np.arange(1, number) / number)
    place = np.searchsorted(np.unique(edges), values, side="right")
    return [np.flatnonzero(place == group) for group in np.unique(place)]


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _called(row: int, texts: list[str]) -> str:
    return f"response {row} ({' '.join(texts[row].split())[:40]!r})"
