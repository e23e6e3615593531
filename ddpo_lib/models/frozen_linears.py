"""Frozen linear layers on the CPU: run in oneDNN, with weights prepared once, where that is faster.

A training step of an adapter multiplies mostly by weights that never change: as they are in the forward pass, and
transposed in the backward pass. Sampling and encoding multiply by nothing else. torch's x86 builds call MKL for such
products, which lays the weight out anew at each call, and which does not use AVX-512 on AMD's processors. oneDNN lays
a weight out once. With it, an adapter's layer runs as one function that adds to the output of the base layer, where
PEFT writes three arrays. Results agree up to float rounding.

On request these products are in bfloat16, about twice as fast on processors with instructions for it. The weight is
rounded once, the input at each call; sums within a product are float32, and its output is rounded before it becomes
float32 again. Everything between products stays float32: the residual stream, norms, attention, LoRA and the loss. So
does the forward product of the LM head: logits reach 32, where bfloat16 has steps of 1/8.
"""

import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ddpo_lib.base.errors import InputError

Product = Callable[[torch.Tensor], torch.Tensor]  # (..., in) -> (..., out)

log = logging.getLogger(__name__)

TRIED = 8  # rows with which a product is compared with torch's before its first use
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # how close it must be, relative to the largest number
ROWS = 128  # tokens for which oneDNN chooses its layout; measured, it is as fast from 8 tokens on


@contextmanager
def fast_frozen_linears(*models: nn.Module, bfloat16: bool = False) -> Iterator[None]:
    """A context in which frozen float32 linear layers on the CPU, and LoRA on them, run faster.

    Layers that another such context has made faster already are left to it.

    Args:
        models: what contains the layers.
        bfloat16: their products are in bfloat16, see above.

    Names and weights stay the same. A layer runs as before if its weight is trained, or if it is on another device or
    of another dtype. So does an adapter with dropout, a bias or a variant. Merge adapters outside this context: it does
    not notice an addition to `weight.data`.

    Raises:
        InputError: bfloat16 is asked of a processor without such instructions, or of models without such a layer.
    """
    from peft.tuners.lora import Linear  # most processes that import this module run no adapter

    if bfloat16:
        check_bfloat16(*models)
    layers = [layer for model in models for layer in model.modules() if "forward" not in vars(layer)]
    heads = _heads(*models)
    frozen = {layer: _Frozen(layer, False, bfloat16, layer in heads) for layer in layers if _can_be_fast(layer)}
    adapted = [layer for layer in layers if type(layer) is Linear and layer.base_layer in frozen]
    forwards = frozen | {layer: _Adapted(layer, frozen[layer.base_layer]) for layer in adapted}
    for layer, forward in forwards.items():
        layer.forward = forward
    try:
        yield
    finally:
        for layer in forwards:
            del layer.forward


def use_onednn(model: nn.Module, *, bfloat16: bool = False) -> nn.Module:
    """Freeze a model, and run its float32 linear layers on the CPU in oneDNN from now on; gives the model back.

    For inference, where products have few rows, so that it costs MKL most to lay the weight out at each call. Layers on
    another device or of another dtype run as before. `bfloat16` and its error: as in `fast_frozen_linears`.
    """
    model.requires_grad_(False)
    if bfloat16:
        check_bfloat16(model)
    if _has_onednn():
        heads = _heads(model)
        for layer in filter(_can_be_fast, model.modules()):
            layer.forward = _Frozen(layer, True, bfloat16, layer in heads)
    return model


@contextmanager
def plain_linears(*models: nn.Module) -> Iterator[None]:
    """A context in which the layers that this module makes faster run as torch and PEFT run them."""
    layers = [layer for model in models for layer in model.modules()]
    fast = {layer: layer.forward for layer in layers if isinstance(vars(layer).get("forward"), _Frozen | _Adapted)}
    for layer in fast:
        del layer.forward
    try:
        yield
    finally:
        for layer, forward in fast.items():
            layer.forward = forward


