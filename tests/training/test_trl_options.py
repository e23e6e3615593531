"""Every option, argument and method of TRL's DPO works here as there, or is refused when the trainer is built."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny import load_with_adapter, save_model_and_adapter, tiny_model, tiny_pairs, tiny_tokenizer
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ddpo_lib.training.config import REFUSED
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

OF_TRL = """
    model_init_kwargs trust_remote_code router_aux_loss_coef disable_dropout dataset_num_proc max_length
    pad_to_multiple_of precompute_ref_log_probs precompute_ref_batch_size beta activation_offloading sync_ref_model
    ref_model_mixup_alpha ref_model_sync_steps pad_token
""".split()
OF_TRANSFORMERS = """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm bf16 fp16
    bf16_full_eval fp16_full_eval tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
    gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_cache
    torch_empty_cache_steps auto_find_batch_size logging_strategy logging_steps logging_first_step log_on_each_node
    logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name
    project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay
    per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object
    eval_accumulation_steps include_for_metrics batch_eval_metrics save_only_model save_strategy save_steps
    save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id
    hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better
    ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu
    accelerator_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory
    dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
    remove_unused_columns label_names train_sampling_strategy length_column_name ddp_find_unused_parameters
    ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug
    skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank
""".split()
DECIDE = (
    "a new TRL has it: if it works in DeviationTrainer as in DPOTrainer, add it to the list here with a test; if not, "
    "refuse it in ddpo_lib/training/config.py, with the reason"
)


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_model_and_adapter(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make(saved, tmp_path):
    """Makes a trainer of either kind of a model from a folder, all of whose parameters are trained."""

    def build(kind=DeviationTrainer, model=None, train_dataset=None, arguments=None, **options):
        settings = DeviationConfig if kind is DeviationTrainer else DPOConfig
        plain = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
            "max_steps": 2,
            "learning_rate": 0.05,
            "optim": "sgd",
            "per_device_train_batch_size": 2,
            "train_sampling_strategy": "sequential",
            "save_strategy": "no",
        }
        return kind(
            model or AutoModelForCausalLM.from_pretrained(saved[0]),
            args=settings(**plain | options),
            train_dataset=tiny_pairs(6) if train_dataset is None else train_dataset,
            **{"processing_class": tiny_tokenizer()} | (arguments or {}),
        )

    return build


def history(trainer) -> dict[str, list[float]]:
    """What was logged at each step, by name, without what depends on the clock."""
    entries = trainer.state.log_history
    names = {name for entry in entries for name in entry if "_per_second" not in name and "runtime" not in name}
    return {name: [entry[name] for entry in entries if name in entry] for name in names}


def check_same_history(ours, stock) -> None:
    found, expected = history(ours), history(stock)
    assert found.keys() >= expected.keys()
    for name in expected.keys() - {"total_flos", "epoch"}:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)


# TRL's own lists


def test_every_option_of_trl_is_the_same_or_refused():
    options = {field.name for field in dataclasses.fields(DPOConfig)}
    known = {*OF_TRL, *OF_TRANSFORMERS, *REFUSED}
    assert not options - known, f"{sorted(options - known)}: {DECIDE}"
    gone = sorted(known - options)
    assert not gone, f"{gone}: TRL and transformers have it no more; take it out of the lists"


def test_the_trainer_takes_the_arguments_of_trl_in_their_order():
    ours, stock = (list(inspect.signature(kind).parameters) for kind in (DeviationTrainer, DPOTrainer))
    assert ours == [*stock, "trunk"], DECIDE


def test_every_method_of_trl_is_known():
    methods = {name for name, value in vars(DPOTrainer).items() if inspect.isfunction(value)}
    overridden = """__init__ _prepare_dataset _set_signature_columns_if_needed _precompute_ref_logps
        compute_ref_log_probs evaluate compute_loss _save_checkpoint"""
    inherited = "training_step log prediction_step"
    replaced = "_compute_loss"  # what our compute_loss does in its place
    assert methods == {*overridden.split(), *inherited.split(), *replaced.split()}, DECIDE


@pytest.mark.parametrize("method", ["train", "evaluate", "predict", "compute_loss", "log", "create_model_card"])
def test_a_method_takes_the_arguments_of_trl(method):
    ours, stock = (list(inspect.signature(getattr(kind, method)).parameters) for kind in (DeviationTrainer, DPOTrainer))
    assert ours == stock


OTHER = {
    "loss_type": ["ipo"],
    "loss_weights": [1.0],
    "f_divergence_type": "forward_kl",
    "truncation_mode": "keep_end",
    "liger_kernel_config": {"rope": True},
    "parallelism_config": "any",
    "neftune_noise_alpha": 5.0,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_of_other_losses_is_refused_with_its_reason(name, tmp_path):
    value, why = REFUSED[name]
    other = OTHER.get(name, not value if isinstance(value, bool) else 0.3)
    with pytest.raises(ValueError, match=rf"^{name}: .* is refused: ") as error:
        DeviationConfig(str(tmp_path), **{name: other})
    assert why in str(error.value)


# The same as in stock TRL


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precompute_ref_log_probs": False, "sync_ref_model": True, "ref_model_sync_steps": 1},
        {
            "pad_to_multiple_of": 8,
            "disable_dropout": False,
            "max_length": None,
            "gradient_checkpointing": False,
            "gradient_accumulation_steps": 3,
            "weight_decay": 0.1,
            "max_grad_norm": 0.5,
        },
        {"pad_token": "<unknown>", "eval_strategy": "steps", "eval_steps": 1, "dataset_num_proc": 1},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_training_is_that_of_stock_trl(options, make):
    held_out = {"eval_dataset": tiny_pairs(2, seed=9)} if "eval_strategy" in options else {}
    ours, stock = (make(kind, arguments=held_out, **options) for kind in (DeviationTrainer, DPOTrainer))
    ours.train()
    stock.train()
    check_same_history(ours, stock)
    assert abs(history(stock)["rewards/margins"][-1]) > 1e-3


@pytest.mark.parametrize("loss", ["dpo", "orpo"])
def test_a_streamed_data_set_trains_as_one_in_memory(make, loss):
    pairs = tiny_pairs(6, [0.5, 2.0, 0.0, 1.0, 1.5, 1.0])
    options = {"loss": loss, "precompute_ref_log_probs": False}
    whole, streamed = make(train_dataset=pairs, **options), make(train_dataset=pairs.to_iterable_dataset(), **options)
    whole.train()
    streamed.train()
    check_same_history(streamed, whole)


def test_bad_rows_of_a_streamed_data_set_are_named(make):
    options = {"precompute_ref_log_probs": False, "dataloader_num_workers": 0}
    for pairs, changes, message in [
        (tiny_pairs(6, [1.0, -2.0, 1.0, 1.0, 1.0, 1.0]), {}, r"weight: row 1 of the batch data is -2\.0"),
        (tiny_pairs(6), {"max_length": 4}, r"max_length: .* pairs of the batch data are over 4 tokens"),
    ]:
        trainer = make(train_dataset=pairs.to_iterable_dataset(), **options | changes)
        with pytest.raises(ValueError, match=message):
            trainer.train()
    with pytest.raises(ValueError, match="precompute_ref_log_probs=False"):
        make(train_dataset=tiny_pairs(6).to_iterable_dataset())


def test_without_precomputing_the_reference_is_the_model_as_given_not_its_folder(make, saved):
    given = AutoModelForCausalLM.from_pretrained(saved[0])
    for parameter in given.parameters():
        parameter.data *= 0.9
    trainer = make(model=given, precompute_ref_log_probs=False)
    trainer.train()
    assert history(trainer)["rewards/margins"][0] == pytest.approx(0.0, abs=1e-5)
    assert all(not parameter.requires_grad or parameter.grad is None for parameter in trainer.ref_model.parameters())


# Sets that training did not have


@pytest.mark.parametrize(
    ("loss", "options", "kind"),
    [
        ("orpo", {}, "memory"),
        ("dpo", {}, "folder"),
        ("dpo", {}, "adapter"),
        ("dpo", {"precompute_ref_log_probs": False}, "memory"),
    ],
)
def test_a_new_set_after_training_is_measured_as_one_given_at_the_start(loss, options, kind, make, saved):
    def model():
        return {"memory": tiny_model, "adapter": lambda: load_with_adapter(*saved), "folder": lambda: None}[kind]()

    new = tiny_pairs(4, [0.0, 1.0, 2.0, 0.5], seed=9)
    late, early = (
        make(model=model(), loss=loss, arguments=arguments, **options) for arguments in ({}, {"eval_dataset": new})
    )
    late.train()
    early.train()
    expected = early.evaluate()
    for metrics in (late.evaluate(new), late.evaluate({"new": new}), early.evaluate(early.eval_dataset)):
        loss_name, margins = (next(k for k in metrics if k.endswith(end)) for end in ("_loss", "rewards/margins"))
        assert metrics[loss_name] == pytest.approx(expected["eval_loss"], abs=1e-5)
        assert metrics[margins] == pytest.approx(expected["eval_rewards/margins"], abs=1e-4)
    assert late.ref_model is None or options


def test_a_new_set_without_a_reference_to_be_had_is_refused_with_what_to_do(make):
    trainer = make(model=tiny_model())
    trainer.train()
    with pytest.raises(ValueError, match=r"^eval_dataset: this set is new.*precompute_ref_log_probs=False"):
        trainer.evaluate(tiny_pairs(4, seed=9))
    assert trainer.ref_model is None


# Arguments


def test_own_metrics_get_the_logits_of_stock_trl_and_choose_the_best_checkpoint(make):
    seen = {}

    def metrics(kind):
        def measure(prediction):
            seen[kind] = prediction.predictions, prediction.label_ids
            return {"mine": float(np.abs(prediction.predictions).mean())}

        return {"eval_dataset": tiny_pairs(3, seed=9), "compute_metrics": measure}

    options = {
        "metric_for_best_model": "mine",
        "greater_is_better": False,
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "save_only_model": True,
    }
    ours, stock = (make(kind, arguments=metrics(kind), **options) for kind in (DeviationTrainer, DPOTrainer))
    ours.train()
    stock.train()
    for found, expected in zip(seen[DeviationTrainer], seen[DPOTrainer], strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ours.state.best_metric == pytest.approx(stock.state.best_metric, abs=1e-4)
    assert ours.state.best_global_step == stock.state.best_global_step
    assert ours.evaluate()["eval_mine"] == pytest.approx(ours.state.best_metric, abs=1e-4), "not the best one"
    predicted = ours.predict(ours.eval_dataset)
    np.testing.assert_allclose(predicted.predictions, seen[DeviationTrainer][0], atol=1e-4)


class Counts(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def test_callbacks_optimizers_and_models_by_name_are_used(make, saved):
    model = AutoModelForCausalLM.from_pretrained(saved[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    callback = Counts()
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    before = model.lm_head.weight.detach().clone()
    make(model=model, arguments={"callbacks": [callback], "optimizers": (optimizer, scheduler)}).train()
    assert callback.steps == 2
    assert torch.equal(model.lm_head.weight, before), "not the given optimizer, which does not move"
    tiny_tokenizer().save_pretrained(saved[0])
    named = make(
        model=str(saved[0]), model_init_kwargs={"attn_implementation": "eager"}, arguments={"processing_class": None}
    )
    assert named.model.config._attn_implementation == "eager"


class Doubled(DataCollatorForPreference):
    """A collator of a user's own."""

    def torch_call(self, examples):
        batch = super().torch_call(examples)
        if "weight" in examples[0]:
            batch["weight"] = torch.tensor([2 * example["weight"] for example in examples])
        return batch


