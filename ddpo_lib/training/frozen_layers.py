"""The layers below the first adapter never change: run them once per sequence, store their output, then skip them.

With LoRA on the last 8 of 30 layers, 22 layers of every forward pass repeat an earlier computation. A `Trunk` takes
those layers out of the model. It computes their output for a sequence at the first use and stores it on disk, for all
arms and epochs with the same base model. The model trains as before, up to float rounding.
"""

import numpy as np
import torch
from trl.trainer.utils import hash_module

from ddpo_lib.base.store import Store, content_key
from ddpo_lib.models.packing import Packed, can_pack


class Trunk:
    """The first `depth` decoder layers of a Llama-like model, whose outputs are stored on disk.

    Args:
        model: a `*ForCausalLM` whose decoder is `model.model` with `embed_tokens`, `layers` and `norm`. It is changed:
            it now skips its first `depth` layers, so it needs this trunk's output as `inputs_embeds`. Parameter names
            stay as they were, so adapters are saved and loaded as for the whole model.
        depth: number of layers, 1 or more.

    Attributes:
        layers: the first `depth` layers; they are not trained.
        version: a hash of the weights and settings that the stored states depend on.

    Raises:
        ValueError: a depth that leaves no layer above, or a decoder or attention that is built differently (see
            `logps.can_pack`).
    """

    def __init__(self, model, depth: int):
        decoder = getattr(model, "model", None)
        if not all(hasattr(decoder, part) for part in ("embed_tokens", "layers", "norm")):
            raise ValueError(f"model: expected a Llama-like decoder at `model.model`, got {type(model).__name__}")
        if not 0 < depth < len(decoder.layers):
            raise ValueError(f"depth: expected 1 to {len(decoder.layers) - 1}, got {depth}")
        if not can_pack(model):
            raise ValueError('model: its attention cannot be packed; load it with attn_implementation="sdpa"')
        self._decoder = decoder
        self.layers = torch.nn.ModuleList(decoder.layers[:depth]).requires_grad_(False)
        weights = hash_module(self.layers), hash_module(decoder.embed_tokens)
        self.version = content_key(*weights, model.config.to_json_string())
        self._store = Store(f"trunk-{self.version[:16]}")
        for i in range(depth):
            decoder.layers[i] = _PassOver()

    def __call__(self, packed: Packed) -> torch.Tensor:
        """Hidden states above the trunk, (1, T, d), for the (1, T) tokens of a packed row."""
        tokens = packed.tokens[0].tolist()
        keys = [
            content_key(str(tokens[low:high]), str(tokens[start:stop])) for (low, high), start, stop in packed.pieces
        ]
        known = self._store.get(list(set(keys)))
        if not known.keys() >= set(keys):
            made = self._run(packed)[0].float().cpu().numpy()
            parts = zip(keys, packed.pieces, strict=True)
            known = {key: made[start:stop].ravel() for key, (_, start, stop) in parts} | known
            self._store.put(known.items())
        states = np.concatenate([known[key] for key in keys]).reshape(1, len(tokens), -1)
        weight = self._decoder.norm.weight
        return torch.from_numpy(states).to(weight.device, weight.dtype)

    @torch.no_grad()
    def _run(self, packed: Packed) -> torch.Tensor:
        decoder = self._decoder
        upper, norm = decoder.layers, decoder.norm
        decoder.layers, decoder.norm = self.layers, torch.nn.Identity()
        try:
            # the decoder's forward takes `num_hidden_layers` of this list, which ends earlier
            return decoder(**packed.inputs()).last_hidden_state
        finally:
            decoder.layers, decoder.norm = upper, norm


class _PassOver(torch.nn.Module):
    """Takes the place of a trunk layer, so that the layers above keep their positions and names."""

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states
