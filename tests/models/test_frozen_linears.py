"""Frozen linear layers in oneDNN against `F.linear`: numbers, gradients, trainings, and layers that are left alone."""

import json
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from peft.tuners import lora
from safetensors.torch import load_file
from tiny import (
    LAYERS,
    gradients,
    load_with_adapter,
    save_model_and_adapter,
    size,
    tiny_model,
    tiny_pairs,
    tiny_tokenizer,
)
from torch import nn

from ddpo_lib.models import frozen_linears
from ddpo_lib.models.frozen_linears import fast_frozen_linears, fast_product, use_onednn
from ddpo_lib.profiles.settings import Arm, Model, Optimiser, Preference
from ddpo_lib.training.train import train_preferences, train_sft
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

SMOLLM = [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576)]  # (out, in) of SmolLM2-135M's linear layers

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def forced(monkeypatch):
    """Every product that can run in oneDNN does; gives a list that grows by True with each weight that is laid out."""
    laid_out = []
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: laid_out.append(True) or True)
    return laid_out


def run(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer gives, and the gradient for x of a sum in which no two outputs weigh the same."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (gradient,) = torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum(), x)
    return y.detach(), gradient


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return ((found - expected).norm() / expected.norm()).item()


# One layer


@needs_onednn
@pytest.mark.parametrize("rows", [(1,), (37,), (1, 300)], ids=str)
@pytest.mark.parametrize("shape", SMOLLM, ids=str)
def test_products_and_gradients_are_those_of_linear(forced, shape, rows):
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], bias=shape[0] == 192).requires_grad_(False)
    x = torch.randn(*rows, shape[1])
    expected = run(layer, x)
    with fast_frozen_linears(layer):
        found = run(layer, x)
    assert len(forced) == 2, "one way or the other was not laid out"
    assert max(map(relative, found, expected)) < 1e-5


@needs_onednn
def test_rows_that_do_not_lie_together_are_read_right(forced):
    torch.manual_seed(0)
    layer = nn.Linear(48, 32).requires_grad_(False)
    x = torch.randn(48, 10).t()
    with fast_frozen_linears(layer):
        assert relative(layer(x), F.linear(x, layer.weight, layer.bias)) < 1e-5
        assert layer(x[:0]).shape == (0, 32)


@needs_onednn
def test_weights_loaded_within_are_used(forced):
    torch.manual_seed(0)
    layer, x = nn.Linear(48, 32, bias=False).requires_grad_(False), torch.randn(5, 48)
    with fast_frozen_linears(layer):
        before = layer(x)
        layer.load_state_dict({"weight": -2 * layer.weight})
        torch.testing.assert_close(layer(x), -2 * before)


@needs_onednn
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(48, 32),
        nn.Linear(48, 32).requires_grad_(False).double(),
        nn.Linear(48, 32).requires_grad_(False).bfloat16(),
        nn.Linear(48, 32, device="meta").requires_grad_(False),
    ],
    ids=["trains", "float64", "bfloat16", "another device"],
)
def test_other_layers_are_left_alone(forced, layer):
    with fast_frozen_linears(layer):
        assert "forward" not in vars(layer)
        layer(torch.zeros(5, 48, dtype=layer.weight.dtype, device=layer.weight.device))
    assert not forced


@needs_onednn
def test_a_layer_that_starts_to_train_within_gets_its_gradient(forced):
    layer, x = nn.Linear(48, 32).requires_grad_(False), torch.randn(5, 48)
    with fast_frozen_linears(layer):
        layer.requires_grad_(True)
        layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(dim=0).expand(32, 48))
    assert not forced


@needs_onednn
def test_autocast_and_other_inputs_run_as_before(forced):
    layer, x = nn.Linear(48, 32).requires_grad_(False), torch.randn(5, 48)
    with fast_frozen_linears(layer), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with fast_frozen_linears(layer), pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())
    assert not forced


def test_layers_are_themselves_again_outside_after_an_error_too():
    layer = nn.Linear(4, 4).requires_grad_(False)
    names = list(layer.state_dict())
    with pytest.raises(KeyError), fast_frozen_linears(layer):
        assert list(layer.state_dict()) == names
        raise KeyError
    assert "forward" not in vars(layer)


# LoRA on a frozen layer


