"""A policy and a batch -> log-probabilities of its responses. Nothing is computed twice, and nothing for padding.

A padded batch is laid out as one row: each distinct prompt once, followed by its responses. A response attends to its
prompt and to itself. A variable-length kernel does this for bfloat16 or float16 on CUDA; elsewhere attention runs
sequence by sequence. The LM head runs only on response tokens.
"""

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models.frozen_linears import products_of

log = logging.getLogger(__name__)

PACKED_ATTENTION = "sdpa_packed"  # the name by which transformers finds the attention below
LOGITS = 64 * 49_152  # logits at once: 12 MB, which fit in a cache, and for which glibc asks for no new pages
FEWEST = 32  # tokens of a block whatever the vocabulary, since products of fewer rows are slow
_TRIED: WeakKeyDictionary = WeakKeyDictionary()  # model -> whether the head is all that makes its logits from states
_GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters  # torch 2.11 has no such option


class NotToldError(ValueError):
    """The model does not pass the arguments of its call on to its attention."""


@dataclass
class Packed:
    """Sequences without padding in one row of T tokens: for each distinct prompt its tokens, then its responses.

    The piece of a response begins with the prompt's last token, which predicts the response's first token. The piece of
    the prompt does not contain that token.

    Attributes:
        tokens, positions: (1, T) token ids, and their positions in their sequences.
        predicting: (R,) places in the row whose next token belongs to a response, in the order of the batch's rows.
        predicted: (R,) these next tokens.
        row: (R,) the row of the batch that each of them belongs to.
        pieces: triples (context, start, stop). The places from start to stop of the row continue the sequence whose
            first places are `context` = (start, stop); a prompt has an empty context.
        queries: as `pieces`, but a prompt and its first response, which are adjacent, form one piece.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    predicting: torch.Tensor
    predicted: torch.Tensor
    row: torch.Tensor
    pieces: list[tuple[tuple[int, int], int, int]]
    queries: list[tuple[tuple[int, int], int, int]]

    @cached_property
    def spans(self) -> tuple:
        """For a variable-length kernel: cumulative lengths of queries and keys, their maxima, and the keys' places."""
        own = [stop - start for _, start, stop in self.queries]
        seen = [high - low + n for ((low, high), _, _), n in zip(self.queries, own, strict=True)]
        places = [i for (low, high), start, stop in self.queries for i in (*range(low, high), *range(start, stop))]
        device = self.tokens.device
        ends = (F.pad(torch.tensor(n, device=device).cumsum(0), (1, 0)).to(torch.int32) for n in (own, seen))
        return *ends, max(own), max(seen), torch.tensor(places, device=device)

    def inputs(self) -> dict:
        """Arguments for the model. The mask of one cell tells transformers that it has nothing to mask."""
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.tokens.device)
        inputs = {"input_ids": self.tokens, "position_ids": self.positions, "attention_mask": mask}
        return inputs | {"packed": self, "use_cache": False}


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
    add_fused_lm_head(_causal_model(model))
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
            log.warning("%s cannot run packed batches; padded ones are used", type(_causal_model(model)).__name__)
            _causal_model(model).set_attn_implementation("eager")
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
    head = _frozen_head(model, inputs)
    if head is None:
        logits = model(**inputs).logits.squeeze(0).float()
        logps, *statistics = _LogProbs.apply(logits, packed.predicted)
    else:
        states = _without_head(model, head, inputs).squeeze(0)
        logps, *statistics = _HeadLogProbs.apply(states, head.weight, packed.predicted, *products_of(head))
    return _summed(logps, packed.row, rows, *statistics)


def _frozen_head(model, inputs: dict) -> nn.Linear | None:
    """The model's LM head if `_HeadLogProbs` can take its place: a frozen float32 matrix on the CPU, and nothing else.

    Whatever the model does to logits after the head has to be a multiplication by one number. The first call for a
    model tries this on a few tokens.
    """
    causal = _causal_model(model)
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None or torch.is_autocast_enabled("cpu"):
        return None
    weight = head.weight
    whole = weight.shape == (head.out_features, head.in_features)  # not divided among processes
    if weight.requires_grad or weight.device.type != "cpu" or weight.dtype != torch.float32 or not whole:
        return None
    if causal not in _TRIED:
        _TRIED[causal] = _only_multiplies(model, head, inputs)
    return head if _TRIED[causal] else None


@torch.no_grad()
def _only_multiplies(model, head: nn.Linear, inputs: dict) -> bool:
    """Whether the model's logits are the head's output times one number."""
    outputs = []
    hook = head.register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
    try:
        logits = model(**inputs | {"logits_to_keep": inputs["logits_to_keep"][:4]}).logits
    finally:
        hook.remove()
    if len(outputs) != 1 or outputs[0].shape != logits.shape:
        return False
    factor = (logits * outputs[0]).sum() / outputs[0].square().sum()
    return torch.allclose(logits, factor * outputs[0], rtol=1e-4, atol=1e-4)


