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
from ddpo_lib.sampling.completions import Completion
from ddpo_lib.sampling.journal import Journal
from ddpo_lib.sampling.prompting import conversation, parse_answers

log = logging.getLogger(__name__)

COLUMNS = ["prompt_id", "prompt", "sample", "text", "tokens", "finished", "probability"]
CUT = ("length", "content_filter")  # reasons that mean that a text is incomplete


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
        One row per sample: `prompt_id prompt sample text tokens finished probability`, sorted by prompt_id and sample.
        `tokens` is missing if the engine does not report it. `finished` is False if the token limit or a filter cut
        the text. `probability` is the one that the model states with "verbalized", else NaN. With "verbalized" a
        prompt may have fewer samples.

    Raises:
        InputError: the engine fails; the message says how many answers the journal contains. Or another process writes
            to the journal.
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
        for r in range(rounds):
            talks = [
                conversation(how, text, [c.text for c in before], sampling.samples)
                for text, before in zip(asked, said, strict=True)
            ]
            found = kept.round(r)
            try:
                with memory_advice("in the profile, lower sampling.batch_tokens"):
                    for i, completions in engine.sample(talks, each, limits, f"{seed}-{r}", found.keys()):
                        kept.add(r, i, completions)
            except InputError as error:
                raise InputError(f"{error}{kept.remedy(r, len(asked))}") from None
            for i, completions in kept.round(r).items():
                said[i] += completions
    _report(said)
    rows = [
        (prompt_id, prompt, *row)
        for prompt_id, prompt, completions in zip(prompts["prompt_id"], prompts["prompt"], said, strict=True)
        for row in _samples(completions, how, sampling.samples)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"tokens": "Int64", "probability": float})
    if how == "verbalized" and (few := len(asked) - int((table.groupby("prompt_id").size() == sampling.samples).sum())):
        log.warning("verbalized: %d of %d prompts gave fewer than %d answers", few, len(asked), sampling.samples)
    return table.sort_values(["prompt_id", "sample"], ignore_index=True)


def _samples(completions: list[Completion], how: str, samples: int) -> Iterator[tuple]:
    """A prompt's rows: `sample text tokens finished probability`."""
    if how != "verbalized":
        for s, c in enumerate(completions):
            yield s, c.text, c.tokens, c.reason not in CUT, float("nan")
        return
    (whole,) = completions
    answers = parse_answers(whole.text, samples)
    for s, (text, probability) in enumerate(answers):
        yield s, text, None, whole.reason not in CUT or s + 1 < len(answers), probability


def _report(said: list[list[Completion]]) -> None:
    reasons = [c.reason for completions in said for c in completions]
    for reason in sorted(set(reasons) - {"stop", "length"}):
        log.warning(
            '%d of %d answers ended with "%s"; they are kept unchanged', reasons.count(reason), len(reasons), reason
        )


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
