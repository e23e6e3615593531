"""The trainer against stock TRL, against full logits, and against its own laws, on a small random model."""

import math

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import (
    direct_logps,
    gradients,
    load_with_adapter,
    save_model_and_adapter,
    size,
    tiny_model,
    tiny_pairs,
    tiny_tokenizer,
)
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.models.models import device, load_model, load_tokenizer
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.training.logps import score_responses, way_for, with_fused_head
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer, ResponseSFTTrainer

BETA, LAM = 0.3, 0.5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of the model and of the adapter that every policy here starts from."""
    return save_model_and_adapter(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path):
    """Makes a configuration for the CPU in float32 with plain gradient descent, changed where a test says so."""

    def make(kind=DeviationConfig, **changes):
        settings = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "max_grad_norm": 0.0,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
        }
        return kind(**settings | changes)

    return make


@pytest.fixture
def build(saved, config):
    """Makes a trainer of the saved adapter, or of the `model` that a test gives."""

    def make(pairs, model=None, eval_dataset=None, **changes):
        return DeviationTrainer(
            model or load_with_adapter(*saved),
            args=config(**{"beta": BETA, "lam": LAM} | changes),
            train_dataset=pairs,
            eval_dataset=eval_dataset,
            processing_class=tiny_tokenizer(),
        )

    return make


def batch_of(trainer, rows=None) -> dict:
    data = trainer.train_dataset
    return trainer.data_collator([data[i] for i in (range(len(data)) if rows is None else rows)])


def move_policy(trainer) -> None:
    """As if some steps were taken: the policy leaves the reference."""
    generator = torch.Generator().manual_seed(5)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def loss_and_gradients(trainer, rows=None):
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, rows))
    return loss.detach(), gradients(loss, trainer.model)


def trained(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def distance(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return size({name: one[name] - other[name] for name in one})


# Log-probabilities and losses


@pytest.mark.skipif(device() != "cpu", reason="a machine with a GPU trains in bfloat16 by default")
def test_a_machine_without_a_gpu_trains_in_float32_unless_told_otherwise():
    assert DeviationConfig("out", loss="dpo").bf16 is False
    with pytest.raises(ValueError, match="bf16"):
        DeviationConfig("out", loss="dpo", bf16=True)


def test_response_logps_are_those_of_the_full_padded_logits(saved, build):
    batch = batch_of(build(tiny_pairs(6)))
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 3, "rows of one length"
    model = load_with_adapter(*saved)
    sums, counts = score_responses(model, batch, batch["completion_mask"])[:2]
    torch.testing.assert_close(sums, direct_logps(model, batch).sum(dim=1).float(), atol=1e-4, rtol=0)
    assert counts.tolist() == batch["completion_mask"].sum(dim=1).tolist()


@pytest.mark.parametrize("weight", [None, [1.0] * 5])
def test_with_weights_of_one_loss_and_gradients_are_those_of_stock_dpo(saved, config, build, weight):
    ours = build(tiny_pairs(5, weight))
    stock = DPOTrainer(
        load_with_adapter(*saved),
        args=config(DPOConfig, beta=BETA),
        train_dataset=tiny_pairs(5),
        processing_class=tiny_tokenizer(),
    )
    move_policy(ours)
    move_policy(stock)
    our_loss, our_gradients = loss_and_gradients(ours)
    stock_loss, stock_gradients = loss_and_gradients(stock)
    assert our_loss.item() == pytest.approx(stock_loss.item(), abs=1e-5)
    assert abs(stock_loss.item() - math.log(2)) > 0.01
    assert distance(our_gradients, stock_gradients) < 1e-5
    assert size(stock_gradients) > 1e-3


def test_so_it_is_on_a_real_model(config, monkeypatch):
    """SmolLM2-135M in float64, so that rounding in 30 layers hides nothing; openings of two pairs of the corpus."""
    monkeypatch.undo()  # the model lies in the cache that all share
    name = "smollm2-135m-instruct"
    pairs = make_pairs(read_corpus(held_out=0.0)).head(2)
    for side, words in (("chosen", 10), ("rejected", 16)):  # all that is compared is of a few words as of many
        pairs[side] = pairs[side].str.split().str[:words].str.join(" ")
    pairs = Dataset.from_pandas(pairs[["prompt", "chosen", "rejected"]], preserve_index=False)
    results = []
    for kind, settings in ((DeviationTrainer, DeviationConfig), (DPOTrainer, DPOConfig)):
        base = load_model(name)
        torch.manual_seed(0)  # after the model is there, which is made at first use and draws numbers
        lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        trainer = kind(
            get_peft_model(base, lora).double(),
            args=config(settings, beta=BETA, precompute_ref_log_probs=True),
            train_dataset=pairs,
            processing_class=load_tokenizer(name),
        )
        generator = torch.Generator().manual_seed(5)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # as if some steps were taken
                parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        results.append(loss_and_gradients(trainer))
    (our_loss, our_gradients), (stock_loss, stock_gradients) = results
    assert our_loss.item() == pytest.approx(stock_loss.item(), abs=1e-5)
    assert abs(stock_loss.item() - math.log(2)) > 0.01
    assert distance(our_gradients, stock_gradients) < 1e-5
    assert size(stock_gradients) > 1e-2


def test_with_two_temperatures_it_is_the_formula_on_full_logits(saved, build):
    trainer = build(tiny_pairs(6), policy_beta=3 * BETA)
    move_policy(trainer)
    batch = batch_of(trainer)
    logps = direct_logps(trainer.model, batch).sum(dim=1)
    start = direct_logps(load_with_adapter(*saved), batch).sum(dim=1)
    (winner, loser), (ref_winner, ref_loser) = logps.chunk(2), start.chunk(2)
    expected = -torch.nn.functional.logsigmoid(3 * BETA * (winner - loser) - BETA * (ref_winner - ref_loser)).mean()
    loss = trainer.compute_loss(trainer.model, batch)
    torch.testing.assert_close(loss.double(), expected.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_orpo_is_the_formula_on_full_logits(saved, build, variant):
    weight = torch.tensor([0.5, 2.0, 0.0, 1.5])
    trainer = build(tiny_pairs(4, weight.tolist()), loss="orpo", dorpo_variant=variant)
    batch = batch_of(trainer)
    logps = direct_logps(load_with_adapter(*saved), batch).sum(dim=1) / batch["completion_mask"].sum(dim=1)
    chosen, rejected = logps.exp().chunk(2)
    odds_ratio = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
    if variant == "paper":
        losses = weight * (-chosen.log() + LAM * torch.log(1 + 1 / odds_ratio))
    else:
        losses = weight * (-chosen.log()).mean() + LAM * torch.log(1 + odds_ratio**-weight)
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(losses.mean().item(), abs=1e-5)


def test_gradient_checkpointing_changes_nothing(build):
    results = []
    for checkpointing in (True, False):
        trainer = build(tiny_pairs(4, [0.5, 2.0, 0.0, 1.5]), gradient_checkpointing=checkpointing)
        trainer.model.train()
        move_policy(trainer)
        results.append(loss_and_gradients(trainer)[1])
    assert distance(*results) < 1e-6


def test_sft_loss_and_gradients_are_those_of_stock_sft(saved, config):
    pairs = tiny_pairs(5)
    data = Dataset.from_dict({"prompt": pairs["prompt"], "completion": pairs["chosen"]})
    results = []
    for kind in (ResponseSFTTrainer, SFTTrainer):
        trainer = kind(
            load_with_adapter(*saved),
            args=config(SFTConfig, loss_type="nll"),
            train_dataset=data,
            processing_class=tiny_tokenizer(),
        )
        results.append(loss_and_gradients(trainer))
    (our_loss, our_gradients), (stock_loss, stock_gradients) = results
    assert our_loss.item() == pytest.approx(stock_loss.item(), abs=1e-5)
    assert distance(our_gradients, stock_gradients) < 1e-5


# Laws of the weights

LOSSES = pytest.mark.parametrize("loss", ["dpo", "orpo"])


@LOSSES
def test_a_pair_of_weight_zero_gives_no_gradient(build, loss):
    trainer = build(tiny_pairs(2, [0.0, 1.0]), loss=loss)
    move_policy(trainer)
    zero, one = (loss_and_gradients(trainer, [row])[1] for row in (0, 1))
    assert size(zero) == 0
    assert size(one) > 1e-3


@LOSSES
def test_a_pair_of_weight_zero_adds_nothing_to_a_batch_but_its_place_in_the_mean(build, loss):
    trainer = build(tiny_pairs(3, [0.5, 0.0, 2.0]), loss=loss)
    move_policy(trainer)
    with_zero, without = (loss_and_gradients(trainer, rows) for rows in ([0, 1, 2], [0, 2]))
    assert with_zero[0].item() == pytest.approx(without[0].item() * 2 / 3, abs=1e-5)
    assert distance(with_zero[1], {name: g * 2 / 3 for name, g in without[1].items()}) < 1e-5


@LOSSES
def test_doubling_a_weight_doubles_its_gradient(build, loss):
    once, twice = (build(tiny_pairs(1, [weight]), loss=loss) for weight in (0.7, 1.4))
    move_policy(once)
    move_policy(twice)
    single, double = loss_and_gradients(once)[1], loss_and_gradients(twice)[1]
    assert distance({name: 2 * g for name, g in single.items()}, double) < 1e-5
    assert size(single) > 1e-3


@LOSSES
@pytest.mark.parametrize(("weight", "accumulation"), [([0.2, 3.0, 0.0, 0.8], 2), ([0.2, 3.0, 0.0, 0.8, 1.5], 3)])
def test_accumulation_over_micro_batches_is_one_batch(saved, build, loss, weight, accumulation):
    """Also where the last is not full: of five pairs as two, two and one, it is a fifth of the mean, not a third."""
    results = []
    for batch_size, steps in ((len(weight), 1), (2, accumulation)):
        trainer = build(
            tiny_pairs(len(weight), weight),
            loss=loss,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            learning_rate=0.1,
            max_steps=1,
        )
        trainer.train()
        results.append((trainer.state.log_history[0]["loss"], trained(trainer.model)))
    (whole_loss, whole), (parts_loss, parts) = results
    assert parts_loss == pytest.approx(whole_loss, abs=1e-5)
    assert distance(parts, whole) < 1e-5
    assert distance(whole, trained(load_with_adapter(*saved))) > 1e-3


def test_the_log_tells_how_the_weights_spread(build):
    trainer = build(tiny_pairs(4, [0.0, 1.0, 2.0, 1.0]), per_device_train_batch_size=4, max_steps=1)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["weight/mean"] == pytest.approx(1.0)
    assert first["weight/effective_pairs"] == pytest.approx(4.0**2 / (1 + 4 + 1))
    assert first["weight/zero"] == pytest.approx(0.25)
    # at the first step every loss is log 2 times its weight; the quartiles of the weights are 0.75 and 1.25
    assert first["loss/top_weights"] == pytest.approx(2 * math.log(2), abs=1e-4)
    assert first["loss/bottom_weights"] == pytest.approx(0.0, abs=1e-6)


def test_the_log_has_what_stock_dpo_logs(saved, config, build):
    settings = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 0.1}
    ours = build(tiny_pairs(4), train_sampling_strategy="sequential", **settings)
    stock = DPOTrainer(
        load_with_adapter(*saved),
        args=config(DPOConfig, beta=BETA, train_sampling_strategy="sequential", **settings),
        train_dataset=tiny_pairs(4),
        processing_class=tiny_tokenizer(),
    )
    ours.train()
    stock.train()
    for found, expected in zip(ours.state.log_history[:2], stock.state.log_history[:2], strict=True):
        assert found.keys() >= expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-4), name
    assert stock.state.log_history[1]["rewards/margins"] != 0


# The reference


def direct_reference(model, trainer) -> torch.Tensor:
    batch = batch_of(trainer)
    return direct_logps(model, batch).sum(dim=1).float()


def kept_reference(trainer) -> torch.Tensor:
    data = trainer.train_dataset
    return torch.tensor([*data["ref_chosen_logps"], *data["ref_rejected_logps"]])


def count_forwards(model) -> list:
    """A list that grows by one at every call of the model's last layer."""
    calls = []
    model.get_base_model().model.layers[-1].register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_reference_log_probs_are_those_of_the_initial_policy_and_are_computed_once(saved, build):
    pairs = tiny_pairs(6)
    moved = pairs.select_columns(["chosen", "rejected"]).add_column("prompt", pairs["prompt"][::-1])
    pairs = concatenate_datasets([pairs, moved])  # the same responses under other prompts
    first = load_with_adapter(*saved)
    calls = count_forwards(first)
    trainer = build(pairs, first)
    assert len(calls) > 0
    torch.testing.assert_close(
        kept_reference(trainer), direct_reference(load_with_adapter(*saved), trainer), atol=1e-4, rtol=0
    )

    second = load_with_adapter(*saved)
    calls = count_forwards(second)
    again = build(pairs.add_column("weight", [2.0] * 12), second)
    assert len(calls) == 0
    assert kept_reference(again).tolist() == kept_reference(trainer).tolist()