def lora_layer(**config) -> tuple[nn.Module, nn.Module]:
    """A model of one linear layer under LoRA that changes what it gives, and PEFT's module of that layer."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["0"], "init_lora_weights": False} | config
    model = get_peft_model(nn.Sequential(nn.Linear(48, 32)), LoraConfig(**settings))
    return model, model.base_model.model[0]


def run_lora(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What it gives, and the gradients for x and for its parameters."""
    x = x.clone().requires_grad_()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    y = model(x)
    return [y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, 32)).sum(), [x, *parameters])]


@pytest.fixture
def peft_calls(monkeypatch):
    """A list that grows by True at each call of PEFT's own forward."""
    calls, original = [], lora.Linear.forward
    monkeypatch.setattr(lora.Linear, "forward", lambda *args, **kwargs: calls.append(True) or original(*args, **kwargs))
    return calls


@pytest.mark.parametrize("onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("rows", [(7,), (2, 5)], ids=str)
def test_a_plain_adapter_gives_what_peft_does(monkeypatch, peft_calls, onednn, rows):
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: onednn)
    model, _ = lora_layer()
    x = torch.randn(*rows, 48)
    expected = run_lora(model, x)
    assert len(expected) == 4 and len(peft_calls) == 1
    with fast_frozen_linears(model):
        found = run_lora(model, x)
        with torch.no_grad():
            assert relative(model(x), expected[0]) < 1e-5
        model(x).sum().backward()  # whose gradient is one number, expanded
    assert len(peft_calls) == 1
    assert max(map(relative, found, expected)) < 1e-5


@pytest.mark.parametrize(
    "config", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}], ids=["dropout", "DoRA", "bias"]
)
def test_other_adapters_run_in_peft(peft_calls, config):
    model, _ = lora_layer(**config)
    x = torch.randn(7, 48)
    torch.manual_seed(1)
    expected = run_lora(model.train(), x)
    with fast_frozen_linears(model):
        torch.manual_seed(1)
        found = run_lora(model, x)
    assert len(peft_calls) == 2
    assert max(map(relative, found, expected)) < 1e-5


def test_adapters_that_are_off_or_several_run_in_peft(peft_calls):
    model, layer = lora_layer()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    x = torch.randn(7, 48)
    outside = []
    for within in (False, True):
        with fast_frozen_linears(model) if within else nullcontext(), torch.no_grad():
            peft_calls.clear()
            with model.disable_adapter():
                results = [model(x)]
            layer.set_adapter(["default", "second"])
            results.append(model(x))
            assert len(peft_calls) == 2
            layer.set_adapter("second")
            results.append(model(x))
            assert len(peft_calls) == (2 if within else 3)
            layer.set_adapter("default")
        outside.append(results)
    assert max(map(relative, *outside)) < 1e-5


def test_an_adapter_merged_outside_is_used_within():
    model, _ = lora_layer()
    x = torch.randn(7, 48)
    with torch.no_grad(), fast_frozen_linears(model):
        expected = model(x)
    merged = model.merge_and_unload().requires_grad_(False)
    with torch.no_grad(), fast_frozen_linears(merged):
        assert relative(merged(x), expected) < 1e-5


# The choice


@needs_onednn
@pytest.mark.parametrize(
    ("capability", "vendor", "slow"),
    [("AVX512", "AuthenticAMD", True), ("AVX2", "AuthenticAMD", False), ("AVX512", "GenuineIntel", False)],
)
def test_long_products_go_to_onednn_where_mkl_leaves_avx512_unused(monkeypatch, capability, vendor, slow):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(frozen_linears, "_vendor", lambda: f"vendor_id : {vendor}")
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", frozen_linears._mkl_is_slow.__wrapped__)
    assert (fast_product(torch.zeros(40, 24)) is not None) is slow
    assert fast_product(torch.zeros(40, 24), always=True) is not None


def test_a_weight_without_gain_is_not_copied(monkeypatch):
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: False)
    monkeypatch.setattr(frozen_linears, "_in_onednn", lambda _: pytest.fail("laid out"))
    layer, x = nn.Linear(48, 32).requires_grad_(False), torch.randn(5, 48)
    expected = run(layer, x)
    with fast_frozen_linears(layer):
        found = run(layer, x)
    assert all(map(torch.equal, found, expected))


# For inference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_for_inference_gives_what_it_gave(dtype):
    model, ids = tiny_model().to(dtype), torch.tensor([[3, 4, 5, 6, 7, 8]])
    expected = model(ids).logits.detach()
    assert use_onednn(model) is model
    with torch.inference_mode():
        assert relative(model(ids).logits, expected) < 1e-5
    assert not any(parameter.requires_grad for parameter in model.parameters())


