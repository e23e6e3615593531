"""A reward function for TRL's GRPOTrainer and RLOOTrainer in which a sample's deviation from its siblings counts."""

import json
import os
from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ddpo_lib.base.errors import InputError
from ddpo_lib.rewards.rules import RULES, cosine_distances, deviation, shape

if TYPE_CHECKING:
    from ddpo_lib.spaces.embed import Space

BLANK = "(empty)"  # embedded in place of a blank text, as in `ddpo_lib.data.records`

Message = dict[str, Any]
Text = str | Sequence[Message]  # TRL gives either
Texts = Callable[[list[str]], np.ndarray]  # texts -> (n, d) floats, one row per text


class Scorer(Protocol):
    """An object that scores texts, such as a `Reward` of `ddpo_lib.measures.quality`."""

    def score(self, prompts: list[str], texts: list[str]) -> Sequence[float | None]: ...


Quality = Scorer | Callable[[list[str], list[str]], Sequence[float | None]]


class DeviationReward:
    """A reward function for `reward_funcs` of TRL's `GRPOTrainer` and `RLOOTrainer`.

    TRL calls it with all samples of a process in a step. It groups them by prompt, in any order. For each group it asks
    `quality` for rewards, measures how far the samples lie from one another, and applies one of the rules of `rules`::

        from trl import GRPOConfig, GRPOTrainer
        from ddpo_lib import DeviationReward
        quality = lambda prompts, texts: [float(len(text.split()) > 2) for text in texts]
        reward = DeviationReward(quality, ["lexical", "stylometric"], "product", num_generations=4)
        options = {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 8, "bf16": False}
        args = GRPOConfig("out", max_steps=1, report_to="none", **options)
        trainer = GRPOTrainer(model, reward, args, train_dataset=prompts, processing_class=tokenizer)
        trained = trainer.train()

    All samples of a prompt must be on one process. TRL hands process k the k-th part of a generation batch, whose
    samples lie prompt by prompt. So `per_device_train_batch_size * steps_per_generation` must be a multiple of
    `num_generations`, where TRL needs this only of the product with the number of processes. By default
    `steps_per_generation` is `gradient_accumulation_steps`. In evaluation the same holds of
    `per_device_eval_batch_size`.

    A sample that `quality` gives None or NaN keeps NaN, which TRL leaves out, and is no sibling of others. The rules
    `plain`, `product`, `similarity`, `gated`, `normalised` and `logdet`, and their options, are those of `rules`. The
    deviations of several spaces are averaged.

    Where `GRPOConfig` says nothing of min-p and typical-p, TRL samples with those of the model's
    generation_config.json, and such a filter can make the samples of a group alike. Set `min_p=0.0`, and look at the
    file.

    If `quality` raises an error, what it has scored is kept until a call succeeds: the same call again asks only for
    the rest. Texts that occur twice for a prompt are scored once.

    Args:
        quality: a function (prompts, texts) -> one number or None per text, or an object whose `score` is that. It gets
            texts also if TRL gives messages: their contents, with a blank line between messages.
        spaces: one or several: names or `Space`s as in `embed`, or functions texts -> (n, d) vectors. Blank texts
            are replaced by BLANK. Counted spaces are computed anew; vectors of models are stored on disk by `embed`.
        rule: a name in `RULES`.
        num_generations: samples per prompt. If it is given, a group of another size is an error, which names the
            prompt. A prompt that the data contains twice may have a multiple of it.
        at_once: texts in one call of `quality`. If a call fails, its texts are asked for again.
        options: of the rule.

    Raises:
        InputError: an unknown rule, no space, or `at_once` or `num_generations` below 1.
    """

    def __init__(
        self,
        quality: Quality,
        spaces: "Texts | Space | str | Sequence[Texts | Space | str]",
        rule: str = "product",
        *,
        num_generations: int | None = None,
        at_once: int = 16,
        **options: float,
    ):
        several = isinstance(spaces, Sequence) and not isinstance(spaces, str)
        self.spaces = [_vectors_in(space) for space in (spaces if several else [spaces])]
        if rule not in RULES:
            raise InputError(f"DeviationReward, rule: expected one of {', '.join(RULES)}, got {rule!r}")
        if unknown := options.keys() - [*signature(RULES[rule]).parameters][2:]:
            raise InputError(f"DeviationReward, {unknown.pop()}: no option of the rule {rule}")
        if not self.spaces:
            raise InputError("DeviationReward, spaces: there are none; name one, such as lexical")
        for name, value in {"num_generations": num_generations, "at_once": at_once}.items():
            if value is not None and value < 1:
                raise InputError(f"DeviationReward, {name}: expected 1 or more, got {value}")
        self.quality: Callable = getattr(quality, "score", quality)
        self.rule, self.options = rule, options
        self.num_generations, self.at_once = num_generations, at_once
        self.__name__ = f"deviation_{rule}"  # the name that TRL logs
        self._scored: dict[tuple[str, str], float] = {}

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward per completion, NaN where `quality` has none.

        Args:
            prompts, completions: of one process, n texts or n lists of messages, in any order.
            log_metric: TRL's. The means of quality and of deviation are logged, since TRL logs only the result.
            columns: everything else that TRL gives; it is not used.

        Raises:
            InputError: different numbers of prompts and completions, a group of another size than `num_generations`,
                or a quality or vectors that do not fit; it names what is wrong.
        """
        if len(prompts) != len(completions):
            raise InputError(
                f"{self.__name__}: {len(prompts)} prompts and {len(completions)} completions; expected one prompt each"
            )
        groups = self._groups(prompts)
        texts = [_text(completion) for completion in completions]
        scores = self._score([_text(prompt) for prompt in prompts], texts)
        distances = self._distances(texts, groups)
        rewards = np.empty(len(texts))
        for rows, between in zip(groups, distances, strict=True):
            rewards[rows] = shape(self.rule, scores[rows], between, **self.options)
        if log_metric is not None:
            apart = [deviation(between).mean() for between in distances if len(between) > 1]
            for name, values in {"quality": scores[~np.isnan(scores)], "deviation": apart}.items():
                if len(values):
                    log_metric(name, float(np.mean(values)))
        self._scored.clear()
        return rewards.tolist()

    def _groups(self, prompts: Sequence[Text]) -> list[list[int]]:
        """The rows of each prompt."""
        rows: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows.setdefault(prompt if isinstance(prompt, str) else json.dumps(prompt, default=str), []).append(row)
        for prompt, of_prompt in rows.items():
            if self.num_generations and len(of_prompt) % self.num_generations:
                raise InputError(
                    f"{self.__name__}: {len(of_prompt)} samples of the prompt {prompt[:40]!r} are here, not "
                    f"{self.num_generations}; the others may be on another process. Choose per_device_train_batch_size "
                    "* steps_per_generation (in evaluation per_device_eval_batch_size) as a multiple of num_generations"
                )
        return list(rows.values())

    def _score(self, prompts: list[str], texts: list[str]) -> np.ndarray:
        """(n,) float64 quality. Each distinct pair is asked for once, and kept until the call succeeds."""
        pairs = list(zip(prompts, texts, strict=True))
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._scored]
        for start in range(0, len(missing), self.at_once):
            part = missing[start : start + self.at_once]
            found = self.quality(*map(list, zip(*part, strict=True)))
            if len(found) != len(part):
                raise InputError(f"{self.__name__}, quality: {len(part)} texts were given and {len(found)} scores came")
            for pair, score in zip(part, found, strict=True):
                number = float("nan") if score is None else float(score)
                if np.isinf(number):
                    raise InputError(f"{self.__name__}, quality: infinite for {pair[1][:40]!r}; expected a number")
                self._scored[pair] = number
        return np.array([self._scored[pair] for pair in pairs])

    def _distances(self, texts: list[str], groups: list[list[int]]) -> list[np.ndarray]:
        """The distances in each group, (G, G), averaged over the spaces."""
        written = [text if text.strip() else BLANK for text in texts]
        total = [np.zeros((len(rows), len(rows))) for rows in groups]
        for number, space in enumerate(self.spaces):
            vectors = np.asarray(space(written))
            if vectors.ndim != 2 or len(vectors) != len(texts):
                raise InputError(
                    f"{self.__name__}, space {number}: expected vectors of shape ({len(texts)}, d), got {vectors.shape}"
                )
            for rows, between in zip(groups, total, strict=True):
                between += cosine_distances(vectors[rows]) / len(self.spaces)
        return total


def _text(written: Text) -> str:
    """A text as it is; of messages their contents, with a blank line between them."""
    if isinstance(written, str):
        return written
    return "\n\n".join(filter(None, (_content(message.get("content")) for message in written)))


def _content(content: str | Sequence[Message] | None) -> str:
    """The text of a message; of parts such as pictures it has none."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or "" for part in content)


def _vectors_in(space: "Texts | Space | str") -> Texts:
    """The function texts -> vectors of a space."""
    if callable(space):
        return space
    from ddpo_lib.spaces.embed import COUNTED, embed

    name = space if isinstance(space, str) else space.model
    if name in COUNTED:
        return COUNTED[name]
    return lambda texts: _embed_together(lambda every: embed(every, space), texts)


def _embed_together(embed: Texts, texts: list[str]) -> np.ndarray:
    """Vectors of this process's texts. `embed` divides its texts among processes, so all of them give it the same."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return embed(texts)
    from accelerate.utils import gather_object

    every = list(dict.fromkeys(gather_object(list(texts))))
    place = {text: row for row, text in enumerate(every)}
    return embed(every)[[place[text] for text in texts]]
