"""A shape and a contender, ours or TRL's own trainer -> losses, real tokens per second, the share of padding,
and the peak of memory; also the seconds that weights add to a step.

DPO's contenders train on the same pairs; each adds one thing to the one before. All deviation weights are 1, so that
DDPO equals DPO by definition and losses can be compared. On a GPU, TRL's own head scores only response tokens, in every
row.
"""

import statistics
import tempfile
from dataclasses import dataclass
from unittest.mock import patch

from benchmarks.gpu_shapes import PADDED, Shape, adapted_model, flops, stories, word_tokenizer
from benchmarks.measure import forget_peak, peak

WEIGHTING = "weighting itself"
WARM = 3  # steps that are not counted: kernels are compiled, and the longest batch comes first


@dataclass(frozen=True)
class Training:
    """A contender: a kind of `training.KINDS` and what it is given besides the shape."""

    kind: str
    loss: str = "dpo"
    attention: str = "sdpa"
    cached: bool = True  # the reference's log-probabilities, computed before the clock starts
    by_length: bool = False
    checkpointing: bool = True


STOCK, AGAIN, OURS = "stock TRL DPO", "stock TRL DPO, attention written out", "+ packed without padding"
TRAININGS = {
    STOCK: Training("stock", cached=False),
    OURS: Training("ours"),
    AGAIN: Training("stock", cached=False, attention="eager"),
    "+ cached reference": Training("stock"),
    "+ weights": Training("ours", attention=PADDED),
    "+ batches of like length": Training("ours", by_length=True),
    "+ no checkpointing": Training("ours", by_length=True, checkpointing=False),
    "stock TRL ORPO": Training("stock orpo"),
    "DORPO": Training("ours", loss="orpo", by_length=True),
    "stock TRL SFT": Training("stock sft"),
    "SFT": Training("ours sft", by_length=True),
}
# each has what the one before it has, and one thing more
LADDER = [STOCK, "+ cached reference", "+ weights", OURS, "+ batches of like length", "+ no checkpointing"]
AGAINST = {  # a row of the table, and what its speed is set against
    **dict.fromkeys(LADDER, STOCK),
    **dict.fromkeys(["stock TRL ORPO", "DORPO"], "stock TRL ORPO"),
    **dict.fromkeys(["stock TRL SFT", "SFT"], "stock TRL SFT"),
}


def train(shape: Shape, training: Training) -> dict:
    """Losses of all steps; real tokens a second, and the share of computed positions that are padding, of those
    counted; FLOPs a real token; bytes at the peak."""
    import torch

    from benchmarks.training import train_clocked

    policy = adapted_model(shape, training.attention)
    positions = []

    def count(module, inputs):
        if torch.is_grad_enabled():  # not for the reference
            positions.append(inputs[0].numel())

    policy.get_base_model().get_input_embeddings().register_forward_pre_hook(count)
    columns, lengths = stories(shape)
    with tempfile.TemporaryDirectory() as folder:
        trainer = built(shape, training, policy, columns, folder)
        positions.clear()
        forget_peak()
        done = train_clocked(trainer, WARM)
    tokens, computed = done.result["tokens"], sum(positions[WARM:])
    return {
        "losses": done.result["losses"],
        "tokens_per_second": tokens / done.result["seconds"],
        "step_seconds": done.result["seconds"] / (shape.steps - WARM),
        "flops_per_token": flops(shape, lengths) / sum(prompt + story for prompt, story in lengths),
        # one prompt for both responses of a pair is computed once where batches are packed
        "padding": max(0.0, 1 - tokens / computed),
        "peak_bytes": peak(done),
    }


def built(shape: Shape, training: Training, policy, columns: dict, folder: str):
    """The trainer of a contender, ready to train."""
    from benchmarks.training import build
    from ddpo_lib.models.models import device

    options = {
        "learning_rate": shape.rate,
        "bf16": True,
        "use_cpu": device() == "cpu",
        "gradient_checkpointing": training.checkpointing,
        "train_sampling_strategy": "group_by_length" if training.by_length else "sequential",
        "dataloader_pin_memory": device() == "cuda",
        "max_length": 2 * shape.prompt + shape.longest,
    }
    rows, batch_size = columns, shape.pairs
    if training.kind.endswith("sft"):
        rows = {
            "prompt": [p for p in columns["prompt"] for _ in range(2)],
            "completion": [s for both in zip(columns["chosen"], columns["rejected"], strict=True) for s in both],
        }
        batch_size = 2 * shape.pairs
    if training.kind == "ours":
        rows = columns | {"weight": [1.0] * len(columns["prompt"])}
        options["loss"] = training.loss
    if training.kind == "stock":
        options["precompute_ref_log_probs"] = training.cached
    # to tell models apart TRL hashes all weights as float32, which for 8B outlasts the training; here they are known.
    # What rounds otherwise does not share the reference's log-probabilities
    with patch("trl.trainer.dpo_trainer.hash_module", lambda module: f"random weights, seed 0, {training.attention}"):
        return build(training.kind, policy, word_tokenizer(shape), rows, folder, batch_size, **options)


def weigh(shape: Shape) -> dict:
    """Seconds that weights add to the loss of a step."""
    import torch

    from benchmarks.training import weighting_seconds
    from ddpo_lib.models.models import device

    with torch.device(device()):
        return {"seconds": statistics.median(weighting_seconds(shape.pairs, calls=500))}
