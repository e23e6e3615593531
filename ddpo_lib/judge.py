"""A language model as a second reader: both questions of the study for each item, in both orders.

Any engine of `engines` and `server` will do. The wording is ours. What is not answered in the form that was asked for
is counted, and never guessed. A judge is one annotator, whose answers `votes.analyse` takes: its intervals are then
over items, and say nothing of other judges or of people; `compare_with_people` says how far it agrees with them.

Of a study's folder, `judge_study` keeps:

    FOLDER/judge-NAME.parquet   the table of answers, with the counts and the engine
    FOLDER/judge-NAME.jsonl     what came back, as it came; the journal by which a judge goes on where it was stopped

It takes a model that keeps to a form: SmolLM2-135M-Instruct, the embedded one, answered none of 12 requests in it.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ddpo_lib.agreement import CODES, alpha, alpha_interval, count_labels, majority
from ddpo_lib.crossed import crossed_ratio
from ddpo_lib.errors import InputError
from ddpo_lib.generate import generate
from ddpo_lib.human_eval import COLUMNS, SIDES, read_items
from ddpo_lib.profiles import Sampling
from ddpo_lib.stats import plain
from ddpo_lib.votes import QUESTIONS, analyse, exact

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
    """What a judge said.

    `table`: the columns of `votes`, a row an item and order, where both questions were answered. `counts`: how often it
    was `asked` (twice an item), the `answers` in the table, how many were `cut` by the token limit, and how many left
    `quality` and `diversity` without an answer in the form, cut ones included.
    """

    table: pd.DataFrame
    counts: dict


def judge(
    engine, items: pd.DataFrame, *, name: str, seed: int, sampling: Sampling = SAMPLING, journal: Path | None = None
) -> Judged:
    """Ask an engine both questions for each item, once with the first arm's stories as set A and once as set B.

    Args:
        engine: one of `engines`.
        items: a row an item: `item prompt_id prompt first second`, the last two lists of stories.
        name: of the judge, its `annotator` in the table.
        seed: of the draws.
        sampling: how answers are drawn; one a request, whatever it says. A model that thinks aloud needs more tokens.
        journal: as in `generate.generate`: what it holds is not asked again.

    Raises:
        InputError: items without a column, or with a set that is empty (names item and column); the engine fails.
    """
    _check(items)
    asked = items.merge(pd.DataFrame({"first_side": SIDES}), how="cross")
    sets = [_in_order(row) for row in asked.itertuples()]
    texts = [write_question(prompt, *stories) for prompt, stories in zip(asked["prompt"], sets, strict=True)]
    prompts = pd.DataFrame({"prompt_id": [f"{n:08d}" for n in range(len(asked))], "prompt": texts})
    said = generate(engine, prompts, sampling.model_copy(update={"samples": 1}), seed, journal=journal)
    counts = {"asked": len(asked), "cut": int((~said["finished"]).sum()), **dict.fromkeys(QUESTIONS, 0)}
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
    """`judge` for the items of a study, as its annotators see them; kept in the study's folder.

    Asked a second time, it says what it said. One that was stopped goes on.

    Args:
        folder: of `human_eval.prepare`.
        engine, name, seed, sampling: as in `judge`.

    Raises:
        InputError: no study, the engine fails, or another judge has that name.
    """
    folder = Path(folder)
    items = read_items(folder)
    safe = re.sub(r"[^\w.-]+", "-", name)
    path = folder / f"judge-{safe}.parquet"
    asked = {"name": name, "seed": seed, "sampling": sampling.model_dump(), **engine.facts()}
    if path.exists() and (other := [key for key, value in asked.items() if _facts(path).get(key) != value]):
        raise InputError(
            f"{path}: holds the answers of another judge ({', '.join(other)}); give this one another --name"
        )
    judged = judge(engine, items, name=name, seed=seed, sampling=sampling, journal=folder / f"judge-{safe}.jsonl")
    aside = path.with_name(f".{path.name}.partial")
    table = judged.table.copy()
    table.attrs = {"counts": judged.counts, "judge": asked}
    table.to_parquet(aside)
    aside.replace(path)
    return judged


def read_judged(path: Path) -> Judged:
    """What `judge_study` kept.

    Raises:
        InputError: not such a file.
    """
    facts = _facts(path)
    table = pd.read_parquet(path)
    if "name" not in facts or list(table) != list(COLUMNS):
        raise InputError(f"{path}: not what `ddpo annotate judge` writes")
    return Judged(table, table.attrs["counts"])


def _facts(path: Path) -> dict:
    """Which judge a file is of."""
    try:
        return pd.read_parquet(path, columns=["item"]).attrs.get("judge", {})
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not answers that can be read ({str(error).splitlines()[0]})") from None


def write_question(prompt: str, left: list[str], right: list[str]) -> str:
    """What the judge is told: the stories of both sets, numbered through, and the two questions."""
    parts, number = [], 0
    for letter, stories in (("A", left), ("B", right)):
        parts.append(f"Set {letter}")
        for story in stories:
            number += 1
            parts.append(f"Story {number}:\n{story.strip()}")
    filled = {"prompt": prompt, "stories": "\n\n".join(parts), "number": str(number)}
    return re.sub(r"\{(prompt|stories|number)\}", lambda field: filled[field[1]], ASK)


def parse(said: str, stories: int) -> tuple[int | None, str | None]:
    """The two answers in what a judge said: the story, 0 for a tie, and "left", "right" or "tie"; None where it is not
    in the form that was asked for: no such line, more than one, or something else after the colon."""
    best, more = (_after_colon(said, label) for label in ("Best story", "More diverse set"))
    if best == HARD:
        story = 0
    else:
        story = int(best) if best and re.fullmatch("[1-9][0-9]*", best) and int(best) <= stories else None
    return story, {"a": "left", "b": "right", HARD: "tie"}.get(more)


def describe_positions(table: pd.DataFrame, *, confidence: float) -> dict[str, dict]:
    """How far a judge's answers hang on the order, by question, over the items that it answered in both.

    Returns:
        By question: `items`; how many of them have the `same` arm twice, `always_left`, `always_right`, or a tie in
        either (`with_tie`); `consistent`, the share of the first with its exact interval; `left`, the choices for the
        left with a tie as half and the interval over items: arms change sides within an item, and cannot shift it.
    """
    both = asked_twice(table)
    found = {}
    for question in QUESTIONS:
        sides = both.pivot(index="item", columns="first_side", values=f"{question}_side").reindex(columns=SIDES)
        one, other = (sides[side].to_numpy(dtype=str) for side in SIDES)
        tie = (one == "tie") | (other == "tie")
        same = int((~tie & (one != other)).sum())
        code = both[f"{question}_side"].map({"left": 1.0, "tie": 0.5, "right": 0.0}).to_numpy()
        judges = both["annotator"].to_numpy()
        left = crossed_ratio(code, 1.0, both["item"].to_numpy(), judges, confidence=confidence) if len(both) else None
        found[question] = {
            "items": len(sides),
            "same": same,
            "always_left": int(((one == "left") & (other == "left")).sum()),
            "always_right": int(((one == "right") & (other == "right")).sum()),
            "with_tie": int(tie.sum()),
            "consistent": _share(same, len(sides), confidence),
            "left": {end: float(getattr(left, end)) if left else None for end in ("mean", "low", "high")},
        }
    return plain(found)


def compare_with_people(
    judged: pd.DataFrame, people: pd.DataFrame, *, draws: int, confidence: float, seed: int
) -> dict[str, dict]:
    """How far a judge agrees with people, by question, over the items that both have.

    The judge's verdict is the arm that it names in both orders, else a tie; people's is what more than half of them
    say, else a tie.

    Returns:
        By question: `items`; `same`, the share with one verdict, and `same_decided`, that of the items that both
        decided, `decided` in number, with exact intervals; `alpha`, Krippendorff's, of the two verdicts, with its
        interval over items; `people_alpha`, that of people among themselves on these items.
    """
    both = asked_twice(judged)
    real = people[~people["attention"].astype(bool)]
    shared = sorted(set(both["item"]) & set(real["item"]))
    both, real = (table[table["item"].isin(shared)] for table in (both, real))
    found = {}
    for question in QUESTIONS:
        verdicts = both[question].map(CODES).groupby(both["item"]).agg(lambda codes: int(codes.sum() / 2))
        ours, theirs = verdicts.to_numpy(), majority(real, question).to_numpy()
        decided = (ours != 0) & (theirs != 0)
        counts = np.stack([(ours == code).astype(int) + (theirs == code) for code in CODES.values()], axis=1)
        found[question] = {
            "items": len(shared),
            "same": _share(int((ours == theirs).sum()), len(shared), confidence),
            "decided": int(decided.sum()),
            "same_decided": _share(int((decided & (ours == theirs)).sum()), int(decided.sum()), confidence),
            "alpha": alpha_interval(counts, draws=draws, confidence=confidence, seed=seed),
            "people_alpha": alpha(count_labels(real, question).to_numpy()),
        }
    return plain(found)


def describe(judged: Judged, people: pd.DataFrame, *, draws: int, confidence: float, seed: int) -> str:
    """A judge's answers as text for a terminal; `people` is a table of answers, empty where there are none."""
    from ddpo_lib.wording import interval, p_value

    counts, both = judged.counts, asked_twice(judged.table)
    lines = [
        f"a model's answers, not people's: {counts['answers']} of {counts['asked']} requests answered in the form; "
        f"cut at the token limit {counts['cut']}; without an answer on quality {counts['quality']}, on diversity "
        f"{counts['diversity']}"
    ]
    if both.empty:
        return "\n".join([*lines, "no item was answered in both orders"])
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    found, places = analyse(both, **settings), describe_positions(both, confidence=confidence)
    agreed = compare_with_people(both, people, **settings)
    items = len(found["items"])
    lines.append(
        f"{items} items answered in both orders; [{confidence:.0%} intervals] over items; p two-sided, then after Holm"
    )
    for question in QUESTIONS:
        score, place, said = found[question]["score"], places[question], agreed[question]
        lines.append(f"\n{question}")
        lines += [f"  {kind:<32}{interval(found[question][kind])}" for kind in ("first", "second", "tie")]
        p = ", ".join(p_value(score[kind]) or "—" for kind in ("p", "p_corrected"))
        lines.append(f"  {'first, a tie as half':<32}{interval(score)}   p {p}")
        lines.append(
            f"  {'the same arm in both orders':<32}{interval(place['consistent'])} exact; of {items}: always left "
            f"{place['always_left']}, always right {place['always_right']}, a tie in either {place['with_tie']}"
        )
        lines.append(f"  {'left side, a tie as half':<32}{interval(place['left'])}")
        if said["items"]:
            lines.append(
                f"  {'the verdict of people':<32}{interval(said['same'])} of {said['items']} items, "
                f"{interval(said['same_decided'])} of the {said['decided']} that both decided; alpha "
                f"{interval(said['alpha'], 2)}, people's among themselves {_number(said['people_alpha'])}"
            )
    return "\n".join(lines if agreed["quality"]["items"] else [*lines, "", "no person has answered these items yet"])


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}".replace("-", "−")


