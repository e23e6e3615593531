"""One record of a source -> a prompt with its responses, and what was left out or changed.

Three forms are recognised by their fields:

- prompt-grouped: `{"prompt": str, "responses": [{"text": str, "score": float or null, "source": str}]}`
- a table with one row per response: `prompt`, `text` and, optionally, `score`, `source`; rows of one prompt need not be
  together
- raw, as in euclaise/WritingPrompts_preferences: `post_title`, `post_text`, `comment_texts`, `comment_scores`

A raw record's leading tag, moderation comments and removed texts are left out (paper, data; released code), and what
Reddit's transport leaves is undone (`reddit`). A text that is blank or stands for a removed one is left out and counted
in every form.
"""

import logging
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import reddit
from ddpo_lib.data.values import fields, flag_of, has_half, kind, list_of, score_of, text_of, whole

log = logging.getLogger(__name__)

EMPTY = "(empty)"  # stands for a blank sample in files and in embeddings, so that two of them count as alike
LEADING_TAG = re.compile(r"^\s*\[[^\]]*\]\s*")


@dataclass
class Prompt:
    """One prompt as read: its text, the number (from 0) of the first record with it, and its responses.

    `row` says that the record is one row of a table with a row per response, so that others belong to it.
    """

    text: str
    number: int
    responses: list[dict] = field(default_factory=list)
    split: str = "train"
    row: bool = False

    @property
    def id(self) -> str:
        return f"p{self.number:05d}"


@dataclass
class Reading:
    """What the caller asks of reading a source, and what reading it counts.

    Attributes:
        flags: fields of a response, true, false or null, that are kept.
        lone: a record needs no list of responses.
        reddit: every form is treated as Reddit's raw form is, and notes around stories are taken off.
        read: number of prompts and responses read.
        dropped: by what was left out, a mapping with `what`, `why` and `count`.
        changed: by what was changed in texts that are kept, the same.
    """

    flags: tuple[str, ...] = ()
    lone: bool = False
    reddit: bool = False
    read: dict[str, int] = field(default_factory=lambda: {"prompts": 0, "responses": 0})
    dropped: dict[str, dict] = field(default_factory=dict)
    changed: dict[str, dict] = field(default_factory=dict)

    def drop(self, what: str, why: str, count: int = 1) -> None:
        _count(self.dropped, what, why, count)

    def change(self, what: str, why: str, count: int = 1) -> None:
        _count(self.changed, what, why, count)

    def sentence(self) -> str:
        return _sentence(self.dropped)

    def noted(self, table: pd.DataFrame, source: str | Path) -> pd.DataFrame:
        """The table with these counts in its `attrs`."""
        table.attrs["read"] = self.read
        table.attrs["dropped"] = list(self.dropped.values())
        table.attrs["changed"] = list(self.changed.values())
        if self.dropped:
            log.info("%s: left out: %s", source, self.sentence())
        if self.changed:
            log.info("%s: in texts that are kept: %s", source, _sentence(self.changed))
        return table


def _count(entries: dict[str, dict], what: str, why: str, count: int) -> None:
    entries.setdefault(what, {"what": what, "why": why, "count": 0})["count"] += count


def _sentence(entries: dict[str, dict]) -> str:
    return "; ".join(f"{d['count']} {d['what']} ({d['why']})" for d in entries.values()) or "nothing"


