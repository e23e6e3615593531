"""Prompts with responses, as `formats` reads them -> one clean table with one row per response.

Cleaning and the upvote transform follow the paper's released preparation (paper, data; released code).
Everything that is left out is counted, with the reason, in the table's `attrs["dropped"]`.

The split and the caps do not depend on which other prompts are read. Each prompt and response has a place in [0, 1)
that depends only on the seed and its own text. So a prompt stays on its side of the split when the file grows, is
shuffled, is read in shards or loses responses.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.formats import parse_prompts
from ddpo_lib.data.records import EMPTY, Prompt, Reading

log = logging.getLogger(__name__)

PACKAGE_CORPUS = Path(__file__).parents[1] / "data" / "corpus.jsonl"
PACKAGE_PROMPTS = Path(__file__).parents[1] / "data" / "prompts.jsonl"  # held-out prompts without responses
COLUMNS = ["prompt_id", "prompt", "response_id", "text", "score", "source", "split"]


@dataclass
class Limits:
    """The most that a run keeps. None: no limit. Whatever is cut is counted in the table's `attrs["dropped"]`.

    The prompts and the responses with the lowest `place` are kept.
    """

    prompts: int | None = None
    responses: int | None = None  # per prompt
    tokens: int | None = None  # of prompt and response together; a longer response is dropped
    count_tokens: Callable[[str, str], int] | None = None  # (prompt, text) -> tokens; needed for `tokens`
    held_out: int | None = None  # prompts of the test split; the others are in no split


def read_corpus(
    source: str | Path = PACKAGE_CORPUS,
    *,
    held_out: float = 0.1,
    seed: int = 42,
    limits: Limits | None = None,
    keep_repeats: bool = False,
    shard: tuple[int, int] | None = None,
    flags: Sequence[str] = (),
    reddit: bool = False,
) -> pd.DataFrame:
    """Read, clean and split a corpus (paper, data: 90/10 by prompt).

    A prompt's id is the number, from 0, of the first record of the source with this prompt. So it does not depend on
    what else is read or left out. Prompts without a response are skipped; `read_prompts` includes them.

    Args:
        source: a file or folder in one of the forms of `records` (JSON Lines, JSON, CSV, Parquet, Arrow, compressed or
            not; the first bytes say what it is), or the name of a hub data set, `owner/name` or `owner/name@revision`
            (needs a network).
        held_out: the share of prompts in the test split, 0 to 1; see `side`.
        seed: seed of the split and of the caps.
        limits: caps on prompts, responses per prompt and tokens.
        keep_repeats: True for a file with samples of a model. It keeps samples that repeat another sample of their
            prompt, are blank (`EMPTY`) or were cut (`"finished": false`). Otherwise they are dropped, since nothing
            should learn from them.
        shard: (k, n) for the k-th of n parts, k from 1. A prompt's text decides its part, so all its responses are in
            one part. Only that part is held in memory; it may be empty.
        flags: names of truth values to keep as further columns. They are fields of a prompt-grouped response, or of its
            line where the response has no such field.
        reddit: treat texts as Reddit's in every form, as in its raw form: drop notices of moderators and bots, and
            decode entities and escaped Markdown. Also take notes and thanks after a story off (`reddit`).

    Returns:
        One row per response: `prompt_id prompt response_id text score source split`; score is NaN where there is none.
        There is one more column for each of `flags`, None where the file does not give a value. `attrs["dropped"]` is a
        list of `{"what", "count", "why"}`, `attrs["changed"]` another of what was changed in texts that are kept, and
        `attrs["read"]` holds the numbers of responses and prompts read.

    Raises:
        InputError: a file that is missing, empty or malformed; the message names file, row and field.
        ValueError: a shard that is not one of 1 to n, or a shard with a cap on prompts, which needs all prompts.
    """
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard: expected k of n with 1 <= k <= n, got {shard[0]} of {shard[1]}")
    if shard is not None and limits and (limits.prompts or limits.held_out):
        raise ValueError("shard: a cap on prompts compares all prompts, which a shard does not have")
    reading = Reading(flags=tuple(flags), reddit=reddit)
    prompts = parse_prompts(source, reading, shard)
    prompts = _select(prompts, held_out, seed, limits or Limits(), keep_repeats, reading)
    prompts = [prompt for prompt in prompts if prompt.responses]
    if not prompts and shard is None:
        raise InputError(f"{source}: no response is left after cleaning; dropped {reading.sentence()}")
    rows = [
        (prompt.id, prompt.text, f"{prompt.id}-{j:04d}", r["text"], r["score"], r["source"], prompt.split)
        for prompt in prompts
        for j, r in enumerate(prompt.responses)
    ]
    kinds = {name: "float64" if name == "score" else "str" for name in COLUMNS}
    table = pd.DataFrame(rows, columns=COLUMNS).astype(kinds)
    for flag in flags:
        table[flag] = pd.Series([r.get(flag) for prompt in prompts for r in prompt.responses], dtype=object)
    return reading.noted(table, source)


def read_prompts(
    source: str | Path = PACKAGE_CORPUS,
    *,
    held_out: float,
    seed: int,
    limits: Limits | None = None,
    reddit: bool = False,
) -> pd.DataFrame:
    """Every prompt of a corpus, including those without a response to learn from.

    Prompts with responses are those of `read_corpus` with the same arguments, on the same side. A prompt without
    responses (no field `responses`, an empty list, or all responses dropped) is never trained on, so it is held out. If
    there are more held-out prompts than `limits.held_out`, those with responses are kept first.

    Args:
        source, held_out, seed, limits, reddit: as in `read_corpus`; `limits.prompts` does not count prompts without
            responses.

    Returns:
        One row per prompt: `prompt_id prompt split responses`, the last an int64 count. `attrs` as in `read_corpus`.

    Raises:
        InputError: a file that is missing, empty or malformed; the message names file, row and field.
    """
    reading = Reading(lone=True, reddit=reddit)
    prompts = _select(parse_prompts(source, reading, None), held_out, seed, limits or Limits(), False, reading)
    if not prompts:
        raise InputError(f"{source}: no prompt is left after cleaning; dropped {reading.sentence()}")
    rows = [(prompt.id, prompt.text, prompt.split, len(prompt.responses)) for prompt in prompts]
    kinds = {"prompt_id": "str", "prompt": "str", "split": "str", "responses": "int64"}
    return reading.noted(pd.DataFrame(rows, columns=list(kinds)).astype(kinds), source)


def place(seed: int, *texts: str) -> float:
    """A number in [0, 1) from the hash of a seed and texts. It is the same on every machine and whatever else is read.

    White space counts as it does for repeated responses: a run of it is one space, and the ends have none.
    """
    words = "\n".join([str(seed), *(normalised(text) for text in texts)])
    return (int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 11) / 2**53


def side(prompt: str, held_out: float, seed: int) -> str:
    """The split of a prompt: "test" if its `place` is below `held_out`, else "train".

    The share of held-out prompts is `held_out` on average. A larger share also holds out what a smaller one holds out.
    """
    return "test" if place(seed, prompt) < held_out else "train"


def normalised(text: str) -> str:
    """The text with each run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def is_blank(text: str) -> bool:
    """Whether a text is empty but for white space, or is `EMPTY`, which stands for that in files of samples."""
    return text.strip() in ("", EMPTY)