def test_an_own_collator_is_used_and_must_not_lose_the_weights(make):
    weighted = tiny_pairs(6, [1.0] * 6)
    plain, own = (make(train_dataset=weighted, arguments=a) for a in ({}, {"data_collator": Doubled(0)}))
    losses = [t.compute_loss(t.model, t.data_collator(list(t.train_dataset))).item() for t in (plain, own)]
    assert losses[1] == pytest.approx(2 * losses[0], abs=1e-5)
    stock = make(train_dataset=weighted, arguments={"data_collator": DataCollatorForPreference(0)})
    assert "weight" in stock.data_collator(list(stock.train_dataset))
    with pytest.raises(ValueError, match=r"^data_collator: its batches have no `weight`"):
        make(train_dataset=weighted, arguments={"data_collator": lambda rows: DataCollatorForPreference(0)(rows)})


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"loss": "orpo"}, {"ref_model": tiny_model(seed=1)}, "^ref_model: ORPO has no reference"),
        ({"sync_ref_model": True}, {}, "precompute_ref_log_probs=False"),
        ({"activation_offloading": True}, {}, "^activation_offloading: on a CPU"),
        ({}, {"peft_config": "lora"}, "peft_config"),
        ({}, {"quantization_config": "4bit"}, "quantization_config"),
        ({}, {"train_dataset": None}, "train_dataset"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_when_the_trainer_is_built(options, arguments, message, make):
    with pytest.raises((ValueError, TypeError), match=message):
        make(arguments=arguments, **options)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_that_starts_with_a_part_of_the_base_is_refused_where_there_is_a_reference(start, make):
    """The reference would be the base without that part, or the base with the part taken out a second time."""
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM")
    for given in ({"arguments": {"peft_config": lora}}, {"model": get_peft_model(tiny_model(), lora)}):
        with pytest.raises(ValueError, match=r"^init_lora_weights: a start of pissa"):
            make(**given)
    assert make(arguments={"peft_config": lora}, loss="orpo").train_dataset  # has no reference
    trainer = make(model=get_peft_model(tiny_model(), lora), arguments={"ref_model": tiny_model()})
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)  # a model of its own is one


