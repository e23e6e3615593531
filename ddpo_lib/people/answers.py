"""The files that Potato writes for a study, and the study's key -> answers by arm, and items as annotators see them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.people import potato
from ddpo_lib.people.human_eval import SHOWN, SIDES, STORIES
from ddpo_lib.people.potato import BEST, DIVERSE, HARD, LEFT, RIGHT

COLUMNS = {
    "item": "str",
    "prompt_id": "str",
    "annotator": "str",
    "first_side": "str",
    "quality": "str",
    "quality_side": "str",
    "story": "Int64",
    "diversity": "str",
    "diversity_side": "str",
    "seconds": "float64",
    "attention": "bool",
    "passed": "boolean",
}


@dataclass(frozen=True)
class Answers:
    """The answers of annotators.

    Attributes:
        table: one row per annotator and item with both questions answered, sorted by annotator and item, with the
            columns of `COLUMNS`. `first_side` is the side of the first arm. `quality` and `diversity` are "first",
            "second" or "tie" (hard to decide); the `_side` of each is the choice on the page. `story` is the number of
            the best story, 1 to 8. For an attention check, both are "tie", and `passed` says whether the set with four
            different stories was chosen as the more diverse one.
        counts: `annotators`, `items` and `answers` without attention checks; `unfinished` (only one question is
            answered; not in the table), `duplicates` (one annotator answered an item again; the last answer is kept),
            `attention_failed`.
        key: the key that `prepare` wrote.
    """

    table: pd.DataFrame
    counts: dict[str, int]
    key: dict


@dataclass
class _Tally:
    rows: list[dict] = field(default_factory=list)
    unfinished: int = 0
    repeated: int = 0


def read_answers(folder: str | Path) -> Answers:
    """Read the answers of a study so far, and match sides with arms by the key.

    Args:
        folder: of `prepare`; Potato may be running on it.

    Raises:
        InputError: the folder or key is missing, a file cannot be read, or an item or answer is unknown; names the
            file, the item and the field.
    """
    folder = Path(folder)
    key = _read_key(folder)
    tally = _Tally()
    for path in sorted(potato.answer_files(folder / potato.STUDY)):
        _read_annotator(path, key["items"], tally)
    table = pd.DataFrame(tally.rows, columns=["saved", *COLUMNS]).sort_values("saved", kind="stable")
    again = int(table.duplicated(["annotator", "item"]).sum())
    table = table.drop_duplicates(["annotator", "item"], keep="last").sort_values(["annotator", "item"])
    table = table[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
    real = table[~table["attention"]]
    counts = {
        "annotators": int(real["annotator"].nunique()),
        "items": int(real["item"].nunique()),
        "answers": len(real),
        "unfinished": tally.unfinished,
        "duplicates": tally.repeated + again,
        "attention_failed": int((table["passed"] == False).sum()),  # noqa: E712, missing is neither
    }
    return Answers(table, counts, key)


def read_items(folder: str | Path) -> pd.DataFrame:
    """The items that annotators of a study see, without attention checks, with each set under its arm.

    Args:
        folder: of `prepare`.

    Returns:
        One row per item: `item prompt_id prompt first second`. The last two are lists of the arms' stories, as shown
        and in reading order.

    Raises:
        InputError: the folder, key or stories are missing, cannot be read, or do not belong together.
    """
    folder = Path(folder)
    key, path = _read_key(folder), folder / SHOWN
    try:
        with path.open(encoding="utf-8") as file:
            stories = [json.loads(line) for line in file]
        shown = {(s["prompt_id"], s["arm"], s["sample"]): s["shown"] for s in stories}
        prompts = {s["prompt_id"]: s["prompt"] for s in stories}
        rows = []
        for name, item in key["items"].items():
            prompt_id = item["prompt_id"]
            sets = [
                [shown[prompt_id, arm, s["sample"]] for s in item["stories"] if s["arm"] == arm] for arm in key["arms"]
            ]
            if not item["attention"]:
                rows.append((name, prompt_id, prompts[prompt_id], *sets))
    except OSError:
        raise InputError(f"{path}: no such file; `ddpo annotate prepare` writes it") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not the stories of this key ({type(error).__name__}: {error}); prepare the study again"
        ) from None
    return pd.DataFrame(rows, columns=["item", "prompt_id", "prompt", "first", "second"])


def _read_key(folder: Path) -> dict:
    path = folder / "key.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `ddpo annotate prepare` wrote")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        items = key["items"].values()
        whole = len(key["arms"]) == 2 and {item["first_side"] for item in items} <= set(SIDES)
        whole &= all({"prompt_id", "attention", "stories"} <= item.keys() for item in items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: the key cannot be read ({type(error).__name__}: {error})") from None
    if not whole:
        raise InputError(
            f"{path}: expected two `arms`, and for every item `prompt_id`, `attention`, `stories`, and `first_side` as "
            "left or right"
        )
    return key


def _read_annotator(path: Path, items: dict, tally: _Tally) -> None:
    """Add the rows of one annotator's file to the tally."""
    for record in potato.read_answers(path):
        where = f"{path}, item {record.item}"
        if record.item not in items:
            raise InputError(f"{where}: the key has no such item; check that the file belongs to this study")
        best, diverse = (_last(record.answers, question, where) for question in (BEST, DIVERSE))
        tally.repeated += any(len(values) > 1 for values in record.answers.values())
        if best is None and diverse is None:
            continue
        if best is None or diverse is None:
            tally.unfinished += 1
            continue
        tally.rows.append({"saved": record.saved, **_row(record, items[record.item], best, diverse)})


def _last(answers: dict[str, list[str]], question: str, where: str) -> str | None:
    """The last answer to a question, if any."""
    given = answers.get(question, [])
    for answer in given:
        if answer not in potato.CHOICES[question]:
            raise InputError(f"{where}, field `{question}`: unknown answer {answer!r}")
    return given[-1] if given else None


def _row(record: potato.Record, item: dict, best: str, diverse: str) -> dict:
    story = None if best == HARD else int(best)
    quality_side = "tie" if story is None else SIDES[story > STORIES]
    diversity_side = {LEFT: "left", RIGHT: "right", HARD: "tie"}[diverse]
    attention = item["attention"]

    def arm(side: str) -> str:
        return "tie" if attention or side == "tie" else "first" if side == item["first_side"] else "second"

    return {
        "item": record.item,
        "prompt_id": item["prompt_id"],
        "annotator": record.annotator,
        "first_side": item["first_side"],
        "quality": arm(quality_side),
        "quality_side": quality_side,
        "story": story,
        "diversity": arm(diversity_side),
        "diversity_side": diversity_side,
        "seconds": record.seconds,
        "attention": attention,
        "passed": diversity_side == item["first_side"] if attention else None,
    }
