"""In which number formats a model is computed and trained. Stored results depend on it as they depend on weights.

A log-probability under bfloat16 autocast differs from one in float32 in the fourth digit; one on a GPU differs from one
on a CPU in the seventh. So the keys of all that is stored between runs contain this record.

Trained parameters are float32. bfloat16 has 8 significant bits: a step of 5e-6 changes a weight of 0.02, whose
neighbours are 1.2e-4 away, in one case of many, and otherwise rounds to nothing.
"""

import importlib.metadata
import json
import logging
from functools import cache

import torch

from ddpo_lib.models.packing import PACKED_ATTENTION

log = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers")
SHORT = (torch.bfloat16, torch.float16)


def numerics(
    device: str, *, dtype: str, autocast: str | None = None, attention: str | None = None, products: str | None = None
) -> str:
    """The record, as text for a key.

    Args:
        device: the kind of device: cpu, cuda or mps.
        dtype: of the parameters.
        autocast: the dtype in which products are computed instead; None: in that of the parameters.
        attention: the implementation, such as "sdpa".
        products: the dtype of products with frozen weights where it is another one (see `frozen_linears`).
    """
    record = {"device": device, "dtype": dtype, "autocast": autocast, "attention": attention, "products": products}
    return json.dumps(record | _versions(), sort_keys=True)


@cache
def _versions() -> dict[str, str]:
    """The minor versions of the packages that compute, such as 2.13."""
    return {name: ".".join(importlib.metadata.version(name).split(".")[:2]) for name in PACKAGES}


def numerics_of(
    model: torch.nn.Module,
    device: str | None = None,
    *,
    attention: str | None = None,
    bfloat16_products: bool = False,
) -> str:
    """The record for a model, and for the autocast of the context in which this is called.

    Args:
        model: a transformers model or a part of one.
        device: the kind of device that computes; None: where its first parameter is.
        attention: its implementation; None: as the model's settings say.
        bfloat16_products: whether products with its frozen weights are in bfloat16.
    """
    parameters = list(model.parameters())
    device = device or parameters[0].device.type
    dtypes = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters})
    autocast = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
    attention = attention or getattr(getattr(model, "config", None), "_attn_implementation", None)
    attention = "sdpa" if attention == PACKED_ATTENTION else attention  # its name from the first packed row on
    products = "bfloat16" if bfloat16_products else None
    return numerics(device, dtype=" ".join(dtypes), autocast=autocast, attention=attention, products=products)


def settings_of(model) -> str:
    """The settings of a transformers model that its outputs depend on, as text for a key."""
    settings = model.config.to_dict()
    unread = ("use_cache", "transformers_version", "_name_or_path", "architectures")
    return json.dumps({k: v for k, v in settings.items() if k not in unread}, sort_keys=True, default=str)


def train_in_float32(model: torch.nn.Module, *, autocast: bool) -> None:
    """Make the parameters of a model that are trained float32, in place; logs a warning if that changes any.

    Args:
        model: whose parameters with `requires_grad` are to be trained.
        autocast: whether training computes in a shorter format by autocast (`bf16` or `fp16` of the arguments).

    Raises:
        ValueError: frozen parameters stay in a shorter format, and without autocast no product could mix the two.
    """
    short = [parameter for parameter in model.parameters() if parameter.dtype in SHORT]
    trained = [parameter for parameter in short if parameter.requires_grad]
    if not trained:
        return
    if len(trained) < len(short) and not autocast:
        raise ValueError(
            f"model: {len(trained)} of its parameters are trained in {trained[0].dtype}, in which most steps round to "
            "nothing. They need float32, and the frozen ones then need autocast: set bf16=True, or load the model with "
            "dtype=torch.float32"
        )
    numbers = sum(parameter.numel() for parameter in trained)
    log.warning(
        "%s million trained parameters are made float32 (%s as loaded), since most steps round to nothing in a shorter "
        "format. This takes %.1f GB more for weights, gradients and Adam's averages; an adapter takes little",
        f"{numbers / 1e6:,.1f}",
        trained[0].dtype,
        numbers * 8 / 1e9,
    )
    for parameter in trained:
        parameter.data = parameter.data.float()
