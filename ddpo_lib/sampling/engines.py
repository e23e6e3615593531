"""Conversations -> completions, by three engines: transformers in this process, vLLM (`vllm_engine.py`), or a server.

A conversation is a list of `{"role": ..., "content": ...}`. An engine has two methods. `facts()` returns a dict for
manifests and journals; it contains no secret.

    sample(conversations, samples, sampling, seed, skip) -> yields (position, [Completion, ...]) as they are ready

`skip` contains the positions of the conversations to leave out, and `seed` is any text.
"""

import hashlib
import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from ddpo_lib.base.errors import InputError
from ddpo_lib.models import models
from ddpo_lib.models.adapters import check_base, check_template
from ddpo_lib.models.frozen_linears import use_onednn
from ddpo_lib.models.versions import exact_version
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.settings import Model, Sampling, check_for_vllm
from ddpo_lib.sampling.batching import count_at_once, fill_batches, group_alike, pad_left
from ddpo_lib.sampling.completions import Completion, Conversation
from ddpo_lib.sampling.decoding import Request, decode, takes_slots
from ddpo_lib.sampling.draws import Draw, sample_keys
from ddpo_lib.sampling.rendering import Render, chat, decode_marked, encode, fill_template
from ddpo_lib.sampling.thoughts import OPENING, opens_thoughts
from ddpo_lib.sampling.vllm_engine import VLLM

if TYPE_CHECKING:
    from ddpo_lib.sampling.server import Server

log = logging.getLogger(__name__)

FINGERPRINT = 1024  # numbers of each parameter, roughly, that the fingerprint reads


def open_engine(baseline: Baseline, model: Model) -> "Local | VLLM | Server":
    """The engine of a baseline, with its model loaded.

    Args:
        baseline: what to sample from, and with which engine.
        model: the profile's model, used without an adapter if the baseline names no model.

    Raises:
        InputError: the model cannot be loaded, or vLLM is not installed.
    """
    if baseline.engine == "server":
        from ddpo_lib.sampling.server import Server

        waits = {"timeout": baseline.timeout, "retries": baseline.retries, "pause": baseline.pause}
        return Server(baseline.url, baseline.model, baseline.key, baseline.sends, **waits)
    name, revision = (baseline.model, baseline.revision) if baseline.model else (model.name, model.revision)
    if baseline.engine == "vllm":
        check_for_vllm(model, adapter=False)
        return VLLM(name, revision=revision, dtype=model.dtype)
    tokenizer = models.load_tokenizer(name, revision)
    loaded = models.load_model(name, revision=revision, dtype=model.dtype)
    version = exact_version(name, revision)
    return Local(loaded, tokenizer, chat(tokenizer), version=version, bfloat16=model.bfloat16_products)


def open_trained(model: Model, trained: Path, engine: str = "transformers") -> "Local | VLLM":
    """The engine of a trained arm, which asks by the template that the arm was trained with.

    Args:
        model: the profile's model.
        trained: folder of the arm's adapter or of its whole model.
        engine: "transformers" or "vllm".

    Raises:
        InputError: the model cannot be loaded, vLLM is not installed or cannot sample the arm as it was trained, or the
            arm was trained from another model or with another template.
    """
    check_base(trained, model.name, model.revision)
    check_template(trained, model.template)
    render = fill_template(model.template)
    if engine == "vllm":
        check_for_vllm(model, adapter=models.is_adapter(trained))
        if not models.is_adapter(trained):
            return VLLM(str(trained), render=render, dtype=model.dtype)
        return VLLM(model.name, trained, render, revision=model.revision, dtype=model.dtype)
    loaded = models.load_model(model.name, trained, revision=model.revision, dtype=model.dtype)
    version = f"{exact_version(model.name, model.revision)}, trained to {exact_version(str(trained))}"
    tokenizer = models.load_tokenizer(model.name, model.revision)
    return Local(loaded, tokenizer, render, version=version, bfloat16=model.bfloat16_products)


