"""Packed rows against the padded forward they stand for: log-probs, gradients, and what cannot be packed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from packed_rows import (
    BART,
    CASES,
    GPT2,
    OPT,
    ROWS,
    SMALL,
    WINDOW,
    Row,
    batches,
    check_model,
    padded,
    padded_logps,
    random_model,
)
from peft import PromptTuningConfig, get_peft_model
from tiny import gradients, load_with_adapter, save_model_and_adapter, size, tiny_model
from transformers import (
    BartConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    NemotronConfig,
    OPTConfig,
    Qwen2Config,
    StableLmConfig,
)
from trl.trainer.utils import add_fused_lm_head

from ddpo_lib.models.packing import PACKED_ATTENTION, can_pack
from ddpo_lib.training.logps import own_logits, packed_rows, padded_batch, score_responses, way_for

# Log-probabilities and gradients


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Two equal policies; only the first is ever packed."""
    saved = save_model_and_adapter(tmp_path_factory.mktemp("tiny"))
    ours, plain = load_with_adapter(*saved), load_with_adapter(*saved)
    assert can_pack(ours)
    return ours, plain


def check_against_padded(policies, rows: list[Row]) -> None:
    ours, plain = policies
    batch = padded(rows)
    sums, counts = score_responses(ours, batch, batch["completion_mask"])[:2]
    expected = padded_logps(plain, batch)
    torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
    assert counts.tolist() == [len(response) - (not prompt) for prompt, response in rows]
    scale = torch.linspace(0.5, 2, len(rows)) / counts.sum().clamp(min=1)
    found, known = gradients((sums * scale).sum(), ours), gradients((expected * scale).sum(), plain)
    assert found.keys() == known.keys()
    assert size({name: found[name] - known[name] for name in found}) < 1e-5 * max(1, size(known))


@settings(max_examples=40)
@given(rows=batches().filter(lambda rows: any(prompt or len(response) > 1 for prompt, response in rows)))
def test_log_probs_and_gradients_are_those_of_the_padded_forward(policies, rows):
    check_against_padded(policies, rows)


@CASES
def test_log_probs_and_gradients_are_those_of_the_padded_forward_where_it_is_special(policies, rows):
    check_against_padded(policies, rows)


def test_gradient_checkpointing_changes_nothing(policies):
    ours, _ = policies
    batch = padded(ROWS)
    found = []
    for checkpointing in (False, True):
        model = copy.deepcopy(ours)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()
        found.append(gradients(score_responses(model, batch, batch["completion_mask"])[0].mean(), model))
    assert size({name: found[0][name] - found[1][name] for name in found[0]}) < 1e-6
    assert size(found[0]) > 1e-2


def test_bfloat16_is_as_close_as_its_padded_forward():
    """Sums of up to 6 log-probs of size 3 to 8, in a format with steps of 1/64 between 2 and 4."""
    exact, plain, ours = tiny_model(), tiny_model().bfloat16(), tiny_model().bfloat16()
    batch = padded(ROWS)
    with torch.no_grad():
        sums = score_responses(ours, batch, batch["completion_mask"])[0]
        expected, other = padded_logps(exact, batch), padded_logps(plain, batch)
    assert sums.dtype == torch.float32
    assert can_pack(ours)
    assert (sums - expected).abs().max() < 2 * (other - expected).abs().max()
    torch.testing.assert_close(sums, expected, rtol=0.03, atol=0)


def test_generation_and_padded_forwards_stay_as_they_were():
    plain, ours = tiny_model(), tiny_model()
    assert can_pack(ours)
    batch = padded(ROWS)
    score_responses(ours, batch, batch["completion_mask"])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    left = {name: tensor.flip(1) for name, tensor in inputs.items()}  # padding on the left, as generation needs it
    for each in (inputs, left):
        with torch.no_grad():
            torch.testing.assert_close(ours(**each).logits, plain(**each).logits, atol=0, rtol=0)
    said = [model.generate(**left, max_new_tokens=8, do_sample=False, eos_token_id=None) for model in (plain, ours)]
    assert torch.equal(*said)
    assert len({tuple(row[-8:].tolist()) for row in said[0]}) > 1


