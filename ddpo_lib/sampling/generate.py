"""Prompts -> several samples each, from any engine (paper, evaluation: 4 samples per prompt); resumes after a kill."""

import hashlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import InputError
from ddpo_lib.models.memory import memory_advice
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.completions import CUT, UNANSWERED, Completion
from ddpo_lib.sampling.journal import Journal
from ddpo_lib.sampling.prompting import conversation, parse_answers
from ddpo_lib.sampling.thoughts import take_off

log = logging.getLogger(__name__)

COLUMNS = ["prompt_id", "prompt", "sample", "text", "tokens", "finished", "probability", *UNANSWERED]
MORE_TOKENS = "give a higher limit, --tokens or a profile's `max_new_tokens`, or choose a model that thinks less"
HALF = "\ufffd"  # what stands for half a character


def generate(
    engine,
    prompts: pd.DataFrame,
    sampling: Sampling,
    seed: int,
    *,
    how: str = "plain",
    instruction: str = "{prompt}",
    journal: Path | None = None,
) -> pd.DataFrame:
    """Sample responses.

    Args:
        engine: one of `engines`, with its model loaded.
        prompts: one row per prompt, with `prompt_id` and `prompt`.
        sampling: temperature, top-k, top-p, repetition penalty, most new tokens of a sample, samples per prompt.
        seed: of the draws. With `engines.Local` the same seed gives a prompt's samples the same noise, for any model,
            other prompts and batches. So a run that was killed and resumed gives the same texts, except where the
            rounding of logits decides a draw. A server guarantees nothing of this.
        how: "plain", "iter" or "verbalized"; see `prompting`.
        instruction: the message to the model; its `{prompt}` is replaced by the prompt.
        journal: a file to which every answer is written as it comes. Answers that it contains are not requested again.
            A journal that depends on other prompts, settings, models, seeds or code is renamed. The caller removes the
            journal when the samples are saved (`journal.remove_journal`).

    Returns:
        One row per sample: `prompt_id prompt sample text tokens finished probability refused only_thoughts`, sorted by
        prompt_id and sample. Thoughts are taken off the text. `tokens` is missing if the engine does not report it.
        `finished` is False if the token limit or a filter cut the text. `probability` is the one that the model states
        with "verbalized", else NaN. A row is `refused` if a filter or the model gave no text, and has `only_thoughts`
        if the model did not begin its answer; these rows have an empty text, and no measure counts them. With
        "verbalized" a prompt may have fewer samples. `attrs["answers"]` is the result of `count_answers`.

    Raises:
        InputError: the engine fails (says how many answers the journal contains), no prompt has an answer, or another
            process writes to the journal.
    """
    asked = [instruction.replace("{prompt}", prompt) for prompt in prompts["prompt"]]
    rounds = sampling.samples if how == "iter" else 1
    each = sampling.samples if how == "plain" else 1
    limits = sampling
    if how == "verbalized":
        limits = sampling.model_copy(update={"max_new_tokens": sampling.samples * sampling.max_new_tokens})
    settings = {"engine": engine.facts(), "sampling": sampling.model_dump(), "seed": seed, "how": how}
    settings |= {
        "prompts": _digest([prompts["prompt_id"].tolist(), asked]),
        "code": code_key(partial(generate, engine)),
    }
    said: list[list[Completion]] = [[] for _ in asked]
    with Journal(journal, settings) as kept:
        if left_out := kept.left_out():
            engine.leave_out(left_out)
        for r in range(rounds):
            talks = [
                conversation(how, text, [c.text for c in before], sampling.samples)
                for text, before in zip(asked, said, strict=True)
            ]
            found = kept.round(r)
            try:
                with memory_advice("in the profile, lower sampling.batch_tokens"):
                    for i, completions in engine.sample(talks, each, limits, f"{seed}-{r}", found.keys()):
                        if r == 0 and not kept.round(r):
                            _warn_early(completions, limits)
                        kept.add(r, i, completions)
            except InputError as error:
                raise InputError(f"{error}{kept.remedy(r, len(asked))}") from None
            answers = {i: answer for i, answer in kept.round(r).items() if i in range(len(asked))}
            for i, completions in zip(answers, take_off(list(answers.values())), strict=True):
                said[i] += completions
    _report(said, limits)
    rows = [
        (prompt_id, prompt, *row)
        for prompt_id, prompt, completions in zip(prompts["prompt_id"], prompts["prompt"], said, strict=True)
        for row in _samples(completions, how, sampling.samples)
    ]
    kinds = {"tokens": "Int64", "probability": float, **dict.fromkeys(UNANSWERED, bool)}
    table = pd.DataFrame(rows, columns=COLUMNS).astype(kinds)
    if how == "verbalized" and (few := len(asked) - int((table.groupby("prompt_id").size() == sampling.samples).sum())):
        log.warning("verbalized: %d of %d prompts gave fewer than %d answers", few, len(asked), sampling.samples)
    table = table.sort_values(["prompt_id", "sample"], ignore_index=True)
    table.attrs["answers"] = count_answers(said)
    return table


