"""A model whose lower layers are kept on disk against the same model whole."""

import json

import pytest
import torch
from tiny import (
    LAYERS,
    direct_logps,
    gradients,
    load_with_adapter,
    save_model_and_adapter,
    size,
    tiny_model,
    tiny_pairs,
    tiny_tokenizer,
)
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from ddpo_lib.models.packing import pack
from ddpo_lib.profiles.settings import Arm, Model, Optimiser, Preference
from ddpo_lib.training.batches import WeightedPairs
from ddpo_lib.training.frozen_layers import Trunk, keep_lower_layers
from ddpo_lib.training.logps import score_responses, with_fused_head
from ddpo_lib.training.train import train_preferences
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

DEPTH = LAYERS - 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a model and of an adapter on the layers above the trunk."""
    return save_model_and_adapter(tmp_path_factory.mktemp("tiny"), last_layers=LAYERS - DEPTH)


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path):
    return DeviationConfig(
        str(tmp_path / "out"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=3,
        max_steps=4,
        learning_rate=0.01,
    )


def tokenized(pairs) -> dict:
    """One right-padded batch of pairs."""
    tokenizer = tiny_tokenizer()
    rows = [
        {
            "prompt_ids": tokenizer(pair["prompt"]).input_ids,
            "chosen_ids": [*tokenizer(pair["chosen"]).input_ids, tokenizer.eos_token_id],
            "rejected_ids": [*tokenizer(pair["rejected"]).input_ids, tokenizer.eos_token_id],
        }
        for pair in pairs
    ]
    return WeightedPairs(tokenizer.pad_token_id)(rows)


@pytest.fixture
def batch():
    batch = tokenized(tiny_pairs(4))
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 3, "rows of one length"
    return batch


def split(saved):
    """The policy without its lower layers, those layers, and a list that grows at every call of the lowest."""
    base = AutoModelForCausalLM.from_pretrained(saved[0])
    calls = []
    base.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    trunk = Trunk(base, DEPTH)
    return load_with_adapter(base, saved[1]), trunk, calls


@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probs_and_gradients_are_those_of_the_whole_model(saved, batch, checkpointing):
    whole = load_with_adapter(*saved)
    policy, trunk, _ = split(saved)
    if checkpointing:
        policy.gradient_checkpointing_enable()
        policy.train()
    results = []
    for model, lower in ((whole, None), (policy, trunk)):
        logps, counts = score_responses(model, batch, batch["completion_mask"], lower)[:2]
        results.append((logps.detach(), gradients((logps / counts).sum(), model)))
    (whole_logps, whole_gradients), (logps, found) = results
    torch.testing.assert_close(logps, whole_logps, atol=1e-5, rtol=0)
    assert found.keys() == whole_gradients.keys()
    assert size({name: found[name] - whole_gradients[name] for name in found}) < 1e-5
    assert size(found) > 1e-3


def test_the_second_use_reads_from_disk(saved, batch):
    packed = pack(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    states = []
    for runs in (1, 0):
        _, trunk, calls = split(saved)
        calls.clear()  # of the trunk's check of itself
        states.append(trunk(packed))
        assert len(calls) == runs
    torch.testing.assert_close(*states, atol=0, rtol=0)


def test_other_weights_and_other_depths_are_kept_apart(saved, batch):
    packed = pack(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    split(saved)[1](packed)
    base = tiny_model(seed=1)
    states = Trunk(base, DEPTH)(packed)
    lower = Trunk(AutoModelForCausalLM.from_pretrained(saved[0]), DEPTH - 1)(packed)

    for found, model, depth in ((states, tiny_model(seed=1), DEPTH), (lower, tiny_model(), DEPTH - 1)):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True).hidden_states[depth]
        before_response = batch["completion_mask"][:, 1:].bool()
        # states are of size 1 to 10, and float32 sums differ in order
        torch.testing.assert_close(found[0, packed.predicting], expected[:, :-1][before_response], atol=1e-5, rtol=1e-5)


def test_an_adapter_trained_over_a_trunk_fits_the_whole_model(saved, batch, config, tmp_path):
    policy, trunk, _ = split(saved)
    before = score_responses(policy, batch, batch["completion_mask"], trunk)[0]
    trainer = DeviationTrainer(
        policy, args=config, train_dataset=tiny_pairs(6), processing_class=tiny_tokenizer(), trunk=trunk
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    with torch.no_grad():
        ours = score_responses(policy.eval(), batch, batch["completion_mask"], trunk)[0]
    theirs = direct_logps(load_with_adapter(saved[0], tmp_path / "adapter").eval(), batch).sum(dim=1).float()
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)
    assert (theirs - before).abs().max() > 1e-2


def test_models_that_differ_below_do_not_share_reference_log_probs(saved, config, tmp_path):
    """The upper layers and the adapter are the same in both."""
    other = AutoModelForCausalLM.from_pretrained(saved[0])
    other.model.layers[0].mlp.down_proj.weight.data *= 2
    other.save_pretrained(tmp_path / "other")
    for folder in (saved[0], tmp_path / "other"):
        policy, trunk, _ = split((folder, saved[1]))
        trainer = DeviationTrainer(
            policy, args=config, train_dataset=tiny_pairs(4), processing_class=tiny_tokenizer(), trunk=trunk
        )
        data = trainer.train_dataset
        batch = trainer.data_collator(list(data))
        expected = direct_logps(load_with_adapter(folder, saved[1]), batch).sum(dim=1).float()
        kept = torch.tensor([*data["ref_chosen_logps"], *data["ref_rejected_logps"]])
        torch.testing.assert_close(kept, expected, atol=1e-4, rtol=0)


def test_two_models_in_folders_do_not_share_a_trunk(tmp_path):
    """Trained as a profile with `last_layers` says; the log's first step tells what the untrained model gives."""
    optimiser = Optimiser(
        learning_rate=0.01, epochs=1.0, batch_size=4, warmup_steps=0, schedule="constant", max_grad_norm=1.0
    )
    preference = Preference(beta=0.1, lam=0.25, dpo=optimiser, orpo=optimiser)
    pairs = tiny_pairs(4)
    for seed in (0, 1):
        folder = tmp_path / f"model-{seed}"
        tiny_model(seed).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        model = Model(
            name=str(folder),
            dtype="float32",
            template="{prompt}",
            lora_r=4,
            lora_alpha=8,
            lora_targets=["q_proj"],
            last_layers=LAYERS - DEPTH,
        )
        out = tmp_path / f"trained-{seed}"
        train_preferences(pairs.to_pandas(), Arm(loss="dpo", start="base"), None, model, preference, 64, 0, out)
        first = json.loads((out / "log.json").read_text())[0]
        expected = direct_logps(tiny_model(seed), tokenized(pairs)).sum(dim=1)[:4].mean().item()
        assert first["logps/chosen"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("depth", [-1, 0, LAYERS, LAYERS + 1])
def test_a_depth_that_leaves_no_layer_on_either_side_is_refused(depth):
    with pytest.raises(ValueError, match=rf"depth: expected 1 to {LAYERS - 1}, got {depth}"):
        Trunk(tiny_model(), depth)


def build(kind, **settings):
    torch.manual_seed(2)
    sizes = {"vocab_size": 23, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "pad_token_id": 0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **settings})).eval()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("granite", {"intermediate_size": 48, "embedding_multiplier": 12.0, "logits_scaling": 8.0}),
        ("gpt2", {"n_positions": 64, "tie_word_embeddings": True}),
        ("gpt_neox", {"intermediate_size": 48}),
    ],
)
def test_embeddings_are_treated_once_in_a_decoder_of_any_build(kind, settings, batch):
    """Granite multiplies embeddings, GPT-2 adds learned positions to them: a trunk's states are not embeddings."""
    whole, upper = with_fused_head(build(kind, **settings)), with_fused_head(build(kind, **settings))
    with torch.no_grad():
        expected = direct_logps(whole, batch).sum(dim=1).float()
        trunk = Trunk(upper, 2)
        found = score_responses(upper, batch, batch["completion_mask"], trunk).logps
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


