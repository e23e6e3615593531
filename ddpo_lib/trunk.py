"""The layers below the first adapter never change: run them once for each sequence, keep what they give, skip them.

With LoRA on the last 8 of 30 layers, 22 layers of every forward pass compute what they computed before. A `Trunk` takes
those layers out of the model; what they give for a sequence is computed at first use and kept on disk, where every
arm and epoch that has the same base model finds it. The model trains as before, to float rounding.
"""

import torch
from trl.trainer.utils import hash_module

from ddpo_lib.store import Store, content_key


class Trunk:
    """The first `depth` decoder layers of a Llama-like model, with a memory of what they gave.

    Args:
        model: a `*ForCausalLM` whose decoder is `model.model` with `embed_tokens`, `layers` and `norm`. It is changed:
            its first `depth` layers are passed over from now on, so it must be fed this trunk's output as
            `inputs_embeds`. Parameter names stay as they were, so adapters save and load as for the whole model.
        depth: number of layers, 1 or more.

    Attributes:
        version: a hash of the weights and settings that the kept states depend on.

    Raises:
        ValueError: a depth that leaves no layer above, or a decoder of another build.
    """

    def __init__(self, model, depth: int):
        decoder = getattr(model, "model", None)
        if not all(hasattr(decoder, part) for part in ("embed_tokens", "layers", "norm")):
            raise ValueError(f"model: expected a Llama-like decoder at `model.model`, got {type(model).__name__}")
        if not 0 < depth < len(decoder.layers):
            raise ValueError(f"depth: expected 1 to {len(decoder.layers) - 1}, got {depth}")
        self._decoder = decoder
        self._lower = torch.nn.ModuleList(decoder.layers[:depth]).requires_grad_(False)
        weights = hash_module(self._lower), hash_module(decoder.embed_tokens)
        self.version = content_key(*weights, model.config.to_json_string())
        self._store = Store(f"trunk-{self.version[:16]}")
        for i in range(depth):
            decoder.layers[i] = _PassOver()

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states above the trunk, (B, L, d), zero on padding, for right-padded (B, L) tokens."""
        lengths = attention_mask.sum(dim=1).tolist()
        rows = [row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)]
        keys = [content_key(str(row)) for row in rows]
        known = self._store.get(list(set(keys)))
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            made = self._run(input_ids[missing], attention_mask[missing])
            new = {keys[i]: made[n, : lengths[i]].float().cpu().numpy().ravel() for n, i in enumerate(missing)}
            self._store.put(new.items())
            known.update(new)
        width = self._decoder.config.hidden_size
        dtype = self._decoder.norm.weight.dtype
        states = torch.zeros(*input_ids.shape, width, dtype=dtype)
        for i, key in enumerate(keys):
            states[i, : lengths[i]] = torch.from_numpy(known[key].reshape(-1, width).copy()).to(dtype)
        return states.to(input_ids.device)

    @torch.no_grad()
    def _run(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        decoder = self._decoder
        upper, norm = decoder.layers, decoder.norm
        decoder.layers, decoder.norm = self._lower, torch.nn.Identity()
        try:
            # the slice over `num_hidden_layers` in the decoder's forward ends with the shorter list
            return decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        finally:
            decoder.layers, decoder.norm = upper, norm


class _PassOver(torch.nn.Module):
    """Stands where a trunk layer stood, so that the layers above keep their places and names."""

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states
