"""A policy and a batch -> log-probabilities of its responses. Nothing is computed twice, and nothing for padding.

A padded batch is laid out as one row (`packing.py`). The LM head runs only on response tokens (`lm_head.py`).
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models.frozen_linears import products_of
from ddpo_lib.models.lm_head import HeadLogProbs, LogProbs, frozen_head, without_head
from ddpo_lib.models.packing import NotToldError, Packed, can_pack, causal_model, pack

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """A model's scores for the B responses of a batch, and for their R tokens.

    Attributes:
        logps: (B,) float32 sums of log-probabilities in nats, with their gradient.
        counts: (B,) number of tokens that were predicted.
        row: (R,) the response that a token belongs to.
        entropy, mean_logits, top1: (R,) for the distribution at a token: its entropy in nats, its mean logit, and
            whether the token is the most probable one. They have no gradient. None if TRL's head does not give them.
    """

    logps: torch.Tensor
    counts: torch.Tensor
    row: torch.Tensor
    entropy: torch.Tensor | None
    mean_logits: torch.Tensor | None
    top1: torch.Tensor | None


def with_fused_head(model):
    """Make a model ready for `score_responses` outside a trainer, and return it; TRL's trainers do this themselves."""
    add_fused_lm_head(causal_model(model))
    return model


def score_responses(model, batch: dict, response: torch.Tensor, trunk=None) -> Scored:
    """Log-probability of each row's response.

    Args:
        model: a causal language model from a TRL trainer or from `with_fused_head`: plain, with PEFT or wrapped for
            several devices.
        batch: `input_ids` and `attention_mask`, (B, L), padded on the right.
        response: (B, L), true on response tokens, which follow the prompt's.
        trunk: lower layers whose output is stored (`frozen_layers.Trunk`), or None.

    Raises:
        NotToldError: a trunk is given, and the model does not pass the layout of a packed batch on to its attention.
    """
    response = response.bool() & batch["attention_mask"].bool()
    if can_pack(model):
        packed = pack(batch["input_ids"], batch["attention_mask"], response)
        try:
            return _score_packed(model, packed, len(response), trunk)
        except NotToldError:
            if trunk is not None:
                raise
            log.warning("%s cannot run packed batches; padded ones are used", type(causal_model(model)).__name__)
            causal_model(model).set_attn_implementation("eager")
    labels = batch["input_ids"].masked_fill(~response, -100)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    outputs = model(**inputs, labels=labels, fused_lm_head=True, use_cache=False)
    predicted = response[:, 1:]  # nothing predicts a first token
    width = predicted.shape[1]  # prompt-learning adapters put more tokens before it
    return _fused(outputs, lambda values: values[:, -width:][predicted], predicted.nonzero()[:, 0], len(response))


def _score_packed(model, packed: Packed, rows: int, trunk) -> Scored:
    inputs = packed.inputs()
    if trunk is not None:
        inputs["inputs_embeds"] = trunk(packed)
        del inputs["input_ids"]
    if _use_triton(packed.tokens.device):  # TRL's fused head then gets only these tokens, and never holds all logits
        labels = torch.full_like(packed.tokens, -100)
        labels[0, packed.predicting] = packed.predicted
        outputs = model(**inputs, shift_labels=labels, fused_lm_head=True)
        return _fused(outputs, lambda values: values[0, packed.predicting], packed.row, rows)
    inputs["logits_to_keep"] = packed.predicting
    head = frozen_head(model, inputs)
    if head is None:
        logits = model(**inputs).logits.squeeze(0).float()
        logps, *statistics = LogProbs.apply(logits, packed.predicted)
    else:
        states = without_head(model, head, inputs).squeeze(0)
        logps, *statistics = HeadLogProbs.apply(states, head.weight, packed.predicted, *products_of(head))
    return _summed(logps, packed.row, rows, *statistics)


def _fused(outputs, at: Callable, row: torch.Tensor, rows: int) -> Scored:
    """Scores from the outputs of TRL's fused head; `at` selects the response tokens."""
    parts = (outputs.entropy, outputs.mean_logits, outputs.is_top1)
    statistics = (None if part is None else at(part).detach() for part in parts)
    return _summed(at(outputs.log_probs).float(), row, rows, *statistics)


def _summed(logps: torch.Tensor, row: torch.Tensor, rows: int, *statistics) -> Scored:
    sums = torch.zeros(rows, device=logps.device).index_add(0, row, logps)
    return Scored(sums, row.bincount(minlength=rows), row, *statistics)