class Again(LlamaForCausalLM):
    """The second layer also reads the first one's input."""

    def __init__(self, config):
        super().__init__(config)
        seen = []
        self.model.embed_tokens.register_forward_hook(lambda *_: seen.clear())
        self.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        self.model.layers[1].register_forward_pre_hook(lambda _, inputs: (inputs[0] + seen.pop(),))


def test_a_model_that_needs_more_of_its_lower_layers_keeps_them(caplog):
    model = Again(tiny_model().config)
    with torch.no_grad():
        before = model(torch.arange(5)[None]).logits
        assert keep_lower_layers(model, 1) is None
        torch.testing.assert_close(model(torch.arange(5)[None]).logits, before, atol=0, rtol=0)
    (line,) = caplog.messages
    assert line.startswith("all layers run at every step, since the lower ones cannot be kept: Again: ")


def test_layers_that_were_taken_out_are_not_passed_over_in_silence(saved):
    policy, trunk, _ = split(saved)
    with pytest.raises(ValueError, match="the model's lower layers are kept apart from it"):
        policy(torch.arange(5)[None])
    with trunk.whole(), torch.no_grad():
        expected = load_with_adapter(*saved)(torch.arange(5)[None]).logits
        torch.testing.assert_close(policy(torch.arange(5)[None]).logits, expected, atol=1e-5, rtol=0)


def test_a_model_that_cannot_be_packed_says_why():
    with pytest.raises(ValueError, match=r"BloomForCausalLM: batches cannot be packed: it takes no `position_ids`"):
        Trunk(build("bloom"), 1)