@pytest.mark.parametrize("start", [True, "gaussian", "orthogonal"])
def test_an_adapter_that_starts_at_the_base_starts_at_its_reference(start, make):
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM")
    trainer = make(arguments={"peft_config": lora})
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(np.log(2), abs=1e-5)


def test_a_config_of_trls_own_and_a_synchronised_orpo_are_refused(tmp_path):
    config = DPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match=r"^args: expected a DeviationConfig"):
        DeviationTrainer(tiny_model(), args=config, train_dataset=tiny_pairs(2))
    with pytest.raises(ValueError, match=r"^sync_ref_model: ORPO has no reference"):
        DeviationConfig(str(tmp_path), loss="orpo", sync_ref_model=True)


def test_the_model_card_names_the_method_and_the_paper(make, tmp_path):
    for loss, weight, name in [("dpo", None, "DPO"), ("orpo", [1.0] * 6, "DORPO")]:
        trainer = make(train_dataset=tiny_pairs(6, weight), loss=loss)
        trainer.create_model_card(model_name="mine")
        card = (tmp_path / "out" / "README.md").read_text()
        assert f"trained with {name}," in card
        assert "2503.17126" in card


def test_columns_of_a_users_own_do_no_harm(make):
    pairs = tiny_pairs(6).add_column("length", ["long"] * 6).add_column("weights", [None] * 6)
    trainer = make(train_dataset=Dataset.from_list(list(pairs)), train_sampling_strategy="group_by_length")
    assert trainer.train().training_loss > 0