def test_only_the_new_pairs_of_a_data_set_are_computed(saved, build):
    build(tiny_pairs(4), precompute_ref_batch_size=1)
    model = load_with_adapter(*saved)
    way_for(with_fused_head(model), "cpu")  # what the first use compares is no pair
    calls = count_forwards(model)
    trainer = build(tiny_pairs(6), model, precompute_ref_batch_size=1)
    assert len(calls) == 2
    torch.testing.assert_close(
        kept_reference(trainer), direct_reference(load_with_adapter(*saved), trainer), atol=1e-4, rtol=0
    )


def with_other_weights(model, adapter):
    policy = load_with_adapter(model, adapter)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data *= 2
    return policy


def with_other_scaling(model, adapter):
    lora = LoraConfig.from_pretrained(adapter)
    lora.lora_alpha *= 2
    base = AutoModelForCausalLM.from_pretrained(model)
    return PeftModel.from_pretrained(base, str(adapter), config=lora, is_trainable=True)


@pytest.mark.parametrize("another", [with_other_weights, with_other_scaling])
def test_a_model_is_never_given_the_reference_of_another(saved, build, another):
    build(tiny_pairs(4))
    trainer = build(tiny_pairs(4), another(*saved))
    torch.testing.assert_close(kept_reference(trainer), direct_reference(another(*saved), trainer), atol=1e-4, rtol=0)