def _check(items: pd.DataFrame) -> None:
    for column in ("item", "prompt_id", "prompt", "first", "second"):
        if column not in items:
            raise InputError(f"items: no column `{column}`; a row needs item, prompt_id, prompt, first and second")
    for side in ("first", "second"):
        for name, stories in zip(items["item"], items[side], strict=True):
            if isinstance(stories, str) or not len(stories):
                raise InputError(f"items: item {name}, `{side}`: expected a list of one story or more")


def _in_order(row) -> tuple[list[str], list[str]]:
    """The stories of set A, which stands left, and of set B."""
    return (row.first, row.second) if row.first_side == "left" else (row.second, row.first)


def _after_colon(said: str, label: str) -> str | None:
    lines = re.findall(LINE.format(label=label), said, re.I | re.M)
    return lines[0].lower() if len(lines) == 1 else None


def _arm(side: str, first_side: str) -> str:
    return "tie" if side == "tie" else "first" if side == first_side else "second"


def asked_twice(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of items that were answered in both orders, where a bias for a side cannot pass for one for an arm."""
    return table[table.groupby("item")["first_side"].transform("nunique") == len(SIDES)]


def _share(part: int, whole: int, confidence: float) -> dict:
    found = exact(part, whole - part, 0, confidence=confidence)
    return {end: found[end] for end in ("mean", "low", "high")}