def count_answers(said: list[list[Completion]]) -> dict:
    """What the answers to all prompts are.

    Args:
        said: for each prompt its completions, without thoughts.

    Returns:
        The number of `answers`; of those `refused`; with `only_thoughts`; with `thoughts`, which were taken off; with
        `halves` of characters, which were replaced. `left_out`: for each setting that the server refused, the number of
        answers that were drawn without it.
    """
    every = [c for completions in said for c in completions]
    names = dict.fromkeys(name for c in every for name in c.left_out)
    return {
        "answers": len(every),
        "refused": sum(c.refused for c in every),
        "only_thoughts": sum(c.only_thoughts for c in every),
        "thoughts": sum(c.thoughts > 0 for c in every),
        "halves": sum(HALF in c.text for c in every),
        "left_out": {name: sum(name in c.left_out for c in every) for name in names},
    }


def _samples(completions: list[Completion], how: str, samples: int) -> Iterator[tuple]:
    """A prompt's rows, from `sample` on."""
    if how != "verbalized":
        for s, c in enumerate(completions):
            yield s, c.text, c.tokens, c.reason not in CUT, float("nan"), c.refused, c.only_thoughts
        return
    (whole,) = completions
    answers = parse_answers(whole.text, samples)
    for s, (text, probability) in enumerate(answers):
        yield s, text, None, whole.reason not in CUT or s + 1 < len(answers), probability, False, False


def _warn_early(completions: list[Completion], sampling: Sampling) -> None:
    """A model that spends its limit on thoughts does so for most prompts: said after the first one, before all are."""
    (first,) = take_off([completions])
    if all(c.only_thoughts for c in first):
        log.warning(
            "the first prompt has no answer: the model spends its %d tokens on thoughts; %s",
            *(sampling.max_new_tokens, MORE_TOKENS),
        )


def _report(said: list[list[Completion]], sampling: Sampling) -> None:
    """Log what the answers are; raise an error if none of them is one."""
    counts, reasons = count_answers(said), [c.reason for completions in said for c in completions]
    whole = counts["answers"]
    for reason in sorted(set(reasons) - {"stop", "length"}):
        log.warning('%d of %d answers ended with "%s"; they are kept unchanged', reasons.count(reason), whole, reason)
    if counts["thoughts"]:
        log.warning("%d of %d answers contain thoughts, which are taken off", counts["thoughts"], whole)
    if counts["halves"]:
        log.warning("%d of %d answers contain half a character, which is replaced", counts["halves"], whole)
    for name, number in counts["left_out"].items():
        mixed = "; the others were drawn with it, so the samples are not alike" if number < whole else ""
        log.warning("%d of %d answers were drawn without %s%s", number, whole, name, mixed)
    missing = []
    if counts["refused"]:
        missing.append(f"{counts['refused']} of {whole} answers are refused")
    if spent := counts["only_thoughts"]:
        missing.append(
            f"{spent} of {whole} answers are only thoughts (limit {sampling.max_new_tokens} tokens); {MORE_TOKENS}"
        )
    if missing and counts["only_thoughts"] + counts["refused"] == whole:
        raise InputError(f"no answer is left to measure: {'; '.join(missing)}")
    for sentence in missing:
        log.warning("%s; they are kept, marked as such, and no measure counts them", sentence)


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