# A policy


@needs_onednn
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_policy_has_the_same_logits_and_gradients(forced, tmp_path, checkpointing):
    policy = load_with_adapter(*save_model_and_adapter(tmp_path)).train()
    if checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
        policy.enable_input_require_grads()
    names = list(policy.state_dict())
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])

    def loss():
        return policy(ids).logits.square().mean()

    expected, slopes = loss(), gradients(loss(), policy)
    with fast_frozen_linears(policy):
        found, fast = loss(), gradients(loss(), policy)
        assert list(policy.state_dict()) == names
    # both ways of 7 weights per layer and of the head; no gradient passes the lowest q, k and v unless asked for
    assert len(forced) == 2 * (7 * LAYERS + 1) - (0 if checkpointing else 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert fast.keys() == slopes.keys()
    assert size({name: fast[name] - slopes[name] for name in fast}) < 1e-5 * size(slopes)


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """A function that trains SFT and then DPO on it, four steps each -> their losses, and what the last one saved."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    optimiser = Optimiser(
        learning_rate=0.01, epochs=1.0, batch_size=4, warmup_steps=0, schedule="constant", max_grad_norm=1.0
    )
    preference = Preference(beta=0.1, lam=0.25, dpo=optimiser, orpo=optimiser)
    pairs = tiny_pairs(16).to_pandas()

    def train(name: str, lora_r: int | None, last_layers: int | None):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
        lora = {"lora_alpha": 8, "lora_targets": ["q_proj", "down_proj"]} if lora_r else {}
        model = Model(
            name=str(tmp_path / "model"),
            dtype="float32",
            template="{prompt}",
            lora_r=lora_r,
            last_layers=last_layers,
            **lora,
        )
        sft, dpo = tmp_path / name / "sft", tmp_path / name / "dpo"
        train_sft(pairs.rename(columns={"chosen": "text"}), model, optimiser, 64, 0, sft)
        train_preferences(pairs, Arm(loss="dpo", start="sft"), sft / "trained", model, preference, 64, 0, dpo)
        logs = [json.loads((folder / "log.json").read_text()) for folder in (sft, dpo)]
        file = "model.safetensors" if lora_r is None else "adapter_model.safetensors"
        return [step["loss"] for log in logs for step in log[:-1]], load_file(dpo / "trained" / file)

    return train


@needs_onednn
@pytest.mark.parametrize("last_layers", [None, 2], ids=["all layers", "over a kept trunk"])
def test_training_gives_the_same_losses_and_the_same_adapter(trainings, monkeypatch, last_layers):
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: False)
    expected, adapter = trainings("plain", 4, last_layers)
    laid_out = []
    monkeypatch.setattr(frozen_linears, "_mkl_is_slow", lambda: laid_out.append(1) or True)
    losses, fast = trainings("fast", 4, last_layers)
    assert laid_out
    assert len(losses) == 8 and len(set(losses)) > 4
    assert losses == pytest.approx(expected, rel=1e-5)
    assert fast.keys() == adapter.keys()
    assert size({name: fast[name] - adapter[name] for name in fast}) < 1e-4 * size(adapter)


@needs_onednn
def test_a_trainer_used_by_itself_is_fast_in_references_training_and_evaluation(forced, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    policy = load_with_adapter(*save_model_and_adapter(tmp_path))
    config = DeviationConfig(str(tmp_path / "out"), max_steps=1, save_strategy="no", report_to="none", use_cpu=True)
    pairs = {"train_dataset": tiny_pairs(4), "eval_dataset": tiny_pairs(2, seed=1)}
    trainer = DeviationTrainer(policy, args=config, processing_class=tiny_tokenizer(), **pairs)
    counts = [len(forced)]
    for work in (trainer.train, trainer.evaluate):
        work()
        counts.append(len(forced))
        assert not any("forward" in vars(layer) for layer in policy.modules() if type(layer) is nn.Linear)
    weights = 7 * LAYERS + 1
    # forward for the references of each data set, both ways in training, and forward again in evaluation
    assert counts == [2 * weights, 4 * weights, 5 * weights]


def test_a_model_that_trains_whole_is_not_touched(trainings, forced):
    trainings("whole", None, None)
    assert not forced
