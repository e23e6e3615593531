"""A language model as a second reader: both questions of the study for each item, in both orders.

Any engine of `engines` and `server` can be used. The wording is this project's. An answer that is not in the requested
form is counted and never guessed. A judge is one annotator, and `votes.analyse` accepts its answers. The intervals are
then over items; they say nothing about other judges or about people. `compare_with_people` gives the agreement with
people.

`judge_study` writes two files to a study's folder:

    FOLDER/judge-NAME.parquet   the table of answers, with the counts and the engine
    FOLDER/judge-NAME.jsonl     the raw answers; the journal from which an interrupted judge resumes

The model must keep to the form. The embedded one, SmolLM2-135M-Instruct, answered none of 12 requests in it.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ddpo_lib.base.errors import DAMAGED_TABLE, InputError, first_line
from ddpo_lib.base.store import content_key
from ddpo_lib.base.unfinished import write_whole
from ddpo_lib.people.answers import COLUMNS, read_items
from ddpo_lib.people.human_eval import SIDES
from ddpo_lib.people.votes import QUESTIONS
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.generate import generate

SAMPLING = Sampling(temperature=0.1, top_k=0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=64)
HARD = "hard to decide"
ASK = """Two sets of stories were written for one prompt. Read all of them, then answer two questions.

The prompt:
{prompt}

{stories}

1. Which one of the {number} stories is the most interesting, of the highest quality?
2. Which set of stories is more diverse: set A or set B?

