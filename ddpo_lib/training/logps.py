"""A policy and a batch -> log-probabilities of its responses. Nothing is computed twice, and nothing for padding.

A padded batch is laid out as one row (`packing.py`). The LM head runs only on response tokens (`lm_head.py`). Both are
used only for a model whose own call gives the same log-probabilities (`self_check.py`).
"""

import logging
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models.frozen_linears import products_of
from ddpo_lib.models.lm_head import HeadLogProbs, LogProbs, frozen_head, without_head
from ddpo_lib.models.packing import can_pack, causal_model, pack, refuse_packing, why_padded
from ddpo_lib.models.self_check import at_rest, gap, plain_logps, random_batch

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


Way = Callable[..., Scored]  # (model, batch, response, trunk) -> scores
_WAYS: WeakKeyDictionary = WeakKeyDictionary()  # model -> the way for it, by what else the choice depends on


def with_fused_head(model):
    """Make a model ready for `score_responses` outside a trainer, and return it; TRL's trainers do this themselves."""
    add_fused_lm_head(causal_model(model))
    return model


def score_responses(model, batch: dict, response: torch.Tensor, trunk=None) -> Scored:
    """Log-probability of each row's response.

    At a model's first use, packed rows, then TRL's head on padded batches, then the model's own logits are compared
    with the model's own call on a few short sequences. The first that agrees is used; the log names what is not.

    Args:
        model: a causal language model from a TRL trainer or from `with_fused_head`: plain, with PEFT or wrapped for
            several devices.
        batch: `input_ids` and `attention_mask`, (B, L), padded on the right.
        response: (B, L), true on response tokens, which follow the prompt's.
        trunk: lower layers whose output is stored (`frozen_layers.Trunk`), or None.

    Raises:
        ValueError: a model for which no way agrees with its own call, or, if a trunk is given, packed rows do not; a
            model in which the probability of a token depends on later ones.
    """
    response = response.bool() & batch["attention_mask"].bool()
    return way_for(model, response.device, trunk)(model, batch, response, trunk)


def way_for(model, device, trunk=None) -> Way:
    """The function among `packed_rows`, `padded_batch` and `own_logits` by which `score_responses` scores."""
    ways = _WAYS.setdefault(causal_model(model), {})
    case = (why_padded(model), trunk is None)
    if case not in ways:
        way = _first_that_agrees(model, device, trunk)
        case = (why_padded(model), trunk is None)  # from now on packed rows may be refused
        ways[case] = way
    return ways[case]


def _first_that_agrees(model, device, trunk) -> Way:
    name = type(causal_model(model)).__name__
    batch, response = random_batch(model, device)
    expected = plain_logps(model, batch, response, trunk)
    reason = why_padded(model) or _why_not(packed_rows, model, batch, response, expected, trunk)
    if reason is None:
        return packed_rows
    if can_pack(model):
        refuse_packing(model, reason)
    if trunk is not None:
        raise ValueError(f"{name}: lower layers cannot be kept, since batches are padded: {reason}")
    log.warning("%s: batches are padded: %s", name, reason)
    if (reason := _why_not(padded_batch, model, batch, response, expected)) is None:
        return padded_batch
    log.warning("%s: all logits of a batch are held at once, since TRL's head does not fit: %s", name, reason)
    if (reason := _why_not(own_logits, model, batch, response, expected)) is None:
        return own_logits
    raise ValueError(f"{name}: a padded batch does not give what single sequences give: {reason}")


def _why_not(way: Way, model, batch: dict, response: torch.Tensor, expected: torch.Tensor, trunk=None) -> str | None:
    """Why a way cannot be used for a model: its error, or how far it is from what is expected; None if it can."""
    try:
        with torch.no_grad(), at_rest(model):
            scored = way(model, batch, response, trunk)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the code of some architecture does not take what this way gives it
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    difference = gap(model, scored.logps / scored.counts, expected / scored.counts)
    return f"log-probabilities differ from the model's own by {difference:.2g} nats per token" if difference else None


def packed_rows(model, batch: dict, response: torch.Tensor, trunk) -> Scored:
    """Scores from one row without padding, in which each prompt stands once."""
    can_pack(model)
    packed = pack(batch["input_ids"], batch["attention_mask"], response)
    if trunk is not None:
        packed.below = trunk(packed)
    inputs = packed.inputs()
    if _use_triton(packed.tokens.device):  # TRL's fused head then gets only these tokens, and never holds all logits
        labels = torch.full_like(packed.tokens, -100)
        labels[0, packed.predicting] = packed.predicted
        outputs = model(**inputs, shift_labels=labels, fused_lm_head=True)
        return _fused(outputs, lambda values: values[0, packed.predicting], packed.row, len(response))
    inputs["logits_to_keep"] = packed.predicting
    head = frozen_head(model, inputs)
    if head is None:
        logits = model(**inputs).logits.squeeze(0).float()
        logps, *statistics = LogProbs.apply(logits, packed.predicted)
    else:
        states = without_head(model, head, inputs).squeeze(0)
        products = products_of(head, states.requires_grad)
        logps, *statistics = HeadLogProbs.apply(states, head.weight, packed.predicted, *products)
    return _summed(logps, packed.row, len(response), *statistics)


def padded_batch(model, batch: dict, response: torch.Tensor, _) -> Scored:
    """Scores from a padded batch by TRL's head, which holds a part of the logits at a time."""
    labels = batch["input_ids"].masked_fill(~response, -100)
    outputs = model(**_inputs(batch), labels=labels, fused_lm_head=True)
    predicted = response[:, 1:]  # nothing predicts a first token
    width = predicted.shape[1]  # prompt-learning adapters put more tokens before it
    return _fused(outputs, lambda values: values[:, -width:][predicted], predicted.nonzero()[:, 0], len(response))


def own_logits(model, batch: dict, response: torch.Tensor, _) -> Scored:
    """Scores from a padded batch by the model's own logits, all of which are held at once."""
    predicted = response[:, 1:]
    logits = model(**_inputs(batch)).logits[:, -predicted.shape[1] - 1 : -1][predicted].float()
    logps, *statistics = LogProbs.apply(logits, batch["input_ids"][:, 1:][predicted])
    return _summed(logps, predicted.nonzero()[:, 0], len(response), *statistics)


def _inputs(batch: dict) -> dict:
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}


def _fused(outputs, at: Callable, row: torch.Tensor, rows: int) -> Scored:
    """Scores from the outputs of TRL's fused head; `at` selects the response tokens."""
    parts = (outputs.entropy, outputs.mean_logits, outputs.is_top1)
    statistics = (None if part is None else at(part).detach() for part in parts)
    return _summed(at(outputs.log_probs).float(), row, rows, *statistics)


def _summed(logps: torch.Tensor, row: torch.Tensor, rows: int, *statistics) -> Scored:
    sums = torch.zeros(rows, device=logps.device).index_add(0, row, logps)
    return Scored(sums, row.bincount(minlength=rows), row, *statistics)
