"""Sizes of a model and a GPU -> memory and hours of training and sampling, by the formulas of this file."""

import math
from dataclasses import dataclass

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Optimiser

TRAINING_SHARE = 0.3  # of the peak arithmetic that training, scoring and embedding are taken to reach
SAMPLING_SHARE = 0.2  # of the peak bandwidth, where every new token reads all weights
CONTEXT = 1.5e9  # bytes that a process holds on a GPU besides what is counted
BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 16  # a trained parameter: float32 itself, its gradient and Adam's two moments


@dataclass(frozen=True)
class GPU:
    """`flops` a second in bfloat16, dense; `memory` bytes; `bandwidth` bytes a second. The makers' own figures."""

    flops: float
    memory: float
    bandwidth: float


GPUS = {
    "A100": GPU(312e12, 80e9, 2.0e12),
    "H100": GPU(989e12, 80e9, 3.35e12),
    "H200": GPU(989e12, 141e9, 4.8e12),
    "L40S": GPU(362e12, 48e9, 0.864e12),
    "4090": GPU(165e12, 24e9, 1.008e12),
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal language model, as in hub.yaml."""

    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    bias: bool = False
    norms: int = 2

    def parameters(self) -> int:
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        attention = 2 * self.width * (queries + keys) + (queries + 2 * keys) * self.bias
        layer = attention + 3 * self.width * self.mlp + self.norms * self.width
        return self.layers * layer + self.width + self.vocabulary * self.width * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, targets: list[str] | None, last_layers: int | None) -> int:
        """Of adapters of that rank; None for targets: PEFT's default for these models, q and v."""
        queries, keys, width = self.heads * self.head, self.kv_heads * self.head, self.width
        sizes = {"q_proj": width + queries, "k_proj": width + keys, "v_proj": width + keys, "o_proj": queries + width}
        sizes |= dict.fromkeys(["gate_proj", "up_proj", "down_proj"], width + self.mlp)
        if unknown := set(targets or []) - sizes.keys():
            raise InputError(f"model.lora_targets: {unknown.pop()} is none of {', '.join(sizes)}, which a plan knows")
        return rank * sum(sizes[name] for name in targets or ["q_proj", "v_proj"]) * (last_layers or self.layers)

    def forward_flops(self, context: float) -> float:
        """Of a token in texts of so many: two a parameter that multiplies, and causal attention over half a text."""
        table = 0 if self.tied else self.vocabulary * self.width
        return 2 * (self.parameters() - table) + 2 * self.layers * self.heads * self.head * context

    def cache_bytes(self) -> int:
        """Keys and values of a token in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head * 2


@dataclass(frozen=True)
class Cost:
    """Of one step of a run: optimiser steps, bytes on the GPU, hours; None where there are none, or no telling."""

    step: str
    steps: int | None = None
    memory: float | None = None
    hours: float | None = None


def optimiser_steps(examples: int, optimiser: Optimiser, epochs: float | None = None) -> int:
    """Of a training on one device, as the trainer counts them: an epoch's last step may be a part of one."""
    batches = math.ceil(examples / optimiser.batch_size)
    return math.ceil((epochs or optimiser.epochs) * math.ceil(batches / optimiser.accumulation))


def training_memory(shape: Shape, dtype: str, trained: int, whole: bool, sequences: int, tokens: int) -> float:
    """Bytes on a GPU that recomputes activations: weights, what trains, each layer's input, and one layer at work.

    Args:
        shape, dtype: of the model.
        trained: parameters of the adapter; of the model where `whole`.
        sequences, tokens: that are in a batch at once, and of the longest.
    """
    kept = shape.layers * shape.width
    at_work = 8 * shape.width + 4 * shape.mlp
    weights = 0 if whole else shape.parameters() * BYTES[dtype]
    return weights + trained * ADAPTER_BYTES + sequences * tokens * (kept + at_work) * BYTES[dtype] + CONTEXT


def training_hours(shape: Shape, tokens: float, context: float, passes: int, gpu: GPU) -> float:
    """For so many tokens, each run through the model `passes` times: 1 forward, 1 recomputed, 1 (whole: 2) backward."""
    return tokens * passes * shape.forward_flops(context) / (gpu.flops * TRAINING_SHARE) / 3600


def sampling_hours(shape: Shape, sequences: int, prompt: float, new: int, at_once: int, gpu: GPU) -> float:
    """Every step of a batch reads the weights and half of the keys and values that the batch will come to."""
    batch = max(1, min(sequences, int(at_once / (prompt + new))))
    read = 2 * shape.parameters() + batch * (prompt + new / 2) * shape.cache_bytes()
    return math.ceil(sequences / batch) * new * read / (gpu.bandwidth * SAMPLING_SHARE) / 3600