def test_training_starts_from_the_reference(build):
    trainer = build(tiny_pairs(8), per_device_train_batch_size=4, max_steps=3, learning_rate=0.1)
    trainer.train()
    first, *_, last = [entry for entry in trainer.state.log_history if "rewards/margins" in entry]
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(last["rewards/margins"]) > 1e-3


# Training, evaluation, saving


@LOSSES
@pytest.mark.parametrize("kind", ["peft", "full"])
def test_a_few_steps_lower_the_loss(saved, build, loss, kind):
    model = load_with_adapter(*saved) if kind == "peft" else tiny_model()
    before = trained(model)
    trainer = build(
        tiny_pairs(4, [0.5, 1.0, 1.5, 2.0]),
        model,
        loss=loss,
        per_device_train_batch_size=4,
        max_steps=8,
        learning_rate=0.02,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.02
    assert distance(before, {name: p for name, p in trained(trainer.model).items() if name in before}) > 1e-4


def test_a_new_adapter_is_made_from_a_peft_config(saved, config):
    trainer = DeviationTrainer(
        AutoModelForCausalLM.from_pretrained(saved[0]),
        args=config(max_steps=2, learning_rate=0.1),
        train_dataset=tiny_pairs(4),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    before = trained(trainer.model)
    trainer.train()
    assert before
    assert all("lora" in name for name in before)
    assert distance(before, trained(trainer.model)) > 1e-6


@LOSSES
def test_evaluation_gives_the_weighted_mean_over_all_pairs(build, loss):
    held_out = tiny_pairs(5, [0.0, 1.0, 2.0, 0.5, 3.0], seed=9)
    trainer = build(tiny_pairs(4), eval_dataset=held_out, loss=loss, per_device_eval_batch_size=2)
    move_policy(trainer)
    metrics = trainer.evaluate()
    with torch.no_grad():
        whole = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.eval_dataset)))
    assert metrics["eval_loss"] == pytest.approx(whole.item(), abs=1e-5)
    assert "eval_rewards/margins" in metrics


