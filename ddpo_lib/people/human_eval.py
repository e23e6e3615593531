"""A study with people (paper, human evaluation): samples of two arms -> items and their key.

An item shows a prompt and two sets of four stories side by side, one set per arm. Annotators choose the best story and
the more diverse set. Only the key says which arm is on which side; `potato.py` makes the pages.

    FOLDER/key.json          the arm and sample of every story; never served
    FOLDER/stories.jsonl     every story and the text shown of it, and the request for a summary; never served
    FOLDER/study/            the project that Potato serves; it writes answers to study/annotation_output/
"""

import hashlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import DAMAGED_TABLE, InputError, first_line
from ddpo_lib.data.corpus import EMPTY
from ddpo_lib.people import potato
from ddpo_lib.sampling.completions import answered, count_unanswered
from ddpo_lib.sampling.journal import remove_journal

log = logging.getLogger(__name__)


STORIES = 4  # per set (paper)
SHOWN = "stories.jsonl"
SIDES = ("left", "right")
SUMMARISE = (  # this project's wording; the released code builds a request of its own, but sends the story without it
    "Summarise the plot of the story below in about {words} words. Tell what happens and to whom, and nothing else: no "
    "title, no opinion, no word about the task. Write nothing but the summary.\n\n{prompt}"
)


# Generations -> a study


def prepare(
    run: Path,
    arms: tuple[str, str],
    out: Path,
    *,
    prompts: int,
    items: int,
    labels: int,
    checks: int,
    show: Literal["whole", "opening", "summary"],
    words: int,
    seed: int,
    engine=None,
    tokens: int | None = None,
) -> dict:
    """Write a study of two arms to a folder. If this fails, the folder is not created.

    Args:
        run: a run folder that contains `samples-ARM/samples.parquet` for both arms.
        arms: the two arms to compare; the wins of the first are counted.
        out: the folder to write; it must not exist.
        prompts: how many are drawn from the prompts of both arms; all of them if there are fewer.
        items: items per annotator, without checks.
        labels: labels per item, each by another annotator.
        checks: attention checks per annotator.
        show: the whole story, its first words, or a summary of its plot.
        words: length of an opening or a summary.
        seed: of prompts, order, sides and places. The same seed and samples give the same key and tasks.
        engine: of `engines`, for "summary".
        tokens: the most that a summary may have, thoughts included; None: four per word.

    Returns:
        The key: `arms`, `seed`, `show`, `words`, `prompts` (number), `labels`, `per_annotator`, `checks`, `generations`
        (file and SHA-256 by arm), and under `items`, by id, the prompt, the sides and every story's arm and sample.

    Raises:
        InputError: the folder exists, an arm has no samples, there are too few stories, or a summary fails.
    """
    if out.exists():
        raise InputError(f"{out}: exists already, and may hold answers; name a new folder")
    stories = read_stories(run, arms)
    journal = out.with_name(f".{out.name}.journal")
    drawn = np.random.default_rng([seed, 0]).permutation(stories["prompt_id"].unique())[: prompts + checks].tolist()
    stories = stories[stories["prompt_id"].isin(drawn)].reset_index(drop=True)
    if show == "summary":
        stories = summarise_stories(stories, engine, words, seed, journal, tokens)
    else:
        stories["shown"] = [opening(text, words) if show == "opening" else text for text in stories["text"]]
    study = draw_items(stories, arms, drawn[:prompts], items=items, checks=checks, seed=seed)
    key = {
        "arms": list(arms),
        "seed": seed,
        "show": show,
        "words": None if show == "whole" else words,
        "prompts": len(drawn[:prompts]),
        "labels": labels,
        "per_annotator": items,
        "checks": checks,
        "generations": {arm: _provenance(run, arm) for arm in arms},
        "items": {name: item.key() for name, item in study.items()},
    }
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / "key.json").write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stories.to_json(aside / SHOWN, orient="records", lines=True, force_ascii=False)
    pages = {
        name: (item.prompt, [s.shown for s in item.left], [s.shown for s in item.right]) for name, item in study.items()
    }
    potato.write_project(aside / "study", pages, labels=labels, per_annotator=items + checks)
    aside.replace(out)
    remove_journal(journal)
    return key