Answer in two lines and nothing else, in this form. Where you cannot decide, write "hard to decide" after the colon.
Best story: <the number of the story>
More diverse set: <A or B>"""
LINE = r"^[ \t*]*{label}[ \t*]*:[ \t*]*(.*?)[\s*.]*$"


class Judged(NamedTuple):
    """The answers of a judge.

    `table`: the columns of `votes`; one row per item and order for which both questions are answered. `counts`: the
    number of requests, `asked` (two per item); of `answers` in the table; of answers `cut` by the token limit, of which
    some have `only_thoughts`; of `refused` requests; of answers with `thoughts`, which are not read; and of answers
    without a valid `quality` and `diversity`, cut and refused ones included. `left_out`: the settings that the server
    refused, with the number of answers that were drawn without each.
    """

    table: pd.DataFrame
    counts: dict


def judge(
    engine, items: pd.DataFrame, *, name: str, seed: int, sampling: Sampling = SAMPLING, journal: Path | None = None
) -> Judged:
    """Ask an engine both questions for each item, once with the first arm's stories as set A and once as set B.

    Args:
        engine: one of `engines`.
        items: one row per item: `item prompt_id prompt first second`; the last two are lists of stories.
        name: of the judge; it is the `annotator` in the table.
        seed: of the draws.
        sampling: how answers are drawn; its number of samples is ignored, and one answer is drawn per request. A model
            that thinks before it answers needs more tokens.
        journal: as in `generate.generate`; answers in it are not requested again.

    Raises:
        InputError: a column of the items is missing, a set is empty (names item and column), or the engine fails.
    """
    _check(items)
    asked = items.merge(pd.DataFrame({"first_side": SIDES}), how="cross")
    sets = [_in_order(row) for row in asked.itertuples()]
    texts = [write_question(prompt, *stories) for prompt, stories in zip(asked["prompt"], sets, strict=True)]
    prompts = pd.DataFrame({"prompt_id": [f"{n:08d}" for n in range(len(asked))], "prompt": texts})
    said = generate(engine, prompts, sampling.model_copy(update={"samples": 1}), seed, journal=journal)
    about = {name: said.attrs["answers"][name] for name in ("refused", "only_thoughts", "thoughts", "left_out")}
    cut = int((~said["finished"] & ~said["refused"]).sum())
    counts = {"asked": len(asked), "cut": cut, **about, **dict.fromkeys(QUESTIONS, 0)}
    rows = []
    answers = said[["text", "finished"]].to_numpy()
    for row, (left, right), (text, finished) in zip(asked.itertuples(), sets, answers, strict=True):
        story, more = parse(text, len(left) + len(right)) if finished else (None, None)
        counts["quality"] += story is None
        counts["diversity"] += more is None
        if story is None or more is None:
            continue
        best = "tie" if story == 0 else SIDES[story > len(left)]
        rows.append(
            {
                "item": row.item,
                "prompt_id": row.prompt_id,
                "annotator": name,
                "first_side": row.first_side,
                "quality": _arm(best, row.first_side),
                "quality_side": best,
                "story": story or pd.NA,
                "diversity": _arm(more, row.first_side),
                "diversity_side": more,
                "seconds": float("nan"),
                "attention": False,
                "passed": pd.NA,
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return Judged(table, counts | {"answers": len(table)})


def judge_study(folder: str | Path, engine, *, name: str, seed: int, sampling: Sampling = SAMPLING) -> Judged:
    """`judge` for the items of a study, as its annotators see them. The answers are stored in the study's folder.

    A second call returns the stored answers. After an interruption, the same call resumes.

    Args:
        folder: of `human_eval.prepare`.
        engine, name, seed, sampling: as in `judge`.

    Raises:
        InputError: there is no study, the engine fails, or another judge has this name.
    """
    folder = Path(folder)
    items = read_items(folder)
    safe = re.sub(r"[^\w.-]+", "-", name)
    path = folder / f"judge-{safe}.parquet"
    asked = {"name": name, "seed": seed, "sampling": sampling.model_dump(), **engine.facts()}
    asked["items"] = content_key(items.to_json(force_ascii=False))
    if path.exists():
        if other := [key for key, value in asked.items() if _facts(path).get(key) != value]:
            raise InputError(
                f"{path}: contains the answers of another judge ({', '.join(other)}); give this one another --name"
            )
        return read_judged(path)
    judged = judge(engine, items, name=name, seed=seed, sampling=sampling, journal=folder / f"judge-{safe}.jsonl")
    table = judged.table.copy()
    table.attrs = {"counts": judged.counts, "judge": asked}
    write_whole(path, table.to_parquet)
    return judged


def read_judged(path: Path) -> Judged:
    """The answers that `judge_study` stored.

    Raises:
        InputError: the file cannot be read, or `judge_study` did not write it.
    """
    table = _read(path)
    facts, counts = table.attrs.get("judge"), table.attrs.get("counts")
    if (
        not isinstance(facts, dict)
        or "name" not in facts
        or list(table) != list(COLUMNS)
        or not isinstance(counts, dict)
    ):
        raise InputError(f"{path}: not a file that `ddpo annotate judge` writes")
    return Judged(table, counts)


def _facts(path: Path) -> dict:
    """The judge that wrote a file: its name, seed, sampling and engine."""
    return _read(path, ["item"]).attrs.get("judge", {})


def _read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except DAMAGED_TABLE as error:
        raise InputError(f"{path}: not answers; the file cannot be read ({first_line(error)})") from None


def write_question(prompt: str, left: list[str], right: list[str]) -> str:
    """The request to the judge: the stories of both sets, numbered consecutively, and the two questions."""
    parts, number = [], 0
    for letter, stories in (("A", left), ("B", right)):
        parts.append(f"Set {letter}")
        for story in stories:
            number += 1
            parts.append(f"Story {number}:\n{story.strip()}")
    filled = {"prompt": prompt, "stories": "\n\n".join(parts), "number": str(number)}
    return re.sub(r"\{(prompt|stories|number)\}", lambda field: filled[field[1]], ASK)


def parse(said: str, stories: int) -> tuple[int | None, str | None]:
    """Read the two answers of a judge: the number of the story, 0 for a tie, and "left", "right" or "tie".

    An answer is None if it is not in the requested form: its line is missing, occurs more than once, or has something
    else after the colon.
    """
    best, more = (_after_colon(said, label) for label in ("Best story", "More diverse set"))
    if best == HARD:
        story = 0
    else:
        story = int(best) if best and re.fullmatch("[1-9][0-9]*", best) and int(best) <= stories else None
    return story, {"a": "left", "b": "right", HARD: "tie"}.get(more)


def _check(items: pd.DataFrame) -> None:
    for column in ("item", "prompt_id", "prompt", "first", "second"):
        if column not in items:
            raise InputError(f"items: no column `{column}`; expected item, prompt_id, prompt, first and second")
    for side in ("first", "second"):
        for name, stories in zip(items["item"], items[side], strict=True):
            if isinstance(stories, str) or not len(stories):
                raise InputError(f"items: item {name}, `{side}`: expected a list of one story or more")


def _in_order(row) -> tuple[list[str], list[str]]:
    """The stories of set A, the left one, and of set B."""
    return (row.first, row.second) if row.first_side == "left" else (row.second, row.first)


def _after_colon(said: str, label: str) -> str | None:
    lines = re.findall(LINE.format(label=label), said, re.I | re.M)
    return lines[0].lower() if len(lines) == 1 else None


def _arm(side: str, first_side: str) -> str:
    return "tie" if side == "tie" else "first" if side == first_side else "second"
