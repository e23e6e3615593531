"""Sequences without padding in one row: their layout, and attention within each of them.

Each distinct prompt stands once, followed by its responses. A response attends to its prompt and to itself. A
variable-length kernel does this for bfloat16 or float16 on CUDA; elsewhere attention runs sequence by sequence.
"""

import inspect
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PACKED_ATTENTION = "sdpa_packed"  # the name by which transformers finds the attention below
_REFUSED: WeakKeyDictionary = WeakKeyDictionary()  # model -> why its batches are padded, found at its first use
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
        below: (1, T, d) output of layers that were taken out of the model (`frozen_layers.Trunk`), or None.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    predicting: torch.Tensor
    predicted: torch.Tensor
    row: torch.Tensor
    pieces: list[tuple[tuple[int, int], int, int]]
    queries: list[tuple[tuple[int, int], int, int]]
    below: torch.Tensor | None = None

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
        kwargs: further options; of these `scaling` and `sliding_window`, the number of tokens that a token sees
            including itself, have an effect.

    Returns:
        (1, T, H, d), and None for the attention weights.

    Raises:
        NotToldError: a packed batch comes without its layout.
    """
    if packed is None:
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:  # the mask of one cell
            raise NotToldError(f"{type(module).__name__} is not told where the sequences of a packed batch begin")
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **kwargs)
    options = {"scale": kwargs.get("scaling"), "window": kwargs.get("sliding_window")}
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        return _attend_at_once(query, key, value, packed, **options), None
    return _attend_in_turn(query, key, value, packed, dropout=dropout, **options), None


def _attend_in_turn(query, key, value, packed, *, scale, window, dropout):
    # each tensor is split once; the gradient of a separate slice would be a whole row of zeros for every slice
    starts, lengths = zip(*((start, stop - start) for _, start, stop in packed.pieces), strict=True)
    keys, values = (dict(zip(starts, x.split(lengths, dim=2), strict=True)) for x in (key, value))
    queries = query.split([stop - start for _, start, stop in packed.queries], dim=2)
    parts = []
    for q, ((low, high), start, stop) in zip(queries, packed.queries, strict=True):
        seen = [at for at in starts if low <= at < high or start <= at < stop]
        k, v = (torch.cat([x[at] for at in seen], dim=2) for x in (keys, values))
        mask = _mask(stop - start, k.shape[2], window, k.device)
        options = {"attn_mask": mask, "is_causal": mask is None, "dropout_p": dropout, "scale": scale}
        parts.append(F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def _mask(queries: int, keys: int, window: int | None, device) -> torch.Tensor | None:
    """(queries, keys), true where a query sees a key; the last query sees the last key. None: causal, nothing else."""
    narrow = window is not None and window < keys
    if queries == keys and not narrow:
        return None
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    mask = seen.tril(keys - queries)
    return mask & seen.triu(keys - queries - window + 1) if narrow else mask


def _attend_at_once(query, key, value, packed, *, scale, window):
    *spans, places = packed.spans
    k, v = (x[0].index_select(1, places).transpose(0, 1) for x in (key, value))
    # causal from the right: the last query of a piece sees the last key
    options = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    if _GROUPED:
        options["enable_gqa"] = True
    else:  # the kernel does not promise to share key and value heads among queries
        k, v = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return varlen_attn(query[0].transpose(0, 1), k, v, *spans, **options)[None]


def why_padded(model) -> str | None:
    """Why batches of a model have to be padded; None if its attention can use the layout of a packed batch."""
    configs = getattr(extract_model_from_parallel(model, recursive=True), "peft_config", {}).values()
    if any(config.is_prompt_learning for config in configs):
        return "learned virtual tokens come before the first token"
    model = causal_model(model)
    if model in _REFUSED:
        return _REFUSED[model]
    config = model.config.get_text_config()
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        return f"it has layers of the type {', '.join(sorted(others))}"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "it takes no `position_ids`"
    if config._attn_implementation not in ("sdpa", PACKED_ATTENTION):
        return f'its attention is "{config._attn_implementation}", not "sdpa"'
    return None if model._can_set_attn_implementation() else "its attention cannot be replaced"


def can_pack(model) -> bool:
    """Whether the model's attention can use the layout of a packed batch; if so, it is set to use it from now on."""
    if why_padded(model) is not None:
        return False
    model = causal_model(model)
    if model.config.get_text_config()._attn_implementation != PACKED_ATTENTION:
        model.set_attn_implementation(PACKED_ATTENTION)
    return True


def refuse_packing(model, reason: str) -> None:
    """Give a model its own attention back. `why_padded` tells the reason from now on."""
    model = causal_model(model)
    _REFUSED[model] = reason
    model.set_attn_implementation("sdpa")


def window_of(model) -> int | None:
    """The smallest number of tokens that a token can see in some layer of the model; None: all before it."""
    return getattr(causal_model(model).config.get_text_config(), "sliding_window", None)


def causal_model(model):
    """The transformers model without the wrappers for several devices and for PEFT."""
    model = extract_model_from_parallel(model, recursive=True)
    return model.get_base_model() if isinstance(model, PeftModel) else model


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
