"""Does a reward score a broken story lower? Stories are scored whole, cut, under another prompt and shuffled.

A reward that scores a broken story higher than the whole one cannot tell which arm writes better.
"""

import re

import numpy as np
import pandas as pd

from ddpo_lib.base.files import plain
from ddpo_lib.measures.quality import Reward
from ddpo_lib.statistics.intervals import mean_interval

SENTENCE_END = re.compile(r"(?<=[.!?…])[”’\"')]*\s+")
EACH = 2  # stories per prompt that are broken: its first samples
BROKEN = {"cut": "cut after half of its words", "swapped": "under another prompt", "shuffled": "its sentences shuffled"}


def probe(reward: Reward, samples: pd.DataFrame, *, confidence: float, seed: int) -> dict[str, dict]:
    """How much the score of a story changes when it is broken, for each way of breaking (`BROKEN`).

    Args:
        reward: the reward to test.
        samples: rows of one arm, `prompt_id prompt text`; blank texts, and those not `finished`, are skipped.
        confidence: of the intervals, over prompts.
        seed: of the shuffling.

    Returns:
        By way, the fields of `intervals.Interval`: the mean over prompts of the score of the broken story minus that of
        the whole story. A way is left out if fewer than two prompts have a story that it can break.
    """
    rows = samples[samples["text"].str.strip() != ""]
    rows = rows[rows["finished"].astype(bool)] if "finished" in rows else rows
    rows = rows.groupby("prompt_id", sort=True).head(EACH).reset_index(drop=True)
    whole = reward.score(rows["prompt"].tolist(), rows["text"].tolist())
    rng, found = np.random.default_rng(seed), {}
    for way, change in (("cut", cut), ("swapped", swap_prompts), ("shuffled", lambda part: shuffle(part, rng))):
        prompts, texts = change(rows)
        broken = np.flatnonzero((prompts != rows["prompt"]) | (texts != rows["text"]))
        if not len(broken):
            continue
        scores = reward.score(prompts[broken].tolist(), texts[broken].tolist())
        changes = pd.Series(scores - whole[broken]).groupby(rows["prompt_id"].to_numpy()[broken]).mean()
        if len(changes) > 1:
            found[way] = plain(mean_interval(changes.to_numpy(), confidence=confidence))
    return found


def rises(probes: dict[str, dict]) -> list[str]:
    """The ways of breaking a story that raise its score: those whose interval lies above zero."""
    return [way for way, change in probes.items() if change["low"] is not None and change["low"] > 0]


def cut(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Prompts, and the first half of the words of each text."""
    return rows["prompt"], rows["text"].map(lambda text: " ".join(text.split()[: max(1, len(text.split()) // 2)]))


def swap_prompts(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The texts of each prompt under the next prompt, those of the last under the first."""
    distinct = list(dict.fromkeys(rows["prompt"]))
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return rows["prompt"].map(following), rows["text"]


def shuffle(rows: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.Series, pd.Series]:
    """Prompts, and each text with its sentences in random order; one of fewer than three sentences is unchanged."""

    def shuffled(text: str) -> str:
        sentences = SENTENCE_END.split(text)
        return text if len(sentences) < 3 else " ".join(sentences[i] for i in rng.permutation(len(sentences)))

    return rows["prompt"], rows["text"].map(shuffled)