def read_stories(run: Path, arms: tuple[str, str]) -> pd.DataFrame:
    """The first four samples of both arms, for the prompts with four samples of each arm. Samples that are refused or
    only thoughts do not count.

    Returns:
        One row per story: `prompt_id prompt arm sample text`, sorted by prompt, arm and sample.

    Raises:
        InputError: the arms are the same, an arm has no samples, or no prompt has four stories of each arm.
    """
    if arms[0] == arms[1]:
        raise InputError(f"--arms {arms[0]} {arms[1]}: a study compares two different arms")
    tables = []
    for arm in arms:
        path = _samples_of(run, arm)
        if not path.is_file():
            there = sorted(folder.name.removeprefix("samples-") for folder in run.glob("samples-*"))
            has = f"it has samples of {', '.join(there)}" if there else "it holds no samples; `ddpo run` makes them"
            raise InputError(f"{run}: no samples of `{arm}` ({path.name}); {has}")
        try:
            table = answered(pd.read_parquet(path))[["prompt_id", "prompt", "sample", "text"]]
        except DAMAGED_TABLE as error:
            raise InputError(f"{path}: the samples cannot be read ({first_line(error)})") from None
        tables.append(table.sort_values(["prompt_id", "sample"]).groupby("prompt_id").head(STORIES).assign(arm=arm))
    both = pd.concat(tables, ignore_index=True)
    size = both.groupby("prompt_id")["text"].transform("size")
    both = both[size == 2 * STORIES].sort_values(["prompt_id", "arm", "sample"], ignore_index=True)
    if both.empty:
        raise InputError(f"{run}: no prompt has {STORIES} stories of {arms[0]} and {STORIES} of {arms[1]}")
    both["text"] = both["text"].where(both["text"].str.strip() != "", EMPTY)
    return both[["prompt_id", "prompt", "arm", "sample", "text"]]


def opening(text: str, words: int) -> str:
    """The first `words` words of a text, with its line breaks, and an ellipsis if more follows."""
    found = list(re.finditer(r"\S+", text))
    return text if len(found) <= words else text[: found[words - 1].end()] + " …"


def summarise_stories(
    stories: pd.DataFrame, engine, words: int, seed: int, journal: Path, tokens: int | None = None
) -> pd.DataFrame:
    """Add a summary of each plot to the stories: `sent` is the whole request to the engine, `shown` its answer.

    Args:
        stories: one row per story, with `text`.
        engine: of `engines`.
        words: the requested length. A summary may be longer.
        tokens: where it is cut; None: at four per word, which are about three times the requested length.
        seed: of the draws, which are nearly greedy.
        journal: a file of the answers so far, from which an interrupted call resumes.

    Raises:
        InputError: the engine fails, or a summary is blank.
    """
    from ddpo_lib.profiles.settings import Sampling
    from ddpo_lib.sampling.generate import generate

    instruction = SUMMARISE.replace("{words}", str(words))
    limits = Sampling(temperature=0.2, repetition_penalty=1.0, max_new_tokens=tokens or 4 * words).model_copy(
        update={"samples": 1}  # a profile requires two samples per prompt; a summary is one
    )
    asked = pd.DataFrame({"prompt_id": [f"{i:06d}" for i in stories.index], "prompt": stories["text"]})
    made = generate(engine, asked, limits, seed, instruction=instruction, journal=journal)
    blank = [i for i, text in enumerate(made["text"]) if not text.strip()]
    if blank:
        where = stories.iloc[blank[0]]
        raise InputError(
            f"summaries: {len(blank)} of {len(made)} are blank{_why_blank(made)}; the first is of arm {where['arm']}, "
            f"prompt {where['prompt_id']}, sample {where['sample']}; try another engine, or --show opening"
        )
    lengths = [len(text.split()) for text in made["text"]]
    cut = int((~made["finished"]).sum())
    log.info("summaries: median length %.0f words, %d cut at the token limit", np.median(lengths), cut)
    sent = [instruction.replace("{prompt}", text) for text in stories["text"]]
    return stories.assign(sent=sent, shown=made["text"].tolist())


def _why_blank(made: pd.DataFrame) -> str:
    counts = count_unanswered(made)
    reasons = [f"{counts['refused']} refused"] if counts["refused"] else []
    reasons += [f"{counts['only_thoughts']} only thoughts, for which --tokens gives room"] * bool(
        counts["only_thoughts"]
    )
    return f" ({' and '.join(reasons)})" if reasons else ""


