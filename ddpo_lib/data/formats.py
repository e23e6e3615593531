"""A file or a hub's data set -> prompts with their responses, in the order of its records, and what was left out.

Two formats are read from JSONL, Parquet or a Hugging Face data set, and are recognised by their fields:

- prompt-grouped: `{"prompt": str, "responses": [{"text": str, "score": float or null, "source": str}]}`
- raw, as in euclaise/WritingPrompts_preferences: `post_title`, `post_text`, `comment_texts`, `comment_scores`

A raw record's leading tag, moderation comments and removed texts are left out (paper, data; released code). A prompt
that is malformed raises InputError, which names file, row and field. `corpus` merges, cleans and splits what is read
here.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError

log = logging.getLogger(__name__)

MODERATION = ("**Welcome to the Prompt!**", "this submission has been removed", "**Off-Topic Discussion**")
REMOVED = ("[removed]", "[deleted]")
LARGEST = 1e300  # a larger score is refused as a mistake, since sums of it would overflow
LEADING_TAG = re.compile(r"^\s*\[[^\]]*\]\s*")


@dataclass
class Prompt:
    """One prompt as read: its text, the number (from 0) of the first record with it, and its responses."""

    text: str
    number: int
    responses: list[dict] = field(default_factory=list)
    split: str = "train"

    @property
    def id(self) -> str:
        return f"p{self.number:05d}"


def is_hub_name(source: str) -> bool:
    """Whether a source has the form of a hub data set, `owner/name` or `owner/name@revision`, and is no file here."""
    names_a_file = Path(source).suffix in (".jsonl", ".json", ".parquet", ".csv", ".txt") or Path(source).exists()
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", source)) and not names_a_file


@dataclass
class Reading:
    """What the caller asks of reading a source, and what reading it counts.

    Attributes:
        flags: fields of a response, true, false or null, that are kept.
        lone: a record needs no list of responses.
        read: number of prompts and responses read.
        dropped: by what was left out, a mapping with `what`, `why` and `count`.
    """

    flags: tuple[str, ...] = ()
    lone: bool = False
    read: dict[str, int] = field(default_factory=lambda: {"prompts": 0, "responses": 0})
    dropped: dict[str, dict] = field(default_factory=dict)

    def drop(self, what: str, why: str, count: int = 1) -> None:
        entry = self.dropped.setdefault(what, {"what": what, "why": why, "count": 0})
        entry["count"] += count

    def sentence(self) -> str:
        return "; ".join(f"{d['count']} {d['what']} ({d['why']})" for d in self.dropped.values()) or "nothing"

    def noted(self, table: pd.DataFrame, source: str | Path) -> pd.DataFrame:
        """The table with these counts in its `attrs`."""
        table.attrs["read"] = self.read
        table.attrs["dropped"] = list(self.dropped.values())
        if self.dropped:
            log.info("%s: left out: %s", source, self.sentence())
        return table


def parse_prompts(source: str | Path, reading: Reading, shard: tuple[int, int] | None) -> Iterator[Prompt]:
    """The prompts of a source, one per record, in order; prompts without text are left out.

    Args:
        source: a JSONL or Parquet file, or a hub data set.
        reading: what to keep of a record; it counts what is read and what is left out.
        shard: (k, n) gives the k-th of n parts, which a hash of the prompt's text decides; None gives all.

    Raises:
        InputError: the source cannot be read, or a record is malformed; names file, row and field.
    """
    for number, (where, line) in enumerate(_records(source)):
        if not isinstance(line, dict):
            raise InputError(f"{where}: expected an object with `prompt` and `responses`, got {_kind(line)}")
        left_out: list[tuple] = []
        if "comment_texts" in line or "post_title" in line:
            responses = len(_list(line, "comment_texts", where, reading.lone))
            prompt = _raw_prompt(line, number, where, lambda *what, to=left_out: to.append(what), reading.lone)
        else:
            prompt = _grouped_prompt(line, number, where, reading)
            responses = len(prompt.responses)
        if shard is not None and not _belongs(prompt.text if prompt else where, *shard):
            continue
        for what in left_out:
            reading.drop(*what)
        reading.read["prompts"] += 1
        reading.read["responses"] += responses
        if prompt is not None:
            yield prompt


def _belongs(text: str, k: int, n: int) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % n == k - 1


def _records(source: str | Path) -> Iterator[tuple[str, dict]]:
    """Each record, with the words that say where it is."""
    path = Path(source)
    if not path.exists():
        if is_hub_name(str(source)):
            yield from _hub_records(str(source))
            return
        raise InputError(f"{path}: no such file; give a JSONL or Parquet file, or a hub data set as owner/name")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a JSONL or Parquet file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; expected one JSON object per line")
    if path.suffix == ".parquet":
        yield from _parquet_records(path)
    else:
        yield from _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
            if not text:
                continue
            try:
                yield where, json.loads(text)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{where}: not JSON at column {error.colno} ({error.msg}); write one object per line"
                ) from None
            except (ValueError, RecursionError) as error:  # thousands of digits, or of nested brackets
                raise InputError(f"{where}: JSON that cannot be read ({error})") from None


def _parquet_records(path: Path) -> Iterator[tuple[str, dict]]:
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        number = 0
        batches = pq.ParquetFile(path).iter_batches(1000)
        for batch in batches:
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", record
    except UnicodeDecodeError:
        raise InputError(f"{path}, near row {number + 1}: not UTF-8; save the text as UTF-8") from None
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None


def _hub_records(source: str) -> Iterator[tuple[str, dict]]:
    """The records of a hub data set, one split after another. Needs a network, or a copy in the Hugging Face cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name, _, revision = source.partition("@")
    try:
        splits = load_dataset(name, revision=revision or None)
    except (OSError, DatasetNotFoundError) as error:
        raise InputError(
            f"{source}: cannot be read from the hub ({type(error).__name__}); without a network, give a local JSONL "
            "or Parquet file, or name no corpus to use the one in the package"
        ) from None
    for split, records in splits.items():
        for number, record in enumerate(records, 1):
            yield f"{name}, split {split}, row {number}", record


