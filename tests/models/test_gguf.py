"""A GGUF is read into plain weights, also on a machine that could leave them packed."""

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.quantizers import quantizer_gguf

from ddpo_lib.base.files import file_hash
from ddpo_lib.models import models

WIDTH, HEADS, INNER, WINDOW = 32, 4, 64, 3
WORDS = [chr(ord("a") + i) for i in range(15)] + ["ab"]
KIND = gguf.GGMLQuantizationType.Q8_0


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A random LFM2 of two layers with 8-bit weights, whose architecture transformers can leave packed; one weight."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "lfm2")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([0, HEADS])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_uint32("lfm2.shortconv.l_cache", WINDOW)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes().items()}
    for name, weight in weights.items():
        if weight.ndim == 1 or "conv.conv" in name:
            writer.add_tensor(f"{name}.weight", weight)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(weight, KIND), raw_dtype=KIND)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file, weights["blk.0.ffn_gate"]


def shapes() -> dict[str, tuple[int, ...]]:
    """Of the weights, by their names in a GGUF; the first layer is a convolution, the second attends."""
    layers = {}
    for i in range(2):
        layers |= {f"blk.{i}.attn_norm": (WIDTH,), f"blk.{i}.ffn_norm": (WIDTH,), f"blk.{i}.ffn_down": (WIDTH, INNER)}
        layers |= {f"blk.{i}.ffn_gate": (INNER, WIDTH), f"blk.{i}.ffn_up": (INNER, WIDTH)}
    first = {"shortconv.in_proj": (3 * WIDTH, WIDTH), "shortconv.out_proj": (WIDTH, WIDTH)}
    first |= {"shortconv.conv": (WIDTH, WINDOW)}
    second = {f"attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    second |= {"attn_q_norm": (WIDTH // HEADS,), "attn_k_norm": (WIDTH // HEADS,)}
    layers |= {f"blk.0.{name}": shape for name, shape in first.items()}
    layers |= {f"blk.1.{name}": shape for name, shape in second.items()}
    return layers | {"token_embd": (len(WORDS), WIDTH), "token_embd_norm": (WIDTH,)}


class AskedForPackedError(Exception):
    pass


@pytest.fixture(autouse=True)
def kernels_are_there(monkeypatch):
    """The place where transformers asks for a kernel that multiplies by packed weights, and then keeps them packed."""

    def kernel():
        raise AskedForPackedError

    monkeypatch.setattr(quantizer_gguf, "get_gguf_kernel", kernel)


def test_a_gguf_becomes_plain_weights(packed, tmp_path):
    file, gate = packed
    with pytest.raises(AskedForPackedError):
        AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    models._convert(file, file_hash(file), tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    found = stored["model.layers.0.feed_forward.w1.weight"]
    torch.testing.assert_close(found, torch.from_numpy(gate), atol=0.02, rtol=0)  # 8 bits over a range of 3
    loaded = models.load_model(str(tmp_path / "model"))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert type(loaded.model.layers[0].feed_forward.w1) is torch.nn.Linear
