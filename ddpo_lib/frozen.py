"""Frozen linear layers of a policy on the CPU: run in oneDNN, with their weights laid out once, where that is faster.

An adapter's step multiplies mostly by weights that never change: forward as they are, backward transposed. torch's x86
builds hand such products to MKL, which leaves AVX-512 unused on some processors: oneDNN is twice as fast there, and no
faster elsewhere. So both are timed, once for each size, and the faster one is used. Results agree to float rounding.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

Product = Callable[[torch.Tensor], torch.Tensor]  # (..., in) -> (..., out)

ROWS = 128  # tokens of a timed product; a step has some hundreds
SIDE = 2048  # of a timed weight, at most: a vocabulary's is as fast, and takes too long
ROUNDS = 7  # the best counts
GAIN = 1.25  # least ratio of times that counts: closer ones could change places from run to run, and rounding with them


@contextmanager
def fast_frozen_linears(*models: nn.Module) -> Iterator[None]:
    """Within it, frozen float32 linear layers on the CPU use the faster product; names and weights stay as they are.

    A layer whose weight trains, or which is on another device or of another dtype, runs as before. Merge adapters
    outside: an addition to `weight.data` is not noticed within.
    """
    layers = [layer for model in models for layer in model.modules() if type(layer) is nn.Linear]
    layers = [layer for layer in layers if _is_frozen(layer)]
    for layer in layers:
        layer.forward = _Forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def fast_product(weight: torch.Tensor) -> Product | None:
    """x -> x @ weight.T in oneDNN, for a float32 weight on the CPU, (out, in); None where `F.linear` is as fast.

    The function keeps a copy of the weight, in oneDNN's layout. The weight may be a transposed view.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return None
    shape = tuple(min(size, SIDE) for size in weight.shape)
    return _in_onednn(weight) if _gains(shape, weight.is_contiguous(), torch.get_num_threads()) else None


class _Forward:
    """A linear layer's forward. Products are made at the first call that needs them, and again for other weights."""

    def __init__(self, layer: nn.Linear):
        self._layer = layer
        self._made_for = None
        self._products: dict[bool, Product | None] = {}  # forward: False, backward: True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._layer.weight, self._layer.bias
        usable = x.dtype == torch.float32 and x.numel() and not torch.is_autocast_enabled("cpu")
        if not usable or not _is_frozen(self._layer):
            return F.linear(x, weight, bias)
        if self._made_for != (weight.data_ptr(), weight._version):
            self._made_for, self._products = (weight.data_ptr(), weight._version), {}
        forward = self._product(weight, transposed=False)
        backward = self._product(weight, transposed=True) if torch.is_grad_enabled() and x.requires_grad else None
        if forward is None and backward is None:
            return F.linear(x, weight, bias)
        y = _Linear.apply(x, weight, forward, backward)
        return y if bias is None else y + bias

    def _product(self, weight: torch.Tensor, transposed: bool) -> Product | None:
        if transposed not in self._products:
            weight = weight.detach()
            self._products[transposed] = fast_product(weight.t() if transposed else weight)
        return self._products[transposed]


class _Linear(torch.autograd.Function):
    """x @ weight.T with a gradient for x alone; where a product is None, by F.linear."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, forward: Product | None, backward: Product | None):
        ctx.save_for_backward(weight)
        ctx.product = backward
        return forward(x) if forward else F.linear(x, weight)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        (weight,) = ctx.saved_tensors
        gradient = ctx.product(gradient) if ctx.product else F.linear(gradient, weight.t())
        return gradient, None, None, None


def _is_frozen(layer: nn.Linear) -> bool:
    weight = layer.weight
    trains = weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
    return not trains and weight.device.type == "cpu" and weight.dtype == torch.float32


def _in_onednn(weight: torch.Tensor) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)

    def product(x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, None, "none", [], "")

    return product


@cache
@torch.no_grad()
def _gains(shape: tuple[int, int], contiguous: bool, threads: int) -> bool:
    """Whether oneDNN takes less time than F.linear by `GAIN`, for weights of a shape, as they are or transposed."""
    weight = torch.ones(shape) if contiguous else torch.ones(shape[::-1]).t()
    x = torch.ones(ROWS, shape[1])
    ways = partial(F.linear, weight=weight), _in_onednn(weight)
    seconds = [[_seconds(way, x) for way in ways] for _ in range(ROUNDS)]
    plain, packed = (min(column) for column in zip(*seconds, strict=True))
    return plain > GAIN * packed


def _seconds(way: Product, x: torch.Tensor) -> float:
    start = time.perf_counter()
    way(x)
    return time.perf_counter() - start
