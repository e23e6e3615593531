"""Answers of an engine, written to disk as they come, so that an interrupted sampling continues."""

import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

from ddpo_lib.base.unfinished import differing, held
from ddpo_lib.sampling.completions import Completion

log = logging.getLogger(__name__)


class Journal:
    """Answers by round and prompt: a line that says what they depend on, then one line per answer.

    Lines that a kill or a failing disk damaged are dropped, and the others are kept. If the answers depend on anything
    else than those asked for now, the file is renamed, and a new one is begun.

    Args:
        path: the file; None: answers are in memory only.
        of: name -> JSON value, everything that the answers depend on.

    Raises:
        InputError: another process works on the file.
    """

    def __init__(self, path: Path | None, of: dict):
        self.path = path
        self._answers: dict[tuple[int, int], list[Completion]] = {}
        self._of = json.loads(json.dumps(of))
        self._lock: AbstractContextManager = held(path) if path else nullcontext()

    def __enter__(self) -> "Journal":
        self._lock.__enter__()
        if self.path:
            self._read(self.path)
        return self

    def __exit__(self, *error) -> None:
        self._lock.__exit__(*error)

    def round(self, r: int) -> dict[int, list[Completion]]:
        """Position of a prompt -> its completions of round `r`."""
        return {i: completions for (of, i), completions in self._answers.items() if of == r}

    def add(self, r: int, i: int, completions: list[Completion]) -> None:
        self._answers[r, i] = completions
        if self.path:
            self._write(_line(r, i, completions))

    def left_out(self) -> tuple[str, ...]:
        """The settings without which some of the answers were drawn."""
        every = (c for completions in self._answers.values() for c in completions)
        return tuple(sorted({name for c in every for name in c.left_out}))

    def remedy(self, r: int, prompts: int) -> str:
        if self.path is None:
            return ""
        return (
            f"; {len(self.round(r))} of {prompts} prompts are kept in {self.path}: the same command goes on from there"
        )

    def _read(self, path: Path) -> None:
        first, answers, damaged = _parse(path)
        if first is None or (different := differing(first, self._of)):
            if first is not None or answers:
                aside = _aside(path)
                path.replace(aside)
                why = f"begun with another {different}" if first else "does not say what it was begun with"
                log.warning("%s: %s; a new journal is started, the old one is now %s", path, why, aside)
            self._rewrite(path, self._of, {})
            return
        if damaged:
            log.warning("%s: %d damaged lines are dropped; their answers are asked for again", path, damaged)
            self._rewrite(path, first, answers)
        self._answers = answers
        if answers:
            log.info("%s: reusing %d answers of an earlier run", path, len(answers))

    def _rewrite(self, path: Path, first: dict, answers: dict) -> None:
        lines = [first] + [_line(*key, completions) for key, completions in answers.items()]
        aside = path.with_name(f"{path.name}.partial")
        aside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        aside.replace(path)

    def _write(self, line: dict) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def remove_journal(path: Path) -> None:
    """Remove a journal whose answers are saved elsewhere, and the one that it replaced."""
    path.unlink(missing_ok=True)
    _aside(path).unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.other")


def _parse(path: Path) -> tuple[dict | None, dict[tuple[int, int], list[Completion]], int]:
    """The first line, None if there is none; the answers; and the number of damaged lines."""
    first, answers, damaged = None, {}, 0
    if path.exists():
        with path.open("rb") as file:
            first = _object(file.readline())
            for line in file:
                found = _answer(_object(line))
                answers |= found
                damaged += not found
    return first, answers, damaged


def _object(line: bytes) -> dict | None:
    try:
        content = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _answer(line: dict | None) -> dict[tuple[int, int], list[Completion]]:
    """A line's answer by round and prompt; {} for a damaged line."""
    try:
        listed = [fields | {"left_out": tuple(fields.get("left_out", ()))} for fields in line["completions"]]
        completions = [Completion(**fields) for fields in listed]
        key = int(line["round"]), int(line["prompt"])
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return {}
    return {key: completions} if completions and all(map(_is_whole, completions)) else {}


def _is_whole(c: Completion) -> bool:
    counted = (c.tokens is None or type(c.tokens) is int) and type(c.thoughts) is int
    named = all(isinstance(name, str) for name in (c.text, c.reason, *c.left_out))
    return counted and named


def _line(r: int, i: int, completions: list[Completion]) -> dict:
    return {"round": r, "prompt": i, "completions": [asdict(c) for c in completions]}