def held_out_prompts(corpus: pd.DataFrame) -> pd.DataFrame:
    """One row per prompt of the test split, `prompt_id prompt`, as `generate.generate` takes them."""
    return corpus[corpus["split"] == "test"].drop_duplicates("prompt_id")[["prompt_id", "prompt"]]


def transform_scores(scores, low: float, high: float, compression: int = 100) -> np.ndarray:
    """Upvotes -> about [-1, 1] (paper, data): shift the smallest to 1, take log(x + 1) 100 times, rescale linearly.

    The released code shifts the scores and not the range, and gives NaN if the smallest score is -2 or less. Here both
    are shifted, and the numbers agree with the released code if the smallest score is 1.

    Args:
        scores: array of scores, in upvotes.
        low, high: the range of the training scores; a score outside it is clipped to it.
        compression: how many times the logarithm is taken.

    Returns:
        float64 array of the same shape; all zeros if low equals high.
    """
    scores = np.clip(np.asarray(scores, dtype=np.float64), low, high) + (1.0 - low)
    ends = np.array([1.0, high + (1.0 - low)])
    if ends[0] == ends[1]:
        return np.zeros_like(scores)
    for _ in range(compression):
        scores, ends = np.log1p(scores), np.log1p(ends)
    return 2.0 * (scores - ends[0]) / (ends[1] - ends[0]) - 1.0


