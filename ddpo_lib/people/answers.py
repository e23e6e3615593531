"""The files that Potato writes for a study, and the study's key -> answers by arm, and items as annotators see them."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.people import potato
from ddpo_lib.people.human_eval import SHOWN, SIDES, STORIES
from ddpo_lib.people.potato import BEST, DIVERSE, HARD, LEFT, RIGHT
from ddpo_lib.people.potato_files import Record, answer_files, read_records

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
            `uncertain` (which answer is the last is not known; not in the table), `attention_failed`, and
            `several_files` (annotators whose answers come from more than one file).
        key: the key that `prepare` wrote.
    """

    table: pd.DataFrame
    counts: dict[str, int]
    key: dict


@dataclass
class _Given:
    """What an annotator answered to an item, over all files."""

    records: list[Record] = field(default_factory=list)

    def again(self) -> bool:
        changed = any(answer.revised for record in self.records for answer in record.answers.values())
        return changed or sum(bool(record.answers) for record in self.records) > 1

    def last(self, question: str) -> tuple[str, ...]:
        """The last answer to a question; several if it is not known which; empty if there is none."""
        given = [record.answers[question] for record in self.records if question in record.answers]
        timed = [answer for answer in given if answer.saved is not None]
        if given and len(timed) == len(given):
            latest = max(answer.saved for answer in given)
            given = [answer for answer in given if answer.saved == latest]
        return tuple(dict.fromkeys(option for answer in given for option in answer.options))

    def seconds(self) -> float:
        """The time of the record with the last answer."""
        saved = [max((a.saved or 0.0 for a in record.answers.values()), default=0.0) for record in self.records]
        return self.records[max(range(len(saved)), key=saved.__getitem__)].seconds


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
    given: dict[tuple[str, str], _Given] = {}
    for path in answer_files(folder / potato.STUDY):
        for record in read_records(path):
            _check(record, key["items"])
            given.setdefault((record.annotator, record.item), _Given()).records.append(record)
    rows, found = [], Counter()
    for (annotator, item), one in sorted(given.items()):
        best, diverse = one.last(BEST), one.last(DIVERSE)
        found["duplicates"] += one.again()
        if len(best) > 1 or len(diverse) > 1:
            found["uncertain"] += 1
        elif best and diverse:
            told = {"item": item, "annotator": annotator, "seconds": one.seconds()}
            rows.append(told | _row(key["items"][item], best[0], diverse[0]))
        else:
            found["unfinished"] += bool(best or diverse)
    files: dict[str, set] = {}
    for (annotator, _), one in given.items():
        files.setdefault(annotator, set()).update(record.path for record in one.records if record.answers)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    real = table[~table["attention"]]
    counts = {
        "annotators": int(real["annotator"].nunique()),
        "items": int(real["item"].nunique()),
        "answers": len(real),
        **{name: found[name] for name in ("unfinished", "duplicates", "uncertain")},
        "attention_failed": int((table["passed"] == False).sum()),  # noqa: E712, missing is neither
        "several_files": sum(len(paths) > 1 for paths in files.values()),
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


def _check(record: Record, items: dict) -> None:
    where = f"{record.path}, item {record.item}"
    if record.item not in items:
        raise InputError(f"{where}: the key has no such item; check that the file belongs to this study")
    for question, choices in potato.CHOICES.items():
        for option in record.answers[question].options if question in record.answers else ():
            if option not in choices:
                raise InputError(f"{where}, field `{question}`: unknown answer {option!r}")


def _row(item: dict, best: str, diverse: str) -> dict:
    """The fields of a row that the answers and the key decide."""
    story = None if best == HARD else int(best)
    quality_side = "tie" if story is None else SIDES[story > STORIES]
    diversity_side = {LEFT: "left", RIGHT: "right", HARD: "tie"}[diverse]
    attention = item["attention"]

    def arm(side: str) -> str:
        return "tie" if attention or side == "tie" else "first" if side == item["first_side"] else "second"

    return {
        "prompt_id": item["prompt_id"],
        "first_side": item["first_side"],
        "quality": arm(quality_side),
        "quality_side": quality_side,
        "story": story,
        "diversity": arm(diversity_side),
        "diversity_side": diversity_side,
        "attention": attention,
        "passed": diversity_side == item["first_side"] if attention else None,
    }