def _without_head(model, head: nn.Linear, inputs: dict) -> torch.Tensor:
    """What the model's head would be given, in the place of logits."""
    own = vars(head).get("forward")
    head.forward = lambda states: states
    try:
        return model(**inputs).logits
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


class _LogProbs(torch.autograd.Function):
    """(R, V) logits and (R,) tokens -> log-probabilities, entropy, mean logit, and whether a token is the likeliest.

    It makes only one array of the size of the logits: probabilities, which `backward` turns into the gradient.
    """

    @staticmethod
    def forward(ctx, logits: torch.Tensor, tokens: torch.Tensor):
        kept = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        parts = []
        for rows in _blocks(len(logits), logits.shape[1]):
            _, *columns = _distribution(logits[rows], tokens[rows], None if kept is None else kept[rows])
            parts.append(columns)
        columns = [torch.cat(column)[:, 0] for column in zip(*parts, strict=True)]
        ctx.save_for_backward(kept, tokens, columns.pop())
        ctx.mark_non_differentiable(*columns[1:])
        return tuple(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor, *_):
        shares, tokens, whole = ctx.saved_tensors
        # in place: autograd raises an error if the saved array is used again
        shares.mul_((-gradient / whole)[:, None]).scatter_add_(1, tokens[:, None], gradient[:, None])
        return shares, None


class _HeadLogProbs(torch.autograd.Function):
    """As `_LogProbs`, for (R, d) states under a frozen (V, d) head: logits exist for a block of tokens at a time.

    The gradient of a token's log-probability for its state is the token's row of the head minus the mean row under the
    distribution. The forward pass computes it while the block's probabilities are in the cache.

    Args:
        forward, backward: products with the head and with its transpose, from `products_of`.
    """

    @staticmethod
    def forward(ctx, states: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, forward, backward):
        slopes = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        parts = []
        for rows in _blocks(len(states), len(weight)):
            shares, *columns = _distribution(forward(states[rows]), tokens[rows])
            if slopes is not None:
                torch.sub(weight[tokens[rows]], backward(shares).div_(columns[-1]), out=slopes[rows])
            parts.append(columns[:-1])
        ctx.save_for_backward(slopes)
        columns = [torch.cat(column)[:, 0] for column in zip(*parts, strict=True)]
        ctx.mark_non_differentiable(*columns[1:])
        return tuple(columns)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor, *_):
        (slopes,) = ctx.saved_tensors
        return gradient[:, None] * slopes, None, None, None, None


def _blocks(rows: int, width: int) -> list[slice]:
    """Slices of (rows, width) logits, of about LOGITS numbers; one empty slice if there are no rows."""
    step = max(FEWEST, LOGITS // width)
    return [slice(start, start + step) for start in range(0, max(rows, 1), step)]


def _distribution(logits: torch.Tensor, tokens: torch.Tensor, out: torch.Tensor | None = None) -> tuple:
    """(r, V) unnormalised probabilities, in `out` if given; log-probability, entropy, mean logit, top 1, their sum.

    The last five are (r, 1).
    """
    largest = logits.amax(dim=-1, keepdim=True)
    shares = torch.sub(logits, largest, out=out).exp_()
    # on the CPU log_softmax has a bias of 1e-5 over a vocabulary; the logarithm of a sum has none
    whole = shares.sum(dim=-1, keepdim=True)
    total = largest + whole.log()
    logit = logits.gather(1, tokens[:, None])
    expected = torch.bmm(shares[:, None], logits[:, :, None])[:, 0] / whole
    return shares, logit - total, total - expected, logits.mean(dim=-1, keepdim=True), logit == largest, whole


def _fused(outputs, at: Callable, row: torch.Tensor, rows: int) -> Scored:
    """Scores from the outputs of TRL's fused head; `at` selects the response tokens."""
    parts = (outputs.entropy, outputs.mean_logits, outputs.is_top1)
    statistics = (None if part is None else at(part).detach() for part in parts)
    return _summed(at(outputs.log_probs).float(), row, rows, *statistics)


def _summed(logps: torch.Tensor, row: torch.Tensor, rows: int, *statistics) -> Scored:
    sums = torch.zeros(rows, device=logps.device).index_add(0, row, logps)
    return Scored(sums, row.bincount(minlength=rows), row, *statistics)


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, response: torch.Tensor) -> Packed:
    """Lay out (B, L) padded tokens as one row, in which responses to equal prompts share one prompt."""
    lengths = attention_mask.sum(dim=1).tolist()
    prompt_lengths = (attention_mask.sum(dim=1) - response.sum(dim=1)).tolist()
    rows_of: dict[tuple, list[int]] = {}
    sequences = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
    for row, (sequence, prompt) in enumerate(zip(sequences, prompt_lengths, strict=True)):
        rows_of.setdefault(tuple(sequence[:prompt]), []).append(row)

    tokens, positions, pieces, queries = [], [], [], []
    places: list[range] = [range(0)] * len(sequences)
    for prompt, rows in rows_of.items():
        shared = max(len(prompt) - 1, 0)
        start = len(tokens)
        context = (start, start + shared)
        if shared:
            tokens += prompt[:shared]
            positions += range(shared)
            pieces.append(((start, start), *context))
        for row in rows:
            begin = len(tokens)
            own = sequences[row][shared:]
            tokens += own
            positions += range(shared, shared + len(own))
            pieces.append((context, begin, len(tokens)))
            first = begin == start + shared
            queries.append(((start, start), start, len(tokens)) if first else (context, begin, len(tokens)))
            places[row] = range(begin + max(len(prompt), 1) - 1 - shared, len(tokens) - 1)

    predicting = [place for part in places for place in part]
    device = input_ids.device

    def tensor(values):
        return torch.tensor(values, dtype=torch.long, device=device)

    return Packed(
        tokens=tensor([tokens]),
        positions=tensor([positions]),
        predicting=tensor(predicting),
        predicted=tensor([tokens[place + 1] for place in predicting]),
        row=tensor([row for row, part in enumerate(places) for _ in part]),
        pieces=pieces,
        queries=queries,
    )


