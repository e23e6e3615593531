"""Does a reward know a broken story? The same stories, cut, under another prompt and with shuffled sentences, scored.

A reward that gives a broken story more than the whole one cannot judge which arm writes better.
"""

import re

import numpy as np
import pandas as pd

from ddpo_lib.base.stats import mean_interval, plain
from ddpo_lib.measures.quality import Reward

SENTENCE_END = re.compile(r"(?<=[.!?…])[”’\"')]*\s+")
EACH = 2  # stories per prompt that are broken, the first of its samples
BROKEN = {"cut": "cut after half of its words", "swapped": "under another prompt", "shuffled": "its sentences shuffled"}


def probe(reward: Reward, samples: pd.DataFrame, *, confidence: float, seed: int) -> dict[str, dict]:
    """What breaking its stories does to their score, by the way of breaking (`BROKEN`).

    Args:
        reward: to try.
        samples: rows of one arm, `prompt_id prompt text`; blank texts, and cut ones by `finished`, are passed over.
        confidence: of the intervals, over prompts.
        seed: of the shuffling.

    Returns:
        By name, the fields of `stats.Interval` for the mean over prompts of the score of the broken story minus that of
        the whole one. A way in which no two prompts have a story to break is left out.
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
    """The ways of breaking a story that raise its score beyond the interval."""
    return [way for way, change in probes.items() if change["low"] is not None and change["low"] > 0]


def cut(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Prompts, and the first half of the words of each text."""
    return rows["prompt"], rows["text"].map(lambda text: " ".join(text.split()[: max(1, len(text.split()) // 2)]))


def swap_prompts(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The text of each prompt under the next one, the last prompt's under the first."""
    distinct = list(dict.fromkeys(rows["prompt"]))
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return rows["prompt"].map(following), rows["text"]


def shuffle(rows: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.Series, pd.Series]:
    """Prompts, and the sentences of each text in random order; a text of fewer than three stays as it is."""

    def shuffled(text: str) -> str:
        sentences = SENTENCE_END.split(text)
        return text if len(sentences) < 3 else " ".join(sentences[i] for i in rng.permutation(len(sentences)))

    return rows["prompt"], rows["text"].map(shuffled)
