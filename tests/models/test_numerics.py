"""Number formats: what is trained moves, what is sampled is what was trained, and the record tells formats apart."""

import json

import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny import save_model_and_adapter, tiny_model, tiny_pairs, tiny_tokenizer

from ddpo_lib.models.models import load_model
from ddpo_lib.models.numerics import numerics_of, train_in_float32
from ddpo_lib.profiles.settings import Model, Optimiser
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

RATE = 5e-6  # of the paper's DPO


def share_moved(before: dict, after: dict) -> float:
    """Of the weights of linear layers; each of them has a gradient."""
    names = [name for name in before if "proj" in name]
    moved = sum(int((before[name].float() != after[name].float()).sum()) for name in names)
    return moved / sum(before[name].numel() for name in names)


def test_all_weights_of_a_bfloat16_profile_without_an_adapter_move(tmp_path):
    from ddpo_lib.training.train import train_sft

    tiny_model().bfloat16().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model = Model(name=str(tmp_path / "model"), dtype="bfloat16", template="{prompt} ", lora_r=None)
    optimiser = Optimiser(
        learning_rate=RATE, epochs=1.0, batch_size=4, warmup_steps=0, schedule="constant", max_grad_norm=1.0
    )
    rows = tiny_pairs(8)
    corpus = pd.DataFrame({"prompt": rows["prompt"], "text": rows["chosen"]})
    train_sft(corpus, model, optimiser, 64, 0, tmp_path / "sft")
    trained = load_file(tmp_path / "sft" / "trained" / "model.safetensors")
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert share_moved(load_file(tmp_path / "model" / "model.safetensors"), trained) > 0.99


def test_the_trainer_makes_what_it_trains_float32_and_says_so(tmp_path, caplog):
    policy = tiny_model().bfloat16()
    before = {name: p.clone() for name, p in policy.state_dict().items()}
    config = DeviationConfig(
        str(tmp_path), use_cpu=True, bf16=True, learning_rate=RATE, max_steps=2, report_to="none", logging_steps=1
    )
    trainer = DeviationTrainer(policy, args=config, train_dataset=tiny_pairs(8), processing_class=tiny_tokenizer())
    assert "trained parameters are made float32 (torch.bfloat16 as loaded)" in caplog.text
    trainer.train()
    assert share_moved(before, trainer.model.state_dict()) > 0.99
    first = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert first == pytest.approx(0.6931, abs=5e-3)  # policy and reference begin equal


def test_bfloat16_parameters_would_lose_most_steps():
    """What the two tests above prevent: two Adam steps of 5e-6 on weights in bfloat16."""
    policy = tiny_model().bfloat16()
    before = {name: p.clone() for name, p in policy.state_dict().items()}
    adam = torch.optim.AdamW(policy.parameters(), lr=RATE, weight_decay=0.0)
    tokens = torch.randint(3, 23, (4, 16))
    for _ in range(2):
        policy(input_ids=tokens, labels=tokens).loss.backward()
        adam.step()
    assert share_moved(before, policy.state_dict()) < 0.1


def test_a_frozen_base_in_bfloat16_needs_autocast(tmp_path):
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_model().bfloat16(), lora, autocast_adapter_dtype=False)
    with pytest.raises(ValueError, match="set bf16=True"):
        train_in_float32(adapted, autocast=False)
    train_in_float32(adapted, autocast=True)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in adapted.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


@pytest.fixture
def small_adapter(tmp_path):
    """A model, an adapter that changes its weights as little as DPO does, and texts."""
    model, adapter = save_model_and_adapter(tmp_path)
    weights = load_file(adapter / "adapter_model.safetensors")
    from safetensors.torch import save_file

    small = {name: tensor * (0.02 if "lora_B" in name else 1.0) for name, tensor in weights.items()}
    save_file(small, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    return model, adapter, torch.randint(3, 23, (8, 32), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def effect(changed, base, tokens) -> torch.Tensor:
    return changed.eval()(input_ids=tokens).logits.float() - base.eval()(input_ids=tokens).logits.float()


def test_a_bfloat16_model_is_sampled_with_the_whole_effect_of_its_adapter(small_adapter):
    """Merged into bfloat16, the weights lose a part of the adapter; beside them, the adapter is exact."""
    from peft import PeftModel

    model, adapter, tokens = small_adapter
    loaded = load_model(str(model), adapter, dtype="bfloat16")
    assert {name.split(".")[-3]: p.dtype for name, p in loaded.named_parameters() if "lora" in name} == {
        "lora_A": torch.float32,
        "lora_B": torch.float32,
    }
    merged = PeftModel.from_pretrained(load_model(str(model), dtype="bfloat16"), str(adapter)).merge_and_unload()
    for module in (loaded, merged):  # compare weights, not the rounding of bfloat16 activations
        module.float()
    base = load_model(str(model), dtype="bfloat16").float()
    # the reference: the same rounded base, with the adapter merged in float32
    exact = PeftModel.from_pretrained(load_model(str(model), dtype="bfloat16").float(), str(adapter)).merge_and_unload()
    wanted = effect(exact, base, tokens)
    size = wanted.norm()
    assert (effect(loaded, base, tokens) - wanted).norm() / size < 1e-4
    assert (effect(merged, base, tokens) - wanted).norm() / size > 0.05


def test_a_float32_model_is_merged_as_before(small_adapter):
    model, adapter, _ = small_adapter
    loaded = load_model(str(model), adapter)
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_record_tells_formats_apart():
    model = tiny_model()
    record = json.loads(numerics_of(model))
    assert record["dtype"] == "float32"
    assert record["device"] == "cpu"
    assert record["autocast"] is None
    assert record["attention"] == "sdpa"
    assert record["torch"] == ".".join(torch.__version__.split(".")[:2])
    with torch.autocast("cpu", torch.bfloat16):
        autocast = numerics_of(model)
    assert json.loads(autocast)["autocast"] == "torch.bfloat16"
    model.set_attn_implementation("eager")
    others = [numerics_of(model), numerics_of(tiny_model().bfloat16()), numerics_of(model, bfloat16_products=True)]
    assert len({numerics_of(tiny_model()), autocast, numerics_of(tiny_model(), "cuda"), *others}) == 6


def references(folder, bf16: bool) -> list[float]:
    config = DeviationConfig(str(folder), use_cpu=True, bf16=bf16, report_to="none")
    rows = Dataset.from_list(list(tiny_pairs(4)))
    trainer = DeviationTrainer(tiny_model(), args=config, train_dataset=rows, processing_class=tiny_tokenizer())
    return trainer.train_dataset["ref_chosen_logps"]


def test_references_under_autocast_are_not_those_of_float32(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    exact = references(tmp_path, bf16=False)
    rounded = references(tmp_path, bf16=True)
    assert exact != rounded
    assert exact == pytest.approx(rounded, abs=0.5)
    assert references(tmp_path, bf16=False) == exact
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert references(tmp_path, bf16=True) == rounded
