"""Logits, or states under a frozen LM head -> log-probabilities of tokens, a block of logits at a time."""

from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ddpo_lib.models.packing import causal_model

LOGITS = 64 * 49_152  # logits at once: 12 MB, which fit in a cache, and for which glibc asks for no new pages
FEWEST = 32  # tokens of a block whatever the vocabulary, since products of fewer rows are slow
_TRIED: WeakKeyDictionary = WeakKeyDictionary()  # model -> whether the head is all that makes its logits from states


def frozen_head(model, inputs: dict) -> nn.Linear | None:
    """The model's LM head if `HeadLogProbs` can take its place: a frozen float32 matrix on the CPU, and nothing else.

    Whatever the model does to logits after the head has to be a multiplication by one number. The first call for a
    model tries this on a few tokens.
    """
    causal = causal_model(model)
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


def without_head(model, head: nn.Linear, inputs: dict) -> torch.Tensor:
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


class LogProbs(torch.autograd.Function):
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


class HeadLogProbs(torch.autograd.Function):
    """As `LogProbs`, for (R, d) states under a frozen (V, d) head: logits exist for a block of tokens at a time.

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