@LOSSES
def test_several_held_out_sets_are_told_apart(build, loss):
    sets = {"first": tiny_pairs(3, seed=9), "second": tiny_pairs(4, [0.0, 1.0, 2.0, 1.0], seed=10)}
    trainer = build(tiny_pairs(4), eval_dataset=sets, loss=loss)
    move_policy(trainer)
    metrics = trainer.evaluate()
    for name, pairs in sets.items():
        alone = build(tiny_pairs(4), eval_dataset=pairs, loss=loss)
        move_policy(alone)
        assert metrics[f"eval_{name}_loss"] == pytest.approx(alone.evaluate()["eval_loss"], abs=1e-5)
    assert metrics["eval_first_loss"] != pytest.approx(metrics["eval_second_loss"], abs=1e-2)


def test_full_fine_tuning_against_a_reference_model_of_its_own(config):
    policy, reference = tiny_model(), tiny_model(seed=1)
    trainer = DeviationTrainer(
        policy,
        reference,
        args=config(beta=BETA, per_device_train_batch_size=4, max_steps=1, learning_rate=0.01),
        train_dataset=tiny_pairs(4),
        processing_class=tiny_tokenizer(),
    )
    batch = batch_of(trainer)
    expected = direct_logps(tiny_model(seed=1), batch).sum(dim=1).float()
    torch.testing.assert_close(kept_reference(trainer), expected, atol=1e-4, rtol=0)
    trainer.train()
    moved = direct_logps(tiny_model(), batch).sum(dim=1) - expected
    first = trainer.state.log_history[0]
    assert first["rewards/chosen"] == pytest.approx(BETA * moved.chunk(2)[0].mean().item(), abs=1e-4)
    assert first["rewards/rejected"] == pytest.approx(BETA * moved.chunk(2)[1].mean().item(), abs=1e-4)
    assert distance(trained(reference), trained(tiny_model(seed=1))) == 0, "the reference was trained"
    assert distance(trained(policy), trained(tiny_model())) > 1e-4


