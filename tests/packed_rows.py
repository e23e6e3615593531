"""Prompts and responses as rows of tokens, padded and packed, and the log-probabilities of the padded ones."""

import pytest
import torch
from hypothesis import strategies as st
from tiny import WORDS
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models.packing import pack
from ddpo_lib.training.logps import score_responses

VOCABULARY = len(WORDS) + 3  # of the tiny model: 0 is padding
Row = tuple[list[int], list[int]]


def padded(rows: list[Row]) -> dict:
    """(B, L) tensors of prompts and responses, padded on the right."""
    length = max(len(prompt) + len(response) for prompt, response in rows)
    batch = {name: torch.zeros(len(rows), length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["completion_mask"] = torch.zeros(len(rows), length, dtype=torch.long)
    for i, (prompt, response) in enumerate(rows):
        stop = len(prompt) + len(response)
        batch["input_ids"][i, :stop] = torch.tensor(prompt + response)
        batch["attention_mask"][i, :stop] = 1
        batch["completion_mask"][i, len(prompt) : stop] = 1
    return batch


def packed(rows: list[Row]):
    batch = padded(rows)
    return pack(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])


def padded_logps(model, batch: dict, virtual: int = 0) -> torch.Tensor:
    """(B,) from the full logits of the padded forward, of a model that nothing was done to."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logps = model(**inputs, use_cache=False).logits[:, virtual:-1].log_softmax(-1)
    logps = logps.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (logps * batch["completion_mask"][:, 1:]).sum(dim=1)


tokens = st.integers(1, VOCABULARY - 1)
prompts = st.lists(st.lists(tokens, max_size=6), min_size=1, max_size=3)
responses = st.lists(tokens, min_size=1, max_size=8)


@st.composite
def batches(draw) -> list[Row]:
    """One to six rows under one to three prompts, in any order; prompts may be empty, rows may be equal."""
    choices = draw(prompts)
    return draw(st.lists(st.tuples(st.sampled_from(choices), responses), min_size=1, max_size=6))


SPECIAL = {
    "one row": [([3, 4, 5], [6, 7])],
    "no prompt": [([], [6, 7, 8]), ([], [9])],
    "prompts of one token": [([3], [6, 7]), ([3], [8]), ([4], [6, 7])],
    "equal rows": [([3, 4, 5], [6, 7])] * 3,
    "a prompt that begins another": [([3, 4], [5, 6]), ([3, 4, 5], [6]), ([3, 4], [5, 7, 8])],
    "rows of a prompt apart": [([3, 4], [5]), ([8, 9, 3], [5, 5]), ([3, 4], [6, 7])],
}
CASES = pytest.mark.parametrize("rows", SPECIAL.values(), ids=SPECIAL)


ROWS = [([3, 4, 5, 6, 7], [8, 9, 10, 11]), ([3, 4, 5, 6, 7], [12, 9]), ([13, 14], [15]), ([16], [3, 5, 7, 9, 11, 13])]


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
}
OPT = {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "decoder_layers": 3, "decoder_attention_heads": 4, "is_decoder": True}
BART |= {"decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 0, "is_encoder_decoder": False}
WINDOW = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}


def random_model(config, **options):
    """With weights large enough that what a token attends to shows in what follows it."""
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def check_model(model, virtual: int = 0) -> None:
    batch = padded(ROWS)
    with torch.no_grad():
        expected = padded_logps(model, batch, virtual)
        add_fused_lm_head(getattr(model, "base_model", model) if virtual else model)
        for _ in range(2):  # a model that turned out not to be packed stays so
            sums = score_responses(model, batch, batch["completion_mask"])[0]
            torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
    assert len(set(expected.tolist())) == len(ROWS)