@dataclass(frozen=True)
class Story:
    arm: str
    sample: int
    shown: str


@dataclass(frozen=True)
class Item:
    """Two sets of stories for a prompt. In an attention check, `first_side` is the side with four different stories."""

    prompt_id: str
    prompt: str
    first_side: str
    left: list[Story]
    right: list[Story]
    attention: bool

    def key(self) -> dict:
        """The entry of the key: sides, arms and samples; stories in reading order, as they are numbered on the page."""
        stories = [{"arm": s.arm, "sample": s.sample} for s in (*self.left, *self.right)]
        return {
            "prompt_id": self.prompt_id,
            "attention": self.attention,
            "first_side": self.first_side,
            "stories": stories,
        }


def draw_items(
    stories: pd.DataFrame, arms: tuple[str, str], prompt_ids: list[str], *, items: int, checks: int, seed: int
) -> dict[str, Item]:
    """Items by id, in the order in which they are given out. They form blocks, one per annotator.

    In a block, each arm is on the left as often as on the right, up to one item. The four stories of a set are in
    random order. The attention checks of a block are at random places after its first item. A check shows four
    different stories on one side, and a fifth story four times on the other. All are from one prompt and may be of
    both arms. If possible, that prompt is not in the study, or else not in the block.

    Args:
        stories: one row per story: `prompt_id prompt arm sample shown`, four of each arm and prompt.
        arms: `first_side` is the side of the first arm.
        prompt_ids: the prompts of the items, in order; other prompts in `stories` are for checks.
        items: items per block, without checks; the last block may have fewer.
        checks: checks per block.
        seed: of all random choices here.

    Raises:
        InputError: no prompt has five different stories for a check.
    """
    rng = np.random.default_rng([seed, 1])
    by_prompt = dict(iter(stories.groupby("prompt_id")))
    varied = [p for p, group in by_prompt.items() if group["shown"].str.strip().nunique() > STORIES]
    if checks and not varied:
        raise InputError(f"no prompt has {STORIES + 1} different stories, as an attention check needs; use --checks 0")
    drawn: list[Item] = []
    for start in range(0, len(prompt_ids), items):
        block = prompt_ids[start : start + items]
        sides = rng.permutation((np.arange(len(block)) + rng.integers(2)) % 2)
        made = [_draw_item(by_prompt[p], arms, SIDES[side], rng) for p, side in zip(block, sides, strict=True)]
        unused, elsewhere = ([p for p in varied if p not in others] for others in (prompt_ids, block))
        prompts = rng.permutation(unused or elsewhere or varied)
        for check, side in enumerate((np.arange(checks) + rng.integers(2)) % 2):
            item = _draw_check(by_prompt[prompts[check % len(prompts)]], SIDES[side], rng)
            made.insert(int(rng.integers(1, len(made) + 1)), item)
        drawn += made
    return {f"item-{number:04d}": item for number, item in enumerate(drawn, 1)}


def _draw_item(group: pd.DataFrame, arms: tuple[str, str], first_side: str, rng: np.random.Generator) -> Item:
    sets = [rng.permutation(_stories(group[group["arm"] == arm])).tolist() for arm in arms]
    left, right = sets if first_side == "left" else sets[::-1]
    return Item(group["prompt_id"].iloc[0], group["prompt"].iloc[0], first_side, left, right, attention=False)


def _draw_check(group: pd.DataFrame, varied_side: str, rng: np.random.Generator) -> Item:
    different = _stories(group.assign(same=group["shown"].str.strip()).drop_duplicates("same"))
    different = rng.permutation(different).tolist()
    sets = [different[:STORIES], [different[STORIES]] * STORIES]
    left, right = sets if varied_side == "left" else sets[::-1]
    return Item(group["prompt_id"].iloc[0], group["prompt"].iloc[0], varied_side, left, right, attention=True)


def _stories(group: pd.DataFrame) -> list[Story]:
    rows = zip(group["arm"], group["sample"], group["shown"], strict=True)
    return [Story(arm, int(sample), shown) for arm, sample, shown in rows]


def _samples_of(run: Path, arm: str) -> Path:
    return run / f"samples-{arm}" / "samples.parquet"


def _provenance(run: Path, arm: str) -> dict:
    path = _samples_of(run, arm)
    return {"file": f"{path.parent.name}/{path.name}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