def packed_attention(
    module, query, key, value, attention_mask, *, packed: Packed | None = None, dropout: float = 0.0, **kwargs
):
    """Attention within each sequence of a packed row; torch's own attention for an ordinary batch.

    Args:
        query, key, value: (1, H, T, d), with fewer heads in key and value for grouped-query attention.
        packed: the layout; None for an ordinary batch.
        dropout: of attention weights, 0 outside training.
        kwargs: further options, such as `scaling`.

    Returns:
        (1, T, H, d), and None for the attention weights.

    Raises:
        NotToldError: a packed batch comes without its layout.
    """
    if packed is None:
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:  # the mask of one cell
            raise NotToldError(
                f"{type(module).__name__} is not told where the sequences of a packed batch begin; give no trunk"
            )
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **kwargs)
    scale = kwargs.get("scaling")
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        return _attend_at_once(query, key, value, packed, scale), None
    return _attend_in_turn(query, key, value, packed, scale, dropout), None


def _attend_in_turn(query, key, value, packed, scale, dropout):
    # each tensor is split once; the gradient of a separate slice would be a whole row of zeros for every slice
    starts, lengths = zip(*((start, stop - start) for _, start, stop in packed.pieces), strict=True)
    keys, values = (dict(zip(starts, x.split(lengths, dim=2), strict=True)) for x in (key, value))
    queries = query.split([stop - start for _, start, stop in packed.queries], dim=2)
    parts = []
    for q, ((low, high), start, stop) in zip(queries, packed.queries, strict=True):
        seen = [at for at in starts if low <= at < high or start <= at < stop]
        k, v = (torch.cat([x[at] for at in seen], dim=2) for x in (keys, values))
        mask = None
        if high > low:
            mask = torch.ones(stop - start, k.shape[2], dtype=torch.bool, device=k.device).tril(high - low)
        options = {"attn_mask": mask, "is_causal": mask is None, "dropout_p": dropout, "scale": scale}
        parts.append(F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options))
    return torch.cat(parts, dim=2).transpose(1, 2)


def _attend_at_once(query, key, value, packed, scale):
    *spans, places = packed.spans
    k, v = (x[0].index_select(1, places).transpose(0, 1) for x in (key, value))
    # causal from the right: the last query of a piece sees the last key
    options = {"scale": scale, "window_size": (-1, 0)}
    if _GROUPED:
        options["enable_gqa"] = True
    else:  # the kernel does not promise to share key and value heads among queries
        k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return varlen_attn(query[0].transpose(0, 1), k, v, *spans, **options)[None]


def can_pack(model) -> bool:
    """Whether the model's attention can use the layout of a packed batch; if so, it is set to use it from now on."""
    configs = getattr(extract_model_from_parallel(model, recursive=True), "peft_config", {}).values()
    if any(config.is_prompt_learning for config in configs):
        return False  # virtual tokens come before the first one
    model = _causal_model(model)
    config = model.config.get_text_config()
    if config._attn_implementation == PACKED_ATTENTION:
        return True
    whole = getattr(config, "sliding_window", None) is None and getattr(config, "attn_logit_softcapping", None) is None
    plain = {"full_attention"}.issuperset(getattr(config, "layer_types", None) or ())
    placed = "position_ids" in inspect.signature(type(model).forward).parameters
    settable = config._attn_implementation == "sdpa" and model._can_set_attn_implementation()
    if not (whole and plain and placed and settable):
        return False
    model.set_attn_implementation(PACKED_ATTENTION)
    return True


def _causal_model(model):
    """The transformers model without the wrappers for several devices and for PEFT."""
    model = extract_model_from_parallel(model, recursive=True)
    return model.get_base_model() if isinstance(model, PeftModel) else model


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