def _merge(prompts: Iterator[Prompt], drop: Callable) -> list[Prompt]:
    """Merge prompts with the same text. Nothing has been dropped from them yet."""
    merged: dict[str, Prompt] = {}
    for prompt in prompts:
        if prompt.text in merged:
            merged[prompt.text].responses += prompt.responses
            if prompt.row:
                continue
            drop("duplicate prompts", "merged into the first; no response is lost")
        else:
            merged[prompt.text] = prompt
    return list(merged.values())


def _select(
    prompts: Iterator[Prompt], held_out: float, seed: int, limits: Limits, keep_repeats: bool, reading: Reading
) -> list[Prompt]:
    """Clean, cap and split. Prompts are capped first, so that no dropped prompt is tokenised; responses come last."""
    kept = _merge(prompts, reading.drop)
    for prompt in kept if not keep_repeats else ():
        _drop_unfit(prompt, reading.drop)
    kept = _cap_prompts(kept, seed, limits.prompts, reading.drop)
    for prompt in kept:
        _cap_responses(prompt, seed, limits, reading.drop)
        prompt.split = side(prompt.text, held_out, seed) if prompt.responses else "test"
    empty = sum(not prompt.responses for prompt in kept)
    if empty and not reading.lone:
        log.info("%d prompts have no response and are left out", empty)
    return _cap_held_out(kept, seed, limits.held_out, reading.drop)


def _drop_unfit(prompt: Prompt, drop: Callable) -> None:
    """Drop responses that nothing should learn from: blank and cut samples of a model, and repeats."""
    written = [r for r in prompt.responses if not is_blank(r["text"])]
    if len(written) < len(prompt.responses):
        drop(
            "blank samples", f'without text, or "{EMPTY}", which stands for that', len(prompt.responses) - len(written)
        )
    finished = [r for r in written if r.get("finished") is not False]
    if len(finished) < len(written):
        drop("cut samples", "`finished` is false; one teaches to stop where it stops", len(written) - len(finished))
    first: dict[str, dict] = {}
    for response in finished:
        first.setdefault(normalised(response["text"]), response)
    if len(first) < len(finished):
        drop("duplicate responses", "the same text under the same prompt", len(finished) - len(first))
    prompt.responses = list(first.values())


def _cap_prompts(prompts: list[Prompt], seed: int, most: int | None, drop: Callable) -> list[Prompt]:
    """Keep the prompts with the lowest places. Prompts without responses are not counted, and stay."""
    answered = [prompt for prompt in prompts if prompt.responses]
    if most is None or len(answered) <= most:
        return prompts
    over = sorted(answered, key=lambda prompt: place(seed, "prompts", prompt.text))[most:]
    why = f"the profile keeps at most {most} prompts, chosen by a hash of their text"
    drop(f"responses of {len(over)} prompts", why, sum(len(prompt.responses) for prompt in over))
    gone = {prompt.number for prompt in over}
    return [prompt for prompt in prompts if prompt.number not in gone]


def _cap_responses(prompt: Prompt, seed: int, limits: Limits, drop: Callable) -> None:
    if limits.tokens is not None:
        fit = [r for r in prompt.responses if limits.count_tokens(prompt.text, r["text"]) <= limits.tokens]
        if len(fit) < len(prompt.responses):
            why = f"prompt and response are over {limits.tokens} tokens; nothing is cut short"
            drop("long responses", why, len(prompt.responses) - len(fit))
            prompt.responses = fit
    if limits.responses is not None and len(prompt.responses) > limits.responses:
        places = [place(seed, prompt.text, r["text"]) for r in prompt.responses]
        keep = np.sort(np.argsort(places, kind="stable")[: limits.responses])
        why = f"the profile keeps at most {limits.responses} per prompt, chosen by a hash of their text"
        drop("responses over the cap", why, len(prompt.responses) - limits.responses)
        prompt.responses = [prompt.responses[i] for i in keep]


def _cap_held_out(prompts: list[Prompt], seed: int, most: int | None, drop: Callable) -> list[Prompt]:
    """Keep the training prompts, and the held-out prompts with the lowest places, those with responses first."""
    test = [prompt for prompt in prompts if prompt.split == "test"]
    if most is None or len(test) <= most:
        return prompts
    over = sorted(test, key=lambda prompt: (not prompt.responses, place(seed, prompt.text)))[most:]
    if cut := sum(len(prompt.responses) for prompt in over):
        why = f"the profile keeps at most {most} held-out prompts, chosen by a hash of their text"
        drop(f"responses of {sum(bool(prompt.responses) for prompt in over)} held-out prompts", why, cut)
    gone = {prompt.number for prompt in over}
    return [prompt for prompt in prompts if prompt.number not in gone]
