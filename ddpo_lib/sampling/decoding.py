"""Prompts -> sampled tokens, by a causal language model with continuous batching.

The model reads each prompt once. Its keys and values are copied to the slots of its samples. When a text ends, the
last slot in use moves to its place, and the next prompt takes the slots that are free. Each slot has its own length,
so nothing is padded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from ddpo_lib.sampling.draws import Draw


@dataclass(frozen=True)
class Request:
    """A prompt to continue: its tokens, the noise key of each sample, and the most new tokens of a sample."""

    ids: list[int]
    keys: list[int]
    limit: int

    @property
    def need(self) -> int:
        """The most tokens of a sequence, prompt included."""
        return len(self.ids) + self.limit


def takes_slots(config) -> bool:
    """Whether the model's cache is the keys and values of every token: no sliding window, no other state."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


@torch.inference_mode()
def decode(model, requests: list[Request], draw: Draw, slots: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Sample every request.

    Args:
        model: a causal language model for which `takes_slots` holds.
        requests: they are taken in this order.
        draw: how tokens are drawn.
        slots: sequences at once; at least as many as a request has samples.

    Yields:
        As each request is ready: its position, and the tokens of its samples. The end token of a text is included.
    """
    device, limit = model.device, max(request.limit for request in requests)
    cache = SlotCache(model.config, slots, max(request.need for request in requests), device)
    ends = torch.tensor(draw.ends, device=device)
    said = torch.full((slots, limit), draw.ends[0], device=device)
    rows = torch.zeros((4, slots), dtype=torch.long, device=device)
    last, keys, steps, limits = rows  # per slot: the next token to read, the noise key, tokens drawn so far, the limit
    owners: list[tuple[int, int]] = []  # for each slot in use: request and sample
    made: dict[int, list[list[int]]] = {}
    waiting = 0
    while owners or waiting < len(requests):
        while waiting < len(requests) and len(owners) + len(requests[waiting].keys) <= slots:
            request = requests[waiting]
            new = slice(len(owners), len(owners) + len(request.keys))
            cache.admit(model, request.ids[:-1], new)
            last[new], keys[new], steps[new], limits[new] = (
                request.ids[-1],
                torch.tensor(request.keys, device=device),
                0,
                request.limit,
            )
            said[new] = draw.ends[0]
            owners += [(waiting, s) for s in range(len(request.keys))]
            made[waiting] = [[] for _ in request.keys]
            waiting += 1
        n = len(owners)
        logits = cache.read(model, last[:n])
        longest = int(steps[:n].max())
        tokens = draw(logits.float(), said[:n, :longest], keys[:n], steps[:n])
        said[torch.arange(n, device=device), steps[:n]] = tokens
        last[:n] = tokens
        steps[:n] += 1
        over = torch.isin(tokens, ends) | (steps[:n] == limits[:n])
        for slot in over.nonzero().flatten().flip(0).tolist():  # from the back: the slot that moves is unfinished
            request, sample = owners[slot]
            made[request][sample] = said[slot, : steps[slot]].tolist()
            tail = len(owners) - 1
            owners[slot] = owners[tail]
            owners.pop()
            cache.move(tail, slot)
            rows[:, slot] = rows[:, tail]
            said[slot] = said[tail]
            if all(made[request]):
                yield request, made.pop(request)


class SlotCache(Cache):
    """Keys and values of sequences of different lengths, in the first slots of a store that is allocated once."""

    def __init__(self, config, slots: int, capacity: int, device):
        self.config = config
        self.used = Used(torch.zeros(slots, dtype=torch.long, device=device))
        number = len(DynamicCache(config=config).layers)
        super().__init__(layers=[SlotLayer(slots, capacity, self.used) for _ in range(number)])

    def admit(self, model, ids: list[int], slots: slice) -> None:
        """Read the tokens once and copy their keys and values to each of the slots."""
        self.used.lengths[slots] = len(ids)
        if not ids:
            return
        prompt = DynamicCache(config=self.config)
        model(torch.tensor([ids], device=model.device), past_key_values=prompt, use_cache=True, logits_to_keep=1)
        for layer, of_prompt in zip(self.layers, prompt.layers, strict=True):
            layer.write(of_prompt.keys, of_prompt.values, slots)

    def read(self, model, tokens: torch.Tensor) -> torch.Tensor:
        """(n,) next tokens of the first n slots -> (n, V) logits of the tokens after them."""
        places = self.used.lengths[: len(tokens)]
        self.used.longest = int(places.max()) + 1
        mask = torch.arange(self.used.longest, device=places.device) <= places[:, None]
        read = {"input_ids": tokens[:, None], "attention_mask": mask.long(), "position_ids": places[:, None]}
        logits = model(**read, past_key_values=self, use_cache=True).logits[:, -1]
        self.used.lengths[: len(tokens)] += 1
        return logits

    def move(self, source: int, target: int) -> None:
        self.used.lengths[target] = self.used.lengths[source]
        for layer in self.layers:
            layer.move(source, target)


@dataclass
class Used:
    """How much of the slots is in use: `lengths`, (slots,) tokens; `longest` also counts the token being read."""

    lengths: torch.Tensor
    longest: int = 0


class SlotLayer(CacheLayerMixin):
    """One layer's part of a `SlotCache`; `keys` and `values` are (slots, heads, capacity, width)."""

    is_sliding = False

    def __init__(self, slots: int, capacity: int, used: Used):
        super().__init__()
        self.slots, self.capacity, self.used = slots, capacity, used

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            _zeros(states, self.slots, states.shape[1], self.capacity, states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows = torch.arange(len(key_states), device=key_states.device)
        places = self.used.lengths[: len(rows)]
        self.keys[rows, :, places] = key_states[:, :, 0]
        self.values[rows, :, places] = value_states[:, :, 0]
        return self.keys[: len(rows), :, : self.used.longest], self.values[: len(rows), :, : self.used.longest]

    def write(self, keys: torch.Tensor, values: torch.Tensor, slots: slice) -> None:
        """Copy a prompt's keys and values, (1, heads, length, width), to the start of each slot."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.keys[slots, :, : keys.shape[2]] = keys
        self.values[slots, :, : values.shape[2]] = values

    def move(self, source: int, target: int) -> None:
        if source != target:
            self.keys[target, :, : self.used.longest] = self.keys[source, :, : self.used.longest]
            self.values[target, :, : self.used.longest] = self.values[source, :, : self.used.longest]

    def get_seq_length(self) -> int:
        return self.used.longest - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used.longest, 0

    def get_max_length(self) -> int:
        return self.capacity


def _zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Zeros, since unused places get attention weight 0, and 0 times NaN is NaN.

    On the CPU, memory costs nothing until it is used: most texts end long before they may. torch would fill all of it.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    numbers = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(numbers).view(like.dtype).view(shape)
