"""Responses grouped by prompt, from a file or a hub -> one clean table, a row a response.

Two formats are read, told apart by their fields, from JSONL, Parquet or a Hugging Face data set:

- prompt-grouped: `{"prompt": str, "responses": [{"text": str, "score": float or null, "source": str}]}`
- raw, as in euclaise/WritingPrompts_preferences: `post_title`, `post_text`, `comment_texts`, `comment_scores`

Cleaning, the split and the upvote transform follow the paper's released preparation (paper, data; released code).
Everything left out is counted, with the reason, in the table's `attrs["dropped"]`.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.errors import InputError

log = logging.getLogger(__name__)

PACKAGE_CORPUS = Path(__file__).parent / "data" / "corpus.jsonl"
COLUMNS = ["prompt_id", "prompt", "response_id", "text", "score", "source", "split"]
MODERATION = ("**Welcome to the Prompt!**", "this submission has been removed", "**Off-Topic Discussion**")
REMOVED = ("[removed]", "[deleted]")
LARGEST = 1e300  # a score beyond it is taken for a mistake, and would overflow in sums
LEADING_TAG = re.compile(r"^\s*\[[^\]]*\]\s*")


@dataclass
class Limits:
    """What a run keeps at most. None: no limit. Whatever is cut is counted in the table's `attrs["dropped"]`."""

    prompts: int | None = None  # drawn at random
    responses: int | None = None  # a prompt, drawn at random
    tokens: int | None = None  # of prompt and response together; a longer response is dropped
    count_tokens: Callable[[str, str], int] | None = None  # (prompt, text) -> tokens; needed for `tokens`
    held_out: int | None = None  # prompts of the test split, drawn at random; the others are in no split


@dataclass
class _Prompt:
    """One prompt as read: its text, the number of the record where it came first, from 0, and its responses."""

    text: str
    number: int
    responses: list[dict] = field(default_factory=list)