def test_a_merged_adapter_can_be_trained_whole(saved, build):
    start = load_model(str(saved[0]), saved[1])
    before = {name: parameter.detach().clone() for name, parameter in start.named_parameters()}
    build(tiny_pairs(4), model=start, max_steps=1, learning_rate=0.01).train()
    after = trained(start)
    assert after.keys() == before.keys()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == after.keys()


@pytest.mark.parametrize("kind", ["preferences", "SFT"])
def test_a_model_without_a_parameter_to_train_is_refused(config, kind):
    model, options = tiny_model().requires_grad_(False), {"processing_class": tiny_tokenizer()}
    with pytest.raises(ValueError, match="model: none of its parameters is trained"):
        if kind == "preferences":
            DeviationTrainer(model, args=config(), train_dataset=tiny_pairs(4), **options)
        else:
            data = tiny_pairs(4).rename_column("chosen", "completion").remove_columns("rejected")
            ResponseSFTTrainer(model, args=config(SFTConfig), train_dataset=data, **options)


def test_data_first_seen_after_training_is_compared_with_the_initial_policy(saved, build):
    trainer = build(tiny_pairs(4), per_device_train_batch_size=4, max_steps=3, learning_rate=0.1)
    trainer.train()
    held_out = tiny_pairs(4, seed=9)
    metrics = trainer.evaluate(eval_dataset=held_out)

    batch = batch_of(build(held_out, loss="orpo"))
    moved = direct_logps(trainer.model, batch) - direct_logps(load_with_adapter(*saved), batch)
    chosen, rejected = (BETA * moved.sum(dim=1)).chunk(2)
    assert chosen.abs().max() > 1e-2
    assert metrics["eval_rewards/margins"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-4)