def _raw_prompt(record: dict, number: int, where: str, drop, lone: bool) -> Prompt | None:
    title = _text(record, "post_title", where)
    body = record.get("post_text") or ""
    if not isinstance(body, str):
        raise InputError(f"{where}, field `post_text`: expected text, got {_kind(body)}")
    texts, scores = (_list(record, name, where, lone) for name in ("comment_texts", "comment_scores"))
    if len(texts) != len(scores):
        raise InputError(f"{where}: `comment_texts` has {len(texts)} entries and `comment_scores` {len(scores)}")
    if body.strip() in REMOVED:
        drop("removed posts", "the post's text is gone", len(texts))
        return None
    prompt = Prompt("\n".join(filter(None, (LEADING_TAG.sub("", title).strip(), body.strip()))), number)
    if not prompt.text:
        drop("removed posts", "the post's text is gone", len(texts))
        return None
    for i, (text, score) in enumerate(zip(texts, scores, strict=True), 1):
        text = _value_text(text, f"{where}, field `comment_texts`, entry {i}")
        score = _value_score(score, f"{where}, field `comment_scores`, entry {i}")
        if any(mark.lower() in text.lower() for mark in MODERATION):
            drop("moderation comments", "written by moderators, not a story")
        elif text.strip() in REMOVED:
            drop("removed comments", "the comment's text is gone")
        else:
            prompt.responses.append({"text": text.strip(), "score": score, "source": "comment"})
    return prompt


def _grouped_prompt(line: dict, number: int, where: str, reading: Reading) -> Prompt:
    prompt = Prompt(_text(line, "prompt", where), number)
    for i, response in enumerate(_list(line, "responses", where, reading.lone), 1):
        at = f"{where}, field `responses`, entry {i}"
        if not isinstance(response, dict):
            raise InputError(f"{at}: expected an object with `text` and `score`, got {_kind(response)}")
        text = _value_text(response.get("text"), f"{at}, field `text`").strip()
        score = _value_score(response.get("score"), f"{at}, field `score`")
        kept = {"text": text, "score": score, "source": str(response.get("source") or "")}
        kept["finished"] = response.get("finished")
        for flag in reading.flags:
            kept[flag] = _value_flag(response.get(flag, line.get(flag)), f"{at}, field `{flag}`")
        prompt.responses.append(kept)
    return prompt


def _text(record: dict, name: str, where: str) -> str:
    if name not in record:
        raise InputError(f"{where}: no field `{name}`; it has {', '.join(map(repr, record)) or 'no fields'}")
    return _value_text(record[name], f"{where}, field `{name}`").strip()


def _list(record: dict, name: str, where: str, optional: bool = False) -> list:
    value = record.get(name)
    if optional and value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{where}, field `{name}`: expected a list, got {_kind(value)}")
    return value


def _value_text(value, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: expected text, got {'empty text' if isinstance(value, str) else _kind(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where}: half of a character (a lone surrogate); save the text again as UTF-8")
    return value


def _value_score(value, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        got = value if isinstance(value, float) else _kind(value)
        raise InputError(f"{where}: expected a finite number or null, got {got}")
    return value


def _value_flag(value, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{where}: expected true, false or null, got {_kind(value)}")
    return value


def _kind(value) -> str:
    names = {type(None): "nothing", str: "text", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), f"{type(value).__name__} {value!r}")