def read_corpus(
    source: str | Path = PACKAGE_CORPUS,
    *,
    held_out: float = 0.1,
    seed: int = 42,
    limits: Limits | None = None,
    keep_repeats: bool = False,
    shard: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Read, clean and split a corpus (paper, data: 90/10 by prompt, seed 42).

    A prompt's id tells the record of the source, counted from 0, where the prompt stood first, so it is the same
    whatever else is read or left out.

    Args:
        source: a JSONL or Parquet file, or the name of a hub data set, `owner/name` (needs a network).
        held_out: the share of prompts in the test split, 0 to 1.
        seed: of the split and of the cuts.
        limits: caps on prompts, responses a prompt and tokens.
        keep_repeats: keep a response that repeats another under its prompt, as samples of a model may.
        shard: (k, n) for the k-th of n parts, k from 1. A prompt's text decides its part, so all its responses are in
            one. Only that part is held in memory; it may be empty.

    Returns:
        A row a response: `prompt_id prompt response_id text score source split`; score is NaN where there is none.
        `attrs["dropped"]` is a list of `{"what", "count", "why"}`, `attrs["read"]` the responses and prompts read.

    Raises:
        InputError: a file that is missing, empty or malformed; the message names file, row and field.
        ValueError: a shard that is none of 1 to n, or one with a held-out share or caps, which need all prompts.
    """
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard: expected k of n with 1 <= k <= n, got {shard[0]} of {shard[1]}")
    if shard is not None and (held_out or limits):
        raise ValueError("shard: a held-out share and caps are drawn from all prompts, which a shard does not have")
    dropped: dict[str, dict] = {}

    def drop(what: str, why: str, count: int = 1) -> None:
        entry = dropped.setdefault(what, {"what": what, "why": why, "count": 0})
        entry["count"] += count

    read = {"prompts": 0, "responses": 0}
    prompts = _merge(_prompts(source, drop, read, shard), drop)
    rng = np.random.default_rng(seed)
    if not keep_repeats:
        prompts = _deduplicate(prompts, drop)
    prompts = _cut(prompts, limits or Limits(), rng, drop)
    if not prompts and shard is None:
        raise InputError(f"{source}: no response is left after cleaning; dropped: {_sentence(dropped.values())}")

    held = rng.permutation(len(prompts))[: round(held_out * len(prompts))].tolist()
    most = limits.held_out if limits and limits.held_out else len(held)
    test, over = set(held[:most]), set(held[most:])
    if over:
        why = f"the profile keeps at most {most} held-out prompts, drawn at random"
        drop(f"responses of {len(over)} held-out prompts", why, sum(len(prompts[i].responses) for i in over))
    rows = []
    for i, prompt in enumerate(prompts):
        if i in over:
            continue
        split = "test" if i in test else "train"
        for j, response in enumerate(prompt.responses):
            score = math.nan if response["score"] is None else float(response["score"])
            name = f"p{prompt.number:05d}"
            rows.append((name, prompt.text, f"{name}-{j:04d}", response["text"], score, response["source"], split))
    kinds = {name: "float64" if name == "score" else "str" for name in COLUMNS}
    table = pd.DataFrame(rows, columns=COLUMNS).astype(kinds)
    table.attrs["read"] = read
    table.attrs["dropped"] = list(dropped.values())
    if dropped:
        log.info("%s: left out: %s", source, _sentence(dropped.values()))
    return table


def held_out_prompts(corpus: pd.DataFrame) -> pd.DataFrame:
    """A row a prompt of the test split, `prompt_id prompt`, as `generate.generate` takes them."""
    return corpus[corpus["split"] == "test"].drop_duplicates("prompt_id")[["prompt_id", "prompt"]]


def is_hub_name(source: str) -> bool:
    """Whether a source that is no file here has the form of a hub data set, `owner/name`."""
    names_a_file = Path(source).suffix in (".jsonl", ".json", ".parquet", ".csv", ".txt") or Path(source).exists()
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source)) and not names_a_file


def transform_scores(scores, low: float, high: float, compression: int = 100) -> np.ndarray:
    """Upvotes to about [-1, 1] (paper, data): shift the smallest to 1, log(x + 1) 100 times, rescale linearly.

    The released code shifts the scores and not the range, and gives NaN from a smallest score of -2 on; here both
    are shifted alike, and the numbers agree wherever the released ones exist with a smallest score of 1.

    Args:
        scores: array of scores.
        low, high: the range of the training scores; a score outside it is clipped to it.

    Returns:
        float64 array; all zeros where low equals high.
    """
    scores = np.clip(np.asarray(scores, dtype=np.float64), low, high) + (1.0 - low)
    ends = np.array([1.0, high + (1.0 - low)])
    if ends[0] == ends[1]:
        return np.zeros_like(scores)
    for _ in range(compression):
        scores, ends = np.log1p(scores), np.log1p(ends)
    return 2.0 * (scores - ends[0]) / (ends[1] - ends[0]) - 1.0


def _prompts(source: str | Path, drop, read: dict, shard: tuple[int, int] | None) -> Iterator[_Prompt]:
    for number, (where, record) in enumerate(_records(source)):
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected an object with `prompt` and `responses`, got {_kind(record)}")
        left_out: list[tuple] = []
        if "comment_texts" in record or "post_title" in record:
            responses = len(_list(record, "comment_texts", where))
            prompt = _raw_prompt(record, number, where, lambda *what, to=left_out: to.append(what))
        else:
            prompt = _grouped_prompt(record, number, where)
            responses = len(prompt.responses)
        if shard is not None and not _belongs(prompt.text if prompt else where, *shard):
            continue
        for what in left_out:
            drop(*what)
        read["prompts"] += 1
        read["responses"] += responses
        if prompt is not None:
            yield prompt


def _belongs(text: str, k: int, n: int) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % n == k - 1


def _records(source: str | Path) -> Iterator[tuple[str, dict]]:
    """Each record with the words that say where it stands."""
    path = Path(source)
    if not path.exists():
        if is_hub_name(str(source)):
            yield from _hub_records(str(source))
            return
        raise InputError(f"{path}: no such file; give a JSONL or Parquet file, or a hub data set as owner/name")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a JSONL or Parquet file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; expected one JSON object a line")
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
                    f"{where}: not JSON at column {error.colno} ({error.msg}); one object a line"
                ) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets as deep
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


def _hub_records(name: str) -> Iterator[tuple[str, dict]]:
    """A hub data set, every split in turn. Needs a network, or a copy in the Hugging Face cache."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        splits = load_dataset(name)
    except (OSError, DatasetNotFoundError) as error:
        raise InputError(
            f"{name}: cannot be read from the hub ({type(error).__name__}); without a network give a local JSONL or "
            "Parquet file, or leave the corpus out for the one in the package"
        ) from None
    for split, records in splits.items():
        for number, record in enumerate(records, 1):
            yield f"{name}, split {split}, row {number}", record


def _raw_prompt(record: dict, number: int, where: str, drop) -> _Prompt | None:
    title = _text(record, "post_title", where)
    body = record.get("post_text") or ""
    if not isinstance(body, str):
        raise InputError(f"{where}, field `post_text`: expected text, got {_kind(body)}")
    texts, scores = _list(record, "comment_texts", where), _list(record, "comment_scores", where)
    if len(texts) != len(scores):
        raise InputError(f"{where}: `comment_texts` has {len(texts)} entries and `comment_scores` {len(scores)}")
    if body.strip() in REMOVED:
        drop("removed posts", "the post's text is gone", len(texts))
        return None
    prompt = _Prompt("\n".join(filter(None, (LEADING_TAG.sub("", title).strip(), body.strip()))), number)
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


def _grouped_prompt(record: dict, number: int, where: str) -> _Prompt:
    prompt = _Prompt(_text(record, "prompt", where), number)
    for i, response in enumerate(_list(record, "responses", where), 1):
        at = f"{where}, field `responses`, entry {i}"
        if not isinstance(response, dict):
            raise InputError(f"{at}: expected an object with `text` and `score`, got {_kind(response)}")
        text = _value_text(response.get("text"), f"{at}, field `text`")
        score = _value_score(response.get("score"), f"{at}, field `score`")
        prompt.responses.append({"text": text.strip(), "score": score, "source": str(response.get("source") or "")})
    return prompt


def _merge(prompts: Iterator[_Prompt], drop) -> list[_Prompt]:
    """Prompts with the same text become one; so far nothing is dropped from them."""
    merged: dict[str, _Prompt] = {}
    for prompt in prompts:
        if prompt.text in merged:
            merged[prompt.text].responses += prompt.responses
            drop("duplicate prompts", "merged into the first; no response is lost")
        else:
            merged[prompt.text] = prompt
    return list(merged.values())


def _deduplicate(prompts: list[_Prompt], drop) -> list[_Prompt]:
    for prompt in prompts:
        first: dict[str, dict] = {}
        for response in prompt.responses:
            first.setdefault(" ".join(response["text"].split()), response)
        if len(first) < len(prompt.responses):
            drop("duplicate responses", "the same text under the same prompt", len(prompt.responses) - len(first))
            prompt.responses = list(first.values())
    return prompts


def _cut(prompts: list[_Prompt], limits: Limits, rng: np.random.Generator, drop) -> list[_Prompt]:
    """Apply the caps: whole prompts first, so that nothing is tokenised in vain; then tokens; then responses."""
    empty = sum(not p.responses for p in prompts)
    if empty:
        log.info("%d prompts have no response and are passed over", empty)
    prompts = [p for p in prompts if p.responses]
    if limits.prompts is not None and len(prompts) > limits.prompts:
        keep = np.sort(rng.permutation(len(prompts))[: limits.prompts])
        lost = sum(len(p.responses) for p in prompts) - sum(len(prompts[i].responses) for i in keep)
        what = f"responses of {len(prompts) - limits.prompts} prompts"
        drop(what, f"the profile keeps at most {limits.prompts} prompts, drawn at random", lost)
        prompts = [prompts[i] for i in keep]
    for prompt in prompts:
        if limits.tokens is not None:
            fit = [r for r in prompt.responses if limits.count_tokens(prompt.text, r["text"]) <= limits.tokens]
            if len(fit) < len(prompt.responses):
                why = f"prompt and response are over {limits.tokens} tokens; nothing is cut short"
                drop("long responses", why, len(prompt.responses) - len(fit))
                prompt.responses = fit
        if limits.responses is not None and len(prompt.responses) > limits.responses:
            keep = np.sort(rng.permutation(len(prompt.responses))[: limits.responses])
            why = f"the profile keeps at most {limits.responses} a prompt, drawn at random"
            drop("responses over the cap", why, len(prompt.responses) - limits.responses)
            prompt.responses = [prompt.responses[i] for i in keep]
    return [p for p in prompts if p.responses]


def _text(record: dict, name: str, where: str) -> str:
    if name not in record:
        raise InputError(f"{where}: no field `{name}`; it has {', '.join(map(repr, record)) or 'no fields'}")
    return _value_text(record[name], f"{where}, field `{name}`").strip()


def _list(record: dict, name: str, where: str) -> list:
    value = record.get(name)
    if not isinstance(value, list):
        raise InputError(f"{where}, field `{name}`: expected a list, got {_kind(value)}")
    return value


def _value_text(value, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: expected text, got {'empty text' if isinstance(value, str) else _kind(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where}: half of a character (a lone surrogate); write the text anew as UTF-8")
    return value


def _value_score(value, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        got = value if isinstance(value, float) else _kind(value)
        raise InputError(f"{where}: expected a finite number or null, got {got}")
    return value


def _kind(value) -> str:
    names = {type(None): "nothing", str: "text", bool: "a truth value", list: "a list", dict: "an object"}
    return names.get(type(value), f"{type(value).__name__} {value!r}")


def _sentence(dropped) -> str:
    return "; ".join(f"{d['count']} {d['what']} ({d['why']})" for d in dropped) or "nothing"
