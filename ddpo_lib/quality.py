"""Prompt and response -> score: a light stand-in for the paper's reward model.

The paper trains gemma-2-2b to predict transformed upvotes ("reddit-reward"). This is a ridge regression on the two
embedding spaces and a few surface counts. It learns within minutes on two cores and knows little; its rank
correlation with held-out scores is part of its report and belongs beside every number that it gives.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ddpo_lib.corpus import transform_scores
from ddpo_lib.embed import Space, embed

NAME = "stand-in reward"
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass
class StandInReward:
    """A fitted stand-in. `report` holds its rank correlation with held-out scores, overall and within prompt."""

    semantic: Space
    style: Space
    regression: object
    report: dict

    def score(self, texts: list[str]) -> np.ndarray:
        """(n,) predicted transformed upvotes, about -1 to 1; higher is better. A blank text gets the lowest, -1."""
        scores = np.full(len(texts), -1.0)
        full = [i for i, text in enumerate(texts) if text.strip()]
        if full:
            scores[full] = self.regression.predict(_features([texts[i] for i in full], self.semantic, self.style))
        return scores


def fit_stand_in(corpus: pd.DataFrame, semantic: Space, style: Space, seed: int) -> StandInReward:
    """Fit on the scored responses of the training split and report on those of the test split.

    Args:
        corpus: the table of `corpus.read_corpus`, with scores.
        semantic, style: the spaces whose vectors are features.
        seed: of the permutation test in the report.

    Returns:
        The fitted stand-in with its report: `responses`, `spearman`, `within_prompt` (mean over prompts of Spearman's
        rho), `p_within_prompt` (permutation of scores within prompts) and `better_than_chance`.
    """
    scored = corpus[corpus["score"].notna()]
    train, test = (scored[scored["split"] == split] for split in ("train", "test"))
    low, high = train["score"].min(), train["score"].max()
    target = transform_scores(train["score"], low, high)
    regression = make_pipeline(StandardScaler(), RidgeCV(np.logspace(1, 6, 21)))
    regression.fit(_features(train["text"].tolist(), semantic, style), target)
    model = StandInReward(semantic, style, regression, {})
    model.report = _report(model.score(test["text"].tolist()), test, seed)
    return model


def _report(predicted: np.ndarray, test: pd.DataFrame, seed: int, draws: int = 2000) -> dict:
    score, prompt = test["score"].to_numpy(), test["prompt_id"].to_numpy()
    rows = [np.flatnonzero(prompt == p) for p in np.unique(prompt)]
    rows = [r for r in rows if len(set(score[r])) > 1 and len(set(predicted[r])) > 1]
    if not rows:
        return {"responses": len(test), "better_than_chance": False}

    def within(values: list[np.ndarray]) -> float:
        return float(np.mean([spearmanr(predicted[r], v).statistic for r, v in zip(rows, values, strict=True)]))

    rng = np.random.default_rng(seed)
    ranks = [(_ranks(predicted[r]), _ranks(score[r])) for r in rows]
    null = [np.mean([a @ rng.permutation(b) for a, b in ranks]) for _ in range(draws)]
    observed = within([score[r] for r in rows])
    p = (1 + sum(value >= observed for value in null)) / (draws + 1)
    return {
        "responses": len(test),
        "spearman": float(spearmanr(predicted, score).statistic),
        "within_prompt": observed,
        "p_within_prompt": float(p),
        "better_than_chance": bool(p < 0.05),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, centred and of unit length, so that a dot product is Spearman's rho."""
    ranks = pd.Series(values).rank().to_numpy()
    ranks = ranks - ranks.mean()
    return ranks / np.linalg.norm(ranks)


def _features(texts: list[str], semantic: Space, style: Space) -> np.ndarray:
    return np.hstack([embed(texts, semantic), embed(texts, style), np.array([_surface(text) for text in texts])])


def _surface(text: str) -> list[float]:
    words = WORD.findall(text) or ["-"]
    sentences = [s for s in re.split(r"[.!?]+\s", text) if s.strip()]
    lengths = [len(s.split()) for s in sentences] or [0]
    return [
        np.log1p(len(words)),
        len({w.lower() for w in words}) / len(words),
        float(np.mean([len(w) for w in words])),
        float(np.mean(lengths)),
        float(np.std(lengths)),
        text.count("!") / len(words),
        text.count(",") / len(words),
        text.count("\n") / len(words),
    ]
