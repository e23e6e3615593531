"""Sizes of a model, and the speed of a GPU as measured -> memory and hours of training and sampling.

The formulas below say how the work grows with the sizes. The speed is that of `python -m benchmarks.gpu`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Optimiser, Sampling

MEASURED = "llama-8b"  # the shape whose speed tells that of other models; `tiny` tells nothing
TRAINED, SAMPLED = "+ packed without padding", "ours, batches filled to a budget"  # measurements of our own code
CONTEXT = 1.5e9  # bytes that a process uses on a GPU besides those counted here
BYTES = {"float32": 4, "bfloat16": 2}
ADAPTER_BYTES = 16  # per trained parameter, in float32: the parameter, its gradient and Adam's two moments


GPUS = {"A100": 80e9, "H100": 80e9, "H200": 141e9, "L40S": 48e9, "4090": 24e9}  # bytes of memory


@dataclass(frozen=True)
class Speed:
    """What a GPU reached, as measured.

    Attributes:
        gpu: its name.
        made: the date.
        flops: operations a second in training, counted as `training_hours` counts them.
        bandwidth: bytes a second in sampling, counted as `sampling_hours` counts them.
    """

    gpu: str
    made: str
    flops: float
    bandwidth: float


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
        """Parameters of adapters of this rank; `targets` None is PEFT's default for these models, q and v.

        Raises:
            InputError: a target is unknown here.
        """
        queries, keys, width = self.heads * self.head, self.kv_heads * self.head, self.width
        sizes = {"q_proj": width + queries, "k_proj": width + keys, "v_proj": width + keys, "o_proj": queries + width}
        sizes |= dict.fromkeys(["gate_proj", "up_proj", "down_proj"], width + self.mlp)
        if unknown := set(targets or []) - sizes.keys():
            raise InputError(
                f"model.lora_targets: {unknown.pop()} is none of {', '.join(sizes)}; a plan knows only these"
            )
        return rank * sum(sizes[name] for name in targets or ["q_proj", "v_proj"]) * (last_layers or self.layers)

    def forward_flops(self, context: float) -> float:
        """Operations per token in texts of `context` tokens: two per parameter of a matrix, and causal attention, which
        covers half a text on average."""
        table = 0 if self.tied else self.vocabulary * self.width
        return 2 * (self.parameters() - table) + 2 * self.layers * self.heads * self.head * context

    def cache_bytes(self) -> int:
        """Bytes of the keys and values of a token in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head * 2


@dataclass(frozen=True)
class Cost:
    """The cost of one step of a run: optimiser steps, bytes on the GPU, hours; None if there are none, or unknown."""

    step: str
    steps: int | None = None
    memory: float | None = None
    hours: float | None = None


def optimiser_steps(examples: int, optimiser: Optimiser, epochs: float | None = None) -> int:
    """Optimiser steps of a training, as the trainer counts them; an epoch's last step may be partial."""
    batches = math.ceil(examples / (optimiser.batch_size * optimiser.devices))
    return math.ceil((epochs or optimiser.epochs) * math.ceil(batches / optimiser.accumulation))


def training_memory(shape: Shape, dtype: str, trained: int, whole: bool, sequences: int, tokens: int) -> float:
    """Bytes on a GPU when activations are recomputed: the weights, the trained parameters with their optimiser state,
    the input of each layer, and the activations of one layer.

    Args:
        shape, dtype: of the model.
        trained: trained parameters: those of the adapter, or with `whole` of the model.
        whole: whether all parameters are trained; `trained` then includes the weights.
        sequences: in a batch at once.
        tokens: of the longest sequence.
    """
    kept = shape.layers * shape.width
    at_work = 8 * shape.width + 4 * shape.mlp
    weights = 0 if whole else shape.parameters() * BYTES[dtype]
    return weights + trained * ADAPTER_BYTES + sequences * tokens * (kept + at_work) * BYTES[dtype] + CONTEXT


def training_flops(shape: Shape, tokens: float, context: float, passes: int) -> float:
    """Operations of training on `tokens` tokens, in texts of `context` tokens.

    `passes` counts in forward passes: 1 forward, 1 recomputed, and 1 backward, or 2 if all parameters are trained.
    """
    return tokens * passes * shape.forward_flops(context)


def sampling_bytes(shape: Shape, sequences: int, prompt: float, new: int, at_once: int) -> float:
    """Bytes read to sample `sequences` sequences of `new` tokens after `prompt` tokens, in batches of `at_once` tokens.

    Every step of a batch reads the weights and the keys and values so far, on average those of half of the new tokens.
    """
    batch = max(1, min(sequences, int(at_once / (prompt + new))))
    read = 2 * shape.parameters() + batch * (prompt + new / 2) * shape.cache_bytes()
    return math.ceil(sequences / batch) * new * read


def read_speed(file: Path) -> Speed | None:
    """The speed that `python -m benchmarks.gpu` measured; None if it measured none on a GPU.

    Raises:
        InputError: the file cannot be read.
    """
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        measured, gpu = content["measured"], content["hardware"]["gpu"]
        trained, sampled = (measured.get(name, {}).get("tokens_per_second") for name in (TRAINED, SAMPLED))
        if content["shape"] != MEASURED or not (gpu and trained and sampled):
            return None
        sizes = (content[name] for name in ("layers", "width", "inner", "heads", "kv_heads"))
        shape = Shape(*sizes, content["width"] // content["heads"], content["vocabulary"], tied=False)
        context, prompt, new = content["prompt"] + content["story"], content["prompt"], content["new_tokens"]
        sequences = content["asked"] * Sampling().samples
        read = sampling_bytes(shape, sequences, prompt, new, content["batch_tokens"])
        return Speed(
            gpu,
            content["made"],
            flops=training_flops(shape, trained, context, 3),
            bandwidth=read / (sequences * new) * sampled,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not what `python -m benchmarks.gpu` writes ({error}); run it again") from None