class Local:
    """A model in this process, sampled by `decoding.decode`, or by `model.generate` if `takes_slots` does not hold.

    The repetition penalty counts only the tokens of the response, and spares end tokens. The penalty of
    `model.generate` would also count an end token in the template, and then few texts would end.

    Args:
        model: a causal language model on its device. It is frozen, and its linear layers run in oneDNN on the CPU.
        tokenizer: its tokenizer.
        render: conversation -> text that the model continues.
        version: of the model, see `versions`; None: only a hash of some numbers of its weights tells it from others.
        bfloat16: products of linear layers are in bfloat16, see `frozen_linears`.

    Raises:
        InputError: bfloat16 is not possible.
    """

    def __init__(self, model, tokenizer, render: Render, *, version: str | None = None, bfloat16: bool = False):
        self.tokenizer = tokenizer
        self.render = render
        self._version = version
        self._weights = _fingerprint(model)
        self.model = use_onednn(model.eval(), bfloat16=bfloat16)
        self._products = {"products": "bfloat16"} if bfloat16 else {}
        ends = model.generation_config.eos_token_id
        self._ends = sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})

    def facts(self) -> dict:
        return {
            "engine": "transformers",
            "model": Path(self.model.name_or_path).name,
            "version": self._version,
            "weights": self._weights,
            "template": self.render([{"role": "user", "content": "{prompt}"}]),
            "penalty_counts": "tokens of the response, without end tokens",
            **self._products,
        }

    def sample(
        self,
        conversations: list[Conversation],
        samples: int,
        sampling: Sampling,
        seed: str,
        skip: AbstractSet[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Sample each conversation `samples` times, as this module's docstring describes.

        The noise of a sample depends on the seed, its conversation and its number. Other samples in the same batch,
        and so `skip` and `sampling.batch_tokens`, change only the rounding of logits.

        Raises:
            InputError: a conversation fills the model's context and leaves no room for an answer.
        """
        texts = [self.render(conversation) for conversation in conversations]
        requests = [
            Request(ids, keys, self._room(len(ids), sampling.max_new_tokens))
            for ids, keys in zip(self._encode(texts), sample_keys(texts, samples, seed), strict=True)
        ]
        wanted = [i for i in range(len(requests)) if i not in skip]
        draw = Draw(sampling, tuple(self._ends), getattr(self.model.generation_config, "min_new_tokens", None) or 0)
        work = self._in_slots if takes_slots(self.model.config) else self._in_batches
        made = work([requests[i] for i in wanted], samples, draw)
        for number, tokens in tqdm(made, desc="sampling", total=len(wanted), disable=not wanted):
            begun = OPENING if opens_thoughts(texts[wanted[number]]) else ""
            yield wanted[number], [self._read(np.array(t), begun) for t in tokens]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encode(self.tokenizer, text) for text in texts]

    def _in_slots(self, requests: list[Request], samples: int, draw: Draw) -> Iterator[tuple[int, list[list[int]]]]:
        for group in group_alike([request.need for request in requests]):
            slots = count_at_once(requests[group[0]].need, samples, draw.sampling) * samples
            made = decode(self.model, [requests[i] for i in group], draw, min(slots, len(group) * samples))
            yield from ((group[number], tokens) for number, tokens in made)

    def _in_batches(self, requests: list[Request], samples: int, draw: Draw) -> Iterator[tuple[int, list[list[int]]]]:
        for batch in fill_batches([request.need for request in requests], samples, draw.sampling):
            yield from zip(batch, self._generate([requests[i] for i in batch], samples, draw), strict=True)

    @torch.inference_mode()
    def _generate(self, requests: list[Request], samples: int, draw: Draw) -> list[list[list[int]]]:
        ids, mask = (t.to(self.model.device) for t in pad_left([request.ids for request in requests]))
        keys = torch.tensor([request.keys for request in requests], device=self.model.device).flatten()
        # reads all but the last token of each prompt once; `num_return_sequences` would read them once per sample
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.model.config)
        if ids.shape[1] > 1:
            read = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1], "position_ids": positions[:, :-1]}
            self.model(**read, past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(samples)
        output = self.model.generate(
            input_ids=ids.repeat_interleave(samples, 0),
            attention_mask=mask.repeat_interleave(samples, 0),
            past_key_values=cache,
            do_sample=False,  # `Force` leaves one token, so the most probable one is the token drawn
            repetition_penalty=1.0,
            logits_processor=LogitsProcessorList([Force(draw, keys, ids.shape[1])]),
            max_new_tokens=min(request.limit for request in requests),
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
        )
        made = output[:, ids.shape[1] :].tolist()
        return [made[i : i + samples] for i in range(0, len(made), samples)]

    def _room(self, prompt: int, asked: int) -> int:
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is None or prompt + asked <= context:
            return asked
        if prompt >= context:
            raise InputError(
                f"a prompt of {prompt} tokens leaves no room in the model's context of {context} tokens; shorten it"
            )
        log.warning(
            "a prompt of %d tokens gets at most %d new ones: the model's context ends there", prompt, context - prompt
        )
        return context - prompt

    def _read(self, tokens: np.ndarray, begun: str) -> Completion:
        ends = np.flatnonzero(np.isin(tokens, self._ends))
        length = int(ends[0]) if len(ends) else len(tokens)
        text = begun + decode_marked(self.tokenizer, tokens[:length]).strip()
        return Completion(text, length, "stop" if len(ends) else "length")


class Force(LogitsProcessor):
    """Leaves `model.generate` only the token that a `Draw` draws; the prompts are the first `start` tokens."""

    def __init__(self, draw: Draw, keys: torch.Tensor, start: int):
        self.draw, self.keys, self.start = draw, keys, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(n, V) logits -> (n, V): 0 at the token drawn, minus infinity elsewhere."""
        said = input_ids[:, self.start :]
        steps = torch.full_like(self.keys, said.shape[1])
        drawn = self.draw(scores.clone(), said, self.keys, steps)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def _fingerprint(model) -> str:
    """A hash of some numbers of every parameter; it changes when the weights change, as by training."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        numbers = parameter.detach().flatten()
        numbers = numbers[:: max(1, len(numbers) // FINGERPRINT)]
        digest.update(name.encode() + numbers.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