def test_what_save_model_writes_gives_the_same_logits(saved, build, tmp_path):
    batch = batch_of(build(tiny_pairs(3), loss="orpo"))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for kind in ("peft", "full"):
        model = load_with_adapter(*saved) if kind == "peft" else tiny_model()
        with torch.no_grad():
            before = model(**inputs).logits
        trainer = build(tiny_pairs(4), model, max_steps=2, learning_rate=0.1)
        trainer.train()
        trainer.save_model(str(tmp_path / kind))
        again = (
            load_with_adapter(saved[0], tmp_path / kind)
            if kind == "peft"
            else AutoModelForCausalLM.from_pretrained(tmp_path / kind)
        )
        trainer.model.eval()
        with torch.no_grad():
            ours, reloaded = trainer.model(**inputs).logits, again.eval()(**inputs).logits
        torch.testing.assert_close(reloaded, ours, atol=1e-5, rtol=0)
        assert (ours - before).abs().max() > 1e-3


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_resuming_gives_the_adapter_of_an_uninterrupted_run(build, tmp_path, stop):
    """Four steps an epoch: a stop within the first epoch, at its end and within the second."""
    settings = {
        "per_device_train_batch_size": 2,
        "max_steps": 10,
        "optim": "adamw_torch",
        "learning_rate": 0.01,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 2,
    }
    pairs = tiny_pairs(8, [0.2, 3.0, 0.0, 0.8, 1.0, 2.0, 0.5, 0.5])
    whole = build(pairs, **settings)
    whole.train()
    resumed = build(pairs, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 10
    assert distance(trained(resumed.model), trained(whole.model)) < 1e-6


# Bad input


def pairs_of_length(lengths: list[int]) -> Dataset:
    """Pairs whose longer side has so many tokens: a prompt of 2, the words, and the end token."""
    return Dataset.from_dict(
        {
            "prompt": ["the old "] * len(lengths),
            "chosen": ["cat"] * len(lengths),
            "rejected": [" ".join(["sat"] * (length - 3)) for length in lengths],
        }
    )


def test_long_pairs_are_counted_and_named_never_cut(build):
    with pytest.raises(ValueError, match=r"max_length: 2 of 4 pairs of the train data .* first row 2 with 13"):
        build(pairs_of_length([8, 12, 13, 20]), max_length=12)
    with pytest.raises(ValueError, match=r"max_length: 1 of 2 pairs of the eval data .* first row 1"):
        build(tiny_pairs(2), eval_dataset=pairs_of_length([8, 40]), max_length=30)


@pytest.mark.parametrize("max_length", [13, None])
def test_pairs_up_to_max_length_stay_whole(build, max_length):
    trainer = build(pairs_of_length([8, 13]), max_length=max_length)
    assert batch_of(trainer)["attention_mask"].sum(dim=1).tolist() == [4, 4, 8, 13]


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf, None])
def test_a_bad_weight_is_named_with_its_row(build, bad):
    with pytest.raises(ValueError, match=r"weight: row 2 of the train data"):
        build(tiny_pairs(4, [1.0, 0.0, bad, 1.0]))
    with pytest.raises(ValueError, match=r"weight: row 1 of the eval data"):
        build(tiny_pairs(2), eval_dataset=tiny_pairs(2, [1.0, bad]))


def test_weights_that_are_words_are_refused(build):
    with pytest.raises(ValueError, match=r"weight: row 0 of the train data is '1\.0'"):
        build(tiny_pairs(2, ["1.0", "2.0"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("beta", "lam") for value in (0.0, -0.1, math.nan, math.inf)],
        ("loss", "ipo"),
        ("dorpo_variant", "mine"),
    ],
)
def test_a_bad_setting_is_named(config, name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected"):
        config(**{name: value})


def test_a_mixture_of_experts_trains_only_without_its_auxiliary_loss(build):
    words = len(tiny_tokenizer())
    sizes = {"vocab_size": words, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    experts = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    mixture = MixtralForCausalLM(MixtralConfig(**sizes, **experts, pad_token_id=0, eos_token_id=1))
    with pytest.raises(ValueError, match=r"^router_aux_loss_coef: "):
        build(tiny_pairs(2), mixture, loss="orpo")
    trainer = build(tiny_pairs(2), mixture, loss="orpo", router_aux_loss_coef=0.0, max_steps=1)
    assert trainer.train().training_loss > 0