def check_bfloat16(*models: nn.Module) -> None:
    """Whether products with frozen weights can be in bfloat16.

    Raises:
        InputError: the processor has no instructions for it, or no layer is a frozen float32 one on the CPU.
    """
    if not (_has_onednn() and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())):
        raise InputError(
            "bfloat16_products: this processor has neither AVX512_BF16 nor AMX, or torch was built without oneDNN; "
            "leave the option out"
        )
    if not any(_can_be_fast(layer) for model in models for layer in model.modules()):
        raise InputError(
            "bfloat16_products: applies to frozen float32 weights on the CPU, and there are none; train an adapter "
            "(lora_r) on a float32 model on the CPU, or leave the option out. On a GPU, use dtype: bfloat16"
        )


def rounds_products(model: nn.Module) -> bool:
    """Whether some product of the model is in bfloat16 now, although its weights are float32."""
    forwards = (vars(layer).get("forward") for layer in model.modules())
    return any(isinstance(forward, _Frozen) and forward.bfloat16[True] for forward in forwards)


def products_of(layer: nn.Linear, backward: bool = True) -> tuple[Product, Product]:
    """x -> x @ weight.T, and x -> x @ weight, as fast as this module has made them for a frozen layer.

    Without `backward`, the weight is not laid out for the second one.
    """
    frozen, weight = layer.forward, layer.weight
    forward, backward = frozen.products(backward) if isinstance(frozen, _Frozen) else (None, None)
    return forward or (lambda x: F.linear(x, weight)), backward or (lambda x: x @ weight)


def fast_product(weight: torch.Tensor, always: bool = False, *, bfloat16: bool = False) -> Product | None:
    """x -> x @ weight.T in oneDNN, for a float32 weight on the CPU, (out, in); None if `F.linear` is as fast.

    The function keeps a copy of the weight, in oneDNN's layout. The weight may be a transposed view.

    Args:
        weight: (out, in).
        always: also where long products are as fast without it.
        bfloat16: the product is in bfloat16, of a float32 x and to a float32 result.
    """
    wanted = _has_onednn() and (always or bfloat16 or _mkl_is_slow())
    return _in_onednn(weight, torch.bfloat16 if bfloat16 else torch.float32) if wanted else None


class _Frozen:
    """A linear layer's forward. The first call that needs a product makes it; a changed weight makes it anew."""

    def __init__(self, layer: nn.Linear, always: bool, bfloat16: bool, is_head: bool):
        self.layer = layer
        self._always = always
        self.bfloat16 = {False: bfloat16 and not is_head, True: bfloat16}  # as in `_products`
        self._made_for = None
        self._products: dict[bool, Product | None] = {}  # forward: False, backward: True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.usable(x):
            return F.linear(x, self.layer.weight, self.layer.bias)
        products = self.products(backward=torch.is_grad_enabled() and x.requires_grad)
        if not any(products):
            return F.linear(x, self.layer.weight, self.layer.bias)
        return _Linear.apply(x, self.layer.weight, self.layer.bias, *products, None, None, 0.0)

    def usable(self, x: torch.Tensor) -> bool:
        plain = x.dtype == torch.float32 and x.numel() and not torch.is_autocast_enabled("cpu")
        return plain and _is_frozen(self.layer)

    def products(self, backward: bool) -> tuple[Product | None, Product | None]:
        """The product of the forward pass, and that of the backward pass if it is wanted."""
        weight = self.layer.weight
        if self._made_for != (weight.data_ptr(), weight._version):
            self._made_for, self._products = (weight.data_ptr(), weight._version), {}
        return self._product(transposed=False), self._product(transposed=True) if backward else None

    def _product(self, transposed: bool) -> Product | None:
        if transposed not in self._products:
            weight = self.layer.weight.detach()
            weight = weight.t() if transposed else weight
            self._products[transposed] = fast_product(weight, self._always, bfloat16=self.bfloat16[transposed])
        return self._products[transposed]