class Record:
    """One record as it becomes a prompt. `notes` is what to count if it is kept, `responses` how many it has."""

    def __init__(self, line: dict, number: int, where: str, reading: Reading):
        self.line, self.number, self.where, self.reading = line, number, where, reading
        self.notes: list[tuple] = []
        self.responses = 0
        self.raw = "comment_texts" in line or "post_title" in line
        self.clean = self.raw or reading.reddit

    def prompt(self) -> Prompt | None:
        """The prompt with its responses; None if the prompt has no text."""
        if self.raw:
            return self._raw()
        if "prompt" not in self.line:
            raise InputError(f"{self.where}: no field `prompt`; {fields(self.line)}")
        row = "text" in self.line and "responses" not in self.line
        entries = self._rows() if row else list_of(self.line, "responses", self.where, optional=self.reading.lone)
        self.responses = len(entries)
        text = self._text(self.line["prompt"], "field `prompt`")
        if not text:
            self.drop("responses of blank prompts", "the prompt has no text", max(len(entries), 1))
            self.responses = max(len(entries), 1)
            return None
        prompt = Prompt(text, self.number, row=row)
        for i, entry in enumerate(entries, 1):
            at = self.where if row else f"{self.where}, field `responses`, entry {i}"
            response = self._response(entry, at)
            if self._fit(response["text"]):
                response["text"] = self._without_trailers(response["text"], text)
                prompt.responses.append(response)
        return prompt

    def _rows(self) -> list[dict]:
        fits = ("score", "source", "finished", *self.reading.flags)
        return [{"text": self.line["text"]} | {name: self.line[name] for name in fits if name in self.line}]

    def _raw(self) -> Prompt | None:
        line, where = self.line, self.where
        lone = self.reading.lone
        texts, scores = (list_of(line, name, where, optional=lone) for name in ("comment_texts", "comment_scores"))
        self.responses = len(texts)
        if len(texts) != len(scores):
            raise InputError(f"{where}: `comment_texts` has {len(texts)} entries and `comment_scores` {len(scores)}")
        if "post_title" not in line:
            raise InputError(f"{where}: no field `post_title`; {fields(line)}")
        title = self._text(line["post_title"], "field `post_title`")
        body = self._text(line.get("post_text"), "field `post_text`")
        title = "" if reddit.is_placeholder(title) else LEADING_TAG.sub("", title).strip()
        gone = reddit.is_placeholder(body)
        prompt = Prompt("\n".join(filter(None, (title, body))), self.number)
        if gone or not prompt.text:
            self.drop("removed posts", "the post's text is gone", len(texts))
            return None
        for i, (text, score) in enumerate(zip(texts, scores, strict=True), 1):
            text = self._text(text, f"field `comment_texts`, entry {i}")
            score = self._score(score, f"{where}, field `comment_scores`, entry {i}")
            if not text:
                self.drop("blank comments", "there is no text")
            elif self._fit(text):
                text = self._without_trailers(text, prompt.text)
                prompt.responses.append({"text": text, "score": score, "source": "comment"})
        return prompt

    def _response(self, entry, at: str) -> dict:
        if entry is None:
            entry = {"text": None}
        if not isinstance(entry, dict):
            raise InputError(f"{at}: expected an object with `text` and `score`, got {kind(entry)}")
        if "text" not in entry:
            raise InputError(f"{at}, field `text`: expected text, but there is no such field; {fields(entry)}")
        text = self._text(entry["text"], f"{at.removeprefix(self.where + ', ')}, field `text`".removeprefix(", "))
        source = entry.get("source")
        response = {
            "text": text or EMPTY,
            "score": self._score(entry.get("score"), f"{at}, field `score`"),
            "source": "" if source is None else whole(str(source)),
            "finished": entry.get("finished"),
        }
        for flag in self.reading.flags:
            response[flag] = flag_of(entry.get(flag, self.line.get(flag)), f"{at}, field `{flag}`")
        return response

    def _text(self, value, at: str) -> str:
        text = text_of(value, f"{self.where}, {at}")
        if has_half(text):
            text = whole(text)
            self.change("texts with half a character", "it is replaced by U+FFFD")
        if self.clean:
            return reddit.decode(text, self.change)
        if reddit.marked(text):
            self.change("texts with marks such as &amp;", "kept as they are; ask for `reddit` to decode them")
        return text

    def _score(self, value, at: str) -> float | None:
        score = score_of(value, at)
        if score is not None and math.isnan(score):
            self.change("scores that are NaN", "read as no score")
            return None
        return score

    def _fit(self, text: str) -> bool:
        """Whether a text is a response; if not, it is counted."""
        if reddit.is_placeholder(text):
            self.drop("removed comments", "the comment's text is gone")
            return False
        written = reddit.notice(text) if self.clean else None
        if written:
            self.drop(written.what, written.why)
        return written is None

    def _without_trailers(self, text: str, prompt: str) -> str:
        return reddit.without_trailers(text, prompt, self.change) if self.reading.reddit else text

    def drop(self, what: str, why: str, count: int = 1) -> None:
        self.notes.append((self.reading.drop, what, why, count))

    def change(self, what: str, why: str) -> None:
        self.notes.append((self.reading.change, what, why))
