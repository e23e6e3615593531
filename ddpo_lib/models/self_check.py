"""A model's own call on short random sequences, one at a time: what the fast ways are compared with at their first use.

Architectures differ in what they do to embeddings, positions and logits. A fast way that leaves something out would
give wrong log-probabilities without an error, so none is used before it has given those of the model's own call.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from ddpo_lib.models.frozen_linears import plain_linears, rounds_products
from ddpo_lib.models.packing import causal_model, window_of

LENGTHS = ((6, 5), (6, 3), (1, 4), (3, 7))  # tokens of prompt and response; the first two prompts are equal
WIDEST = 4200  # tokens of the longest sequence that is tried; wider windows are not exceeded
BEYOND = 8  # tokens by which the longest sequence exceeds a window
CLOSE = 1e-4  # nats per token in float32, for log-probabilities of up to 1; more in proportion to larger ones
CLOSE_IN_HALF = 0.03  # the same in bfloat16 and float16; bfloat16 moves those of SmolLM2-135M by 0.005
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


def random_batch(model, device) -> Batch:
    """A batch of short random sequences, padded on the right, and where their responses are.

    If a token of the model sees only a window of the tokens before it, two of the sequences exceed the window.

    Args:
        model: tells the vocabulary.
        device: of the tensors.
    """
    lengths = list(LENGTHS)
    config = causal_model(model).config.get_text_config()
    window = window_of(model)
    longest = min(WIDEST, getattr(config, "max_position_embeddings", None) or WIDEST)
    if window is not None and window + BEYOND + LENGTHS[0][1] <= longest:
        lengths[:2] = [(window + BEYOND, response) for _, response in LENGTHS[:2]]
    generator = torch.Generator().manual_seed(0)
    vocabulary = config.vocab_size
    ids = torch.randint(vocabulary, (len(lengths), max(map(sum, lengths))), generator=generator)
    ids[1, : lengths[1][0]] = ids[0, : lengths[0][0]]
    place = torch.arange(ids.shape[1])
    mask = torch.stack([place < sum(both) for both in lengths])
    response = torch.stack([(place >= prompt) & (place < prompt + own) for prompt, own in lengths])
    batch = {"input_ids": ids * mask, "attention_mask": mask.long()}
    return {name: tensor.to(device) for name, tensor in batch.items()}, response.to(device)


@torch.no_grad()
def plain_logps(model, batch: dict[str, torch.Tensor], response: torch.Tensor, trunk=None) -> torch.Tensor:
    """(B,) sums of the responses' log-probabilities by the model's own call, one sequence at a time.

    Raises:
        ValueError: the probability of a token depends on tokens after it.
    """
    sums = []
    with at_rest(model), plain_linears(model), trunk.whole() if trunk else nullcontext():
        for ids, mask, own in zip(batch["input_ids"], batch["attention_mask"].bool(), response, strict=True):
            sums.append(_last_logps(model, ids[mask], int(own.sum())).sum())
        longer = ids[mask]
        whole, part = (_last_logps(model, part, len(part) - 1) for part in (longer, longer[:-2]))
    if gap(model, whole[: len(part)], part) > 0:
        raise ValueError(
            f"{type(causal_model(model)).__name__}: the probability of a token depends on the tokens after it, so "
            "responses have no log-probability; take a causal language model"
        )
    return torch.stack(sums)


def _last_logps(model, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """(tokens,) log-probabilities of the last tokens of a sequence."""
    takes = inspect.signature(type(causal_model(model)).forward).parameters
    fewer = {"logits_to_keep": tokens + 1} if "logits_to_keep" in takes else {}
    logits = model(input_ids=ids[None], use_cache=False, **fewer).logits[0, -tokens - 1 : -1].float()
    return logits.log_softmax(dim=-1).gather(-1, ids[-tokens:, None])[:, 0]


def gap(model, found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference in nats between log-probabilities of one token each; 0 if rounding can explain it."""
    close = CLOSE if _is_exact(model) else CLOSE_IN_HALF
    difference = (found - expected).abs()
    wrong = ~(difference <= close * (1 + expected.abs()))  # also NaN
    return difference.max().item() if wrong.any() else 0.0


def _is_exact(model) -> bool:
    kind = next(model.parameters()).device.type
    products = kind != "cuda" or torch.get_float32_matmul_precision() == "highest"
    floats = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    products = products and not rounds_products(model)
    return products and floats <= {torch.float32, torch.float64} and not torch.is_autocast_enabled(kind)


@contextmanager
def at_rest(model) -> Iterator[None]:
    """A context without dropout and other randomness of training."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