class _Adapted:
    """The forward of PEFT's LoRA on a frozen layer, for one plain adapter; in any other case PEFT's own forward."""

    def __init__(self, layer: nn.Module, base: _Frozen):
        self._layer, self._base = layer, base

    def __call__(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        layer, base = self._layer, self._base
        name = layer.active_adapters[0] if len(layer.active_adapters) == 1 else None
        if args or kwargs or not self._is_plain(name) or not base.usable(x):
            return type(layer).forward(layer, x, *args, **kwargs)
        low, high = layer.lora_A[name].weight, layer.lora_B[name].weight
        products = base.products(backward=torch.is_grad_enabled() and x.requires_grad)
        return _Linear.apply(x, base.layer.weight, base.layer.bias, *products, low, high, layer.scaling[name])

    def _is_plain(self, name: str | None) -> bool:
        layer = self._layer
        if layer.disable_adapters or layer.merged or name not in layer.lora_A or name in layer.lora_variant:
            return False
        dropped = layer.training and not isinstance(layer.lora_dropout[name], nn.Identity)
        same = layer.lora_A[name].weight.dtype == layer.lora_B[name].weight.dtype == torch.float32
        return same and not dropped and not layer.lora_bias[name]


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias + scaling * (x @ low.T) @ high.T, with gradients for x, low and high.

    Args:
        forward, backward: products with the (out, in) weight and with its transpose; None: `F.linear` is used.
        low, high: LoRA's A, (r, in), and B, (out, r), or None.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, forward: Product | None, backward: Product | None, low, high, scaling: float):
        ctx.product, ctx.scaling = backward, scaling
        y = F.linear(x, weight) if forward is None else forward(x)
        if bias is not None:
            y += bias
        inner = None
        if low is not None:
            inner = F.linear(x.reshape(-1, x.shape[-1]), low)
            y.view(-1, y.shape[-1]).addmm_(inner, high.t(), alpha=scaling)
        ctx.save_for_backward(x if ctx.needs_input_grad[5] else None, weight, low, high, inner)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight, low, high, inner = ctx.saved_tensors
        for_x = for_low = for_high = None
        if ctx.needs_input_grad[0]:
            for_x = ctx.product(gradient) if ctx.product else F.linear(gradient, weight.t())
        if low is not None:
            rows = gradient.reshape(-1, gradient.shape[-1])
            for_inner = ctx.scaling * (rows @ high)
            if for_x is not None:
                for_x.view(-1, for_x.shape[-1]).addmm_(for_inner, low)
            if ctx.needs_input_grad[5]:
                for_low = for_inner.t() @ x.reshape(-1, x.shape[-1])
            if ctx.needs_input_grad[6]:
                for_high = ctx.scaling * (rows.t() @ inner)
        return for_x, None, None, None, None, for_low, for_high, None


def _heads(*models: nn.Module) -> list[nn.Module]:
    """The layers that give logits."""
    return [model.get_output_embeddings() for model in models if hasattr(model, "get_output_embeddings")]


def _can_be_fast(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and _is_frozen(layer)


def _is_frozen(layer: nn.Linear) -> bool:
    weight = layer.weight
    trains = weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
    return not trains and weight.device.type == "cpu" and weight.dtype == torch.float32


def _in_onednn(weight: torch.Tensor, dtype: torch.dtype) -> Product | None:
    """The product, or None if it does not give what `F.linear` gives on a few rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), ROWS)

    def product(x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.mkldnn._linear_pointwise(x.to(dtype).contiguous(), packed, None, "none", [], "")
        return y.to(x.dtype)

    rows = torch.randn(TRIED, weight.shape[1], generator=torch.Generator().manual_seed(0))
    expected = F.linear(rows, weight)
    close = CLOSE[dtype]
    if torch.allclose(product(rows), expected, rtol=close, atol=close * expected.abs().max().item()):
        return product
    log.warning("a product with a weight of %d by %d is wrong in oneDNN here; torch computes it", *weight.shape)
    return None


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled


@cache
def _mkl_is_slow() -> bool:
    """Whether MKL leaves this processor's AVX-512 unused: it does on AMD's.

    A rule and not a measurement, so that every run on a machine rounds alike. Measured on one core, SmolLM2-135M's
    sizes, 400 tokens: Zen 4, 112 GFLOP/s in oneDNN against 90 to 105 in MKL; Zen 3, without AVX-512, 68 against 73.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and "AuthenticAMD" in _vendor()


def _vendor() -> str:
    """Text that contains the vendor's name of an x86 processor."""
    about = Path("/proc/cpuinfo")
    return about.read_text() if about.exists() else platform.processor()
