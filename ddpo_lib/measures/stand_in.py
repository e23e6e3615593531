"""A light stand-in for the paper's reward model: a ridge regression that fits in seconds on two cores.

Its features are the response's vectors in the two embedding spaces and a few surface counts. It does not read the
prompt. Features of prompt and response together (the entry-wise product of their vectors, and its sum) did not help in
8-fold cross-validation over the training prompts of the package's corpus. They ordered responses no better (rho within
a prompt 0.697 compared with 0.694), and with them a response scored higher under another prompt (+0.023 [+0.015,
+0.032]). It is a weak reward, and it is called a stand-in wherever it appears.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV

from ddpo_lib.base.files import write_json
from ddpo_lib.measures.quality import HIGHEST, LOWEST, Reward
from ddpo_lib.models.versions import check_version
from ddpo_lib.spaces.embed import COUNTED, Space, embed, version_of

PENALTIES = np.logspace(1, 6, 21)  # of the ridge, on standardised features; one is chosen by leave-one-out error
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass
class StandIn(Reward):
    """A fitted ridge regression: score = intercept + sum over features of slope * (feature - centre).

    Attributes:
        semantic, style: the spaces whose vectors are features.
        centre, slopes: (features,) float64.
        intercept: the mean score of the training responses.
        facts: `responses`, `prompts`, `features` and `penalty` of the fit.
    """

    semantic: Space
    style: Space
    centre: np.ndarray
    slopes: np.ndarray
    intercept: float
    facts: dict
    name = "stand-in reward"

    def predict(self, prompts: list[str], texts: list[str]) -> np.ndarray:
        features = _features(texts, self.semantic, self.style)
        # scores are bounded, but a linear function is not: far from the training data, as for a text of two words, a
        # single sample would otherwise dominate an arm's mean
        return np.clip(self.intercept + (features - self.centre) @ self.slopes, LOWEST, HIGHEST)

    def save(self, folder: Path) -> None:
        np.savez(folder / "ridge.npz", centre=self.centre, slopes=self.slopes, intercept=self.intercept)
        spaces = {"semantic": asdict(self.semantic), "style": asdict(self.style)}
        versions = {name: version_of(Space(**space)) for name, space in spaces.items()}
        write_json(folder / "reward.json", {"spaces": spaces, "versions": versions, "facts": self.facts})

    @classmethod
    def load(cls, folder: Path) -> "StandIn":
        kept = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        semantic, style = (Space(**kept["spaces"][name]) for name in ("semantic", "style"))
        for name, space in (("semantic", semantic), ("style", style)):
            if space.model not in COUNTED:
                check_version(kept["versions"][name], space.model, space.revision, f"stand-in reward {folder}")
        with np.load(folder / "ridge.npz") as ridge:
            return cls(semantic, style, ridge["centre"], ridge["slopes"], float(ridge["intercept"]), kept["facts"])


def fit(train: pd.DataFrame, semantic: Space, style: Space) -> StandIn:
    """Fit to responses with their scores.

    Args:
        train: one row per response, with `prompt_id`, `text` and a transformed `score`.
        semantic, style: the spaces whose vectors are features.
    """
    features = _features(train["text"].tolist(), semantic, style)
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    ridge = RidgeCV(PENALTIES).fit((features - centre) / spread, train["score"].to_numpy())
    facts = {
        "responses": len(train),
        "prompts": int(train["prompt_id"].nunique()),
        "features": features.shape[1],
        "penalty": float(ridge.alpha_),
    }
    return StandIn(semantic, style, centre, ridge.coef_ / spread, float(ridge.intercept_), facts)


def _features(texts: list[str], semantic: Space, style: Space) -> np.ndarray:
    """(n, features)."""
    surface = np.array([_surface(text) for text in texts])
    return np.hstack([embed(texts, semantic).astype(np.float64), embed(texts, style), surface])


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