# Other models


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL),
        Qwen2Config(**SMALL),
        GemmaConfig(**SMALL, head_dim=8),
        MistralConfig(**SMALL, sliding_window=None),
        GPT2Config(**GPT2),
        OPTConfig(**OPT, word_embed_proj_dim=32),
        MistralConfig(**SMALL, sliding_window=3),
        Qwen2Config(**SMALL, **WINDOW),
    ],
    ids=lambda config: f"{config.model_type} {getattr(config, 'sliding_window', '') or ''}",
)
def test_families_that_are_packed(config):
    model = random_model(config)
    assert can_pack(model)
    check_model(random_model(config))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LlamaConfig(**SMALL), {"attn_implementation": "eager"}),
        (BartConfig(**BART), {}),
    ],
    ids=["eager attention", "positions that cannot be given"],
)
def test_models_that_cannot_be_packed_run_padded(config, options):
    model = random_model(config, **options)
    assert not can_pack(model)
    check_model(model)
    assert model.config._attn_implementation != PACKED_ATTENTION


@pytest.mark.parametrize("kind", [StableLmConfig, NemotronConfig])
def test_a_model_that_does_not_pass_the_layout_on_runs_padded(kind, caplog):
    """Their decoder layers keep what they are called with from the attention, which shows at the first batch."""
    model = random_model(kind(**SMALL))
    check_model(model)
    assert not can_pack(model)
    (line,) = caplog.messages
    assert "batches are padded: NotToldError" in line and "is not told where the sequences" in line


class Shifted(LlamaForCausalLM):
    """Positions that are given are not those that the model takes without them, as in OPT's embedding or RoBERTa."""

    def forward(self, input_ids=None, position_ids=None, **kwargs):
        if position_ids is not None:
            position_ids = position_ids**2
        return super().forward(input_ids, position_ids=position_ids, **kwargs)


class Doubled(Shifted):
    """TRL's head does not know of what this model does to logits either."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = 2 * outputs.logits
        return outputs


class Backward(LlamaForCausalLM):
    """What is predicted at any place depends on the last token."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits + outputs.logits[:, -1:]
        return outputs


@pytest.mark.parametrize(
    ("kind", "way", "told"),
    [
        (LlamaForCausalLM, packed_rows, []),
        (Shifted, padded_batch, ["Shifted: batches are padded: log-probabilities differ from the model's own by"]),
        (Doubled, own_logits, ["Doubled: batches are padded", "Doubled: all logits of a batch are held at once"]),
    ],
)
def test_the_first_use_finds_a_way_that_agrees_with_the_models_own_call(kind, way, told, caplog):
    torch.manual_seed(3)
    model = kind(LlamaConfig(**SMALL, initializer_range=0.3)).train()
    check_model(model)
    assert way_for(model, "cpu") is way
    assert len(caplog.messages) == len(told), "once for a model"
    assert all(line.startswith(start) for line, start in zip(caplog.messages, told, strict=True))
    assert all(module.training for module in model.modules())


def test_a_model_that_sees_later_tokens_is_refused():
    torch.manual_seed(3)
    batch = padded(ROWS)
    with pytest.raises(ValueError, match=r"Backward: the probability of a token depends on the tokens after it"):
        score_responses(Backward(LlamaConfig(**SMALL, initializer_range=0.3)), batch, batch["completion_mask"])


def test_another_attention_is_noticed_after_the_first_use():
    model = random_model(LlamaConfig(**SMALL))
    check_model(model)
    model.set_attn_implementation("eager")
    check_model(model)
    assert way_for(model, "cpu") is padded_batch


def test_a_window_matters_in_these_rows():
    """Otherwise the tests above would pass a window by."""
    batch = padded(ROWS)
    narrow, whole = (random_model(MistralConfig(**SMALL, sliding_window=width)) for width in (3, None))
    with torch.no_grad():
        assert (padded_logps(narrow, batch) - padded_logps(whole, batch)).abs().max() > 0.1


def test_a_prompt_that_is_learned_runs_padded():
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model, plain = (get_peft_model(tiny_model(), config).eval() for _ in range(2))
    plain.load_state_dict(model.state_dict())
    batch = padded(ROWS)
    with torch.no_grad():
        expected = padded_logps(plain, batch, virtual=3)
        add_fused_lm_head(model.get_base_model())
        sums = score_responses(model, batch, batch["completion_mask"])[0]
    assert not can_pack(model)
    torch.testing.assert_close(sums, expected, atol=1e-4, rtol=0)
