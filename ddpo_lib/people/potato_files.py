"""The files that Potato writes for each annotator -> their answers, each with its time.

Older versions keep every option that an annotator clicked, once, in the order of the first click: 3, 5 and 3 again are
kept as 3, 5. Beside them stands a trail of the clicks with their times, which tells the last one. If the trail lacks an
option, as in files that were merged by hand, nothing tells it, and the answer is uncertain.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.people.potato import OUTPUT

UNCHECKED = (None, False, "", "false", "off")  # values of an option that is not chosen
MILLISECONDS = 1e11  # a time above this is in milliseconds


@dataclass(frozen=True)
class Answer:
    """The last of an annotator's answers to a question, as far as one file tells.

    Attributes:
        options: the answer, or several of which one is the last, but not known which.
        saved: seconds since 1970; None if the file does not tell.
        revised: whether another option is stored too.
    """

    options: tuple[str, ...]
    saved: float | None
    revised: bool


@dataclass(frozen=True)
class Record:
    """An annotator's answers to an item in one file, by question."""

    annotator: str
    item: str
    answers: dict[str, Answer]
    seconds: float  # with the item on screen, without pauses; NaN if Potato does not report it
    path: Path = field(repr=False)


def answer_files(study: Path) -> list[Path]:
    """The files of all annotators so far, also in folders of several servers that were put together, and in copies."""
    return sorted(path for path in (study / OUTPUT).rglob("user_state*.json") if path.is_file())


def read_records(path: Path) -> Iterator[Record]:
    """The records of an annotator's file.

    Raises:
        InputError: the file cannot be read or lacks a field (names file and field).
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    annotator = _field(state, "user_id", str, path)
    items = _field(state, "instance_id_to_label_to_value", dict, path)
    behaviour = state.get("instance_id_to_behavioral_data") or {}  # the oldest versions have none
    if not isinstance(behaviour, dict):
        raise InputError(f"{path}, field `instance_id_to_behavioral_data`: not as Potato writes it")
    for item, labels in items.items():
        where = f"{path}, item {item}, field"
        chosen = _read_labels(labels, f"{where} `instance_id_to_label_to_value`")
        seconds, ended, trail = _read_behaviour(behaviour.get(item), f"{where} `instance_id_to_behavioral_data`")
        answers = {question: _last(options, trail.get(question, []), ended) for question, options in chosen.items()}
        yield Record(annotator, item, answers, seconds, path)


def _read_labels(labels, where: str) -> dict[str, list[str]]:
    """By question, the options that are stored, in order."""
    chosen: dict[str, list[str]] = {}
    try:
        for label, value in labels:
            question, option = label["schema"], label["name"]
            if not (isinstance(question, str) and isinstance(option, str)):
                raise TypeError
            if value not in UNCHECKED and option not in chosen.setdefault(question, []):
                chosen[question].append(option)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: expected a list of labels with `schema` and `name`") from None
    return {question: options for question, options in chosen.items() if options}


def _read_behaviour(data, where: str) -> tuple[float, float | None, dict[str, list[tuple[float, str]]]]:
    """Seconds on screen; when the item was left, None if not told; by question, the times and options of its clicks."""
    data = {} if data is None else data
    try:
        seconds = float(data.get("total_time_ms") or "nan") / 1000
        ended = _time(data.get("session_end"))
        changes = data.get("annotation_changes") or []
        if not isinstance(changes, list):
            raise TypeError
    except (AttributeError, TypeError, ValueError):
        raise InputError(
            f"{where}: expected `total_time_ms` and `session_end` as numbers, and `annotation_changes` as a list"
        ) from None
    trail: dict[str, list[tuple[float, str]]] = {}
    for change in changes:
        if isinstance(change, dict) and change.get("action") in ("select", "update"):
            option = change.get("label_name") or change.get("new_value")
            try:
                at = _time(change.get("timestamp"))
            except (TypeError, ValueError):
                at = None
            if at is not None and isinstance(option, str):
                trail.setdefault(change.get("schema_name"), []).append((at, option))
    return seconds, ended, trail


def _last(options: list[str], clicks: list[tuple[float, str]], ended: float | None) -> Answer:
    """The last answer to a question: by the clicks if several options are stored."""
    clicks = [(at, option) for at, option in clicks if option in options]
    latest = max((at for at, _ in clicks), default=ended)
    if len(options) == 1:
        return Answer(tuple(options), latest, False)
    if {option for _, option in clicks} != set(options):
        return Answer(tuple(options), latest, True)
    last = [option for at, option in clicks if at == latest][-1]
    return Answer((last,), latest, True)


def _time(value) -> float | None:
    """Seconds since 1970, from a number of seconds or milliseconds or a date; None for None."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        return datetime.fromisoformat(value).timestamp()
    seconds = float(value)
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return seconds / 1000 if seconds > MILLISECONDS else seconds


def _field(state, name: str, kind: type, path: Path):
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"{path}, field `{name}`: missing, or not as Potato writes it")
    return value
