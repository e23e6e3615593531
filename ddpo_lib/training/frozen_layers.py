"""The layers below the first adapter never change: run them once per sequence, store their output, then skip them.

With LoRA on the last 8 of 30 layers, 22 layers of every forward pass repeat an earlier computation. A `Trunk` takes
those layers out of the model. It computes their output for a sequence at the first use and stores it on disk, for all
arms and epochs with the same base model. The model trains as before, up to float rounding.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from trl.trainer.utils import hash_module

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.store import Store, content_key
from ddpo_lib.models.frozen_linears import use_onednn
from ddpo_lib.models.numerics import numerics_of, settings_of
from ddpo_lib.models.packing import Packed, can_pack, pack, why_padded
from ddpo_lib.models.self_check import at_rest, gap, plain_logps, random_batch

log = logging.getLogger(__name__)


def keep_lower_layers(model, depth: int, *, bfloat16: bool = False) -> "Trunk | None":
    """A trunk of the first `depth` layers; None, with a line in the log, if the model cannot run with one."""
    try:
        return Trunk(model, depth, bfloat16=bfloat16)
    except ValueError as error:
        log.warning("all layers run at every step, since the lower ones cannot be kept: %s", error)
        return None


class Trunk:
    """The first `depth` decoder layers of a model, whose outputs are stored on disk.

    Args:
        model: a causal language model of transformers, before adapters are added. It is changed: it now skips its first
            `depth` layers, and takes their output from `Packed.below`. Parameter names stay as they were, so adapters
            are saved and loaded as for the whole model.
        depth: number of layers, 1 or more.
        bfloat16: the layers' products are in bfloat16, see `frozen_linears`.

    Attributes:
        layers: the first `depth` layers; they are not trained.
        version: a hash of the weights, settings and code that the stored states depend on.

    Raises:
        ValueError: a depth that leaves no layer above; layers that cannot be found; a model that cannot be packed (see
            `packing.why_padded`), or whose logits over kept states are not those of its own call. The model is as it
            was.
        InputError: bfloat16 is not possible.
    """

    def __init__(self, model, depth: int, *, bfloat16: bool = False):
        name = type(model).__name__
        self._upper = _layers_of(model)
        if not 0 < depth < len(self._upper):
            raise ValueError(f"depth: expected 1 to {len(self._upper) - 1}, got {depth}")
        if not can_pack(model):
            raise ValueError(f"{name}: batches cannot be packed: {why_padded(model)}")
        self._model = model
        self.layers = nn.ModuleList(self._upper[:depth]).requires_grad_(False)
        self._passed = [_PassOver(layer, lowest=i == 0) for i, layer in enumerate(self.layers)]
        weights, code = _hashes(model, self._upper, self.layers), code_key(keep_lower_layers)["code"]
        self.version = content_key(*weights, settings_of(model), code, str(bfloat16))
        self._store = Store(f"trunk-{self.version[:16]}")
        self._take_out()
        try:
            self._check(name)
        except Exception:
            self._put_back()
            raise
        use_onednn(self.layers, bfloat16=bfloat16)

    def __call__(self, packed: Packed) -> torch.Tensor:
        """Hidden states above the trunk, (1, T, d), for the (1, T) tokens of a packed row."""
        tokens = packed.tokens[0].tolist()
        arithmetic = numerics_of(self.layers, attention=self._model.config._attn_implementation)
        keys = [
            content_key(arithmetic, str(tokens[low:high]), str(tokens[start:stop]))
            for (low, high), start, stop in packed.pieces
        ]
        known = self._store.get(list(set(keys)))
        if not known.keys() >= set(keys):
            made = self._run(packed)[0].float().cpu().numpy()
            parts = zip(keys, packed.pieces, strict=True)
            known = {key: made[start:stop].ravel() for key, (_, start, stop) in parts} | known
            self._store.put(known.items())
        states = np.concatenate([known[key] for key in keys]).reshape(1, len(tokens), -1)
        weight = next(self.layers.parameters())
        return torch.from_numpy(states).to(weight.device, weight.dtype)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A context in which the model has all of its layers."""
        self._put_back()
        try:
            yield
        finally:
            self._take_out()

    @torch.no_grad()
    def _run(self, packed: Packed) -> torch.Tensor:
        """The states that the lowest upper layer would get, (1, T, d)."""
        states = None
        with self.whole(), at_rest(self._model):
            hook = self.layers[-1].register_forward_hook(_stop)
            try:
                self._model(**packed.inputs())
            except _StatesError as found:
                states = found.states
            finally:
                hook.remove()
        if not isinstance(states, torch.Tensor) or states.shape[:-1] != packed.tokens.shape:
            raise ValueError(f"{type(self._model).__name__}: its layers do not give hidden states alone")
        return states

    @torch.no_grad()
    def _check(self, name: str) -> None:
        """Compare the model over this trunk with its own call, as `logps.score_responses` does with an adapter."""
        batch, response = random_batch(self._model, next(self.layers.parameters()).device)
        expected = plain_logps(self._model, batch, response, self)
        packed = pack(batch["input_ids"], batch["attention_mask"], response)
        try:
            packed.below = self(packed)
            with at_rest(self._model):
                logits = self._model(**packed.inputs()).logits[0, packed.predicting].float()
        except (torch.OutOfMemoryError, OSError):
            raise
        except Exception as error:  # upper layers that need more of the lower ones than their states
            raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
        logps = logits.log_softmax(dim=-1).gather(-1, packed.predicted[:, None])[:, 0]
        found = torch.zeros_like(expected).index_add(0, packed.row, logps)
        tokens = response.sum(dim=1)
        if difference := gap(self._model, found / tokens, expected / tokens):
            raise ValueError(f"{name}: log-probabilities would change by {difference:.2g} nats per token")

    def _take_out(self) -> None:
        for i, layer in enumerate(self._passed):
            self._upper[i] = layer

    def _put_back(self) -> None:
        for i, layer in enumerate(self.layers):
            self._upper[i] = layer


def _layers_of(model) -> nn.ModuleList:
    """The list of a model's decoder layers, whatever its name."""
    number = model.config.get_text_config().num_hidden_layers
    found = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
    if len(found) != 1:
        raise ValueError(f"{type(model).__name__}: {len(found)} lists of {number} layers in it, expected one")
    return found[0]


def _hashes(model, layers: nn.ModuleList, lower: nn.ModuleList) -> list[str]:
    """Of the lower layers, and of everything in the decoder besides its layers: embeddings, positions, norms."""
    name = next(name for name, module in model.base_model.named_modules() if module is layers)
    state = model.base_model.state_dict()
    beside = nn.Module()
    for key in [key for key in state if not key.startswith(f"{name}.")]:
        beside.register_buffer(key.replace(".", "-"), state[key])
    return [hash_module(lower), hash_module(beside)]


class _PassOver(nn.Module):
    """Takes the place of a trunk layer, so that the layers above keep their positions and names."""

    def __init__(self, layer: nn.Module, lowest: bool):
        super().__init__()
        settings = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        vars(self).update(settings)  # such as the type of its attention, which the decoder reads
        self._lowest = lowest

    def forward(self, hidden_states, *args, packed: Packed | None = None, **kwargs):
        if packed is None or packed.below is None:
            raise ValueError("the model's lower layers are kept apart from it: give their output, see `Trunk`")
        return packed.below if self._lowest else hidden_states


class _StatesError(Exception):
    """Ends a forward pass at a layer, and holds the layer's output."""

    def __init__(self, states):
        self.states = states


def _stop(module, inputs, states):
    raise _StatesError(states)
