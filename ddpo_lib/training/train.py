"""A profile's settings and a table -> a trained model in a folder.

An interrupted training continues from its last whole checkpoint if the same call is made again: with the same data,
model, start, settings, seed and code, on as many devices. Any other call in that folder begins anew.

By default an adapter is trained; `lora_r: null` trains all parameters. The result is in `trained/` within the folder.

With several processes (`accelerate launch`), all of them call the same function, and the main one writes. The import of
torch takes seconds on a small machine, so callers import this module where they use it.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from transformers import ProgressCallback, TrainerCallback, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import SFTConfig

from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.store import content_key
from ddpo_lib.base.unfinished import continue_or_begin
from ddpo_lib.data import seen_prompts
from ddpo_lib.models import models
from ddpo_lib.models.adapters import (
    add_adapter,
    check_base,
    check_template,
    continue_adapter,
    layers_below,
    write_base,
)
from ddpo_lib.models.memory import memory_advice
from ddpo_lib.models.versions import exact_version, hash_folder
from ddpo_lib.profiles.settings import Arm, Model, Optimiser, Preference
from ddpo_lib.training.checkpoints import last_whole
from ddpo_lib.training.config import NOTHING_LEARNED, learns_nothing
from ddpo_lib.training.frozen_layers import keep_lower_layers
from ddpo_lib.training.launch import is_launched, launch
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer, ResponseSFTTrainer

log = logging.getLogger(__name__)

SMALLER = (
    "in the profile, lower {0}.batch_size and raise {0}.accumulation as many times, which makes the same steps, or "
    "lower data.max_tokens"
)


def train_sft(
    corpus: pd.DataFrame, model: Model, optimiser: Optimiser, max_tokens: int, seed: int, folder: Path
) -> None:
    """Supervised fine-tuning, with a loss on response tokens only.

    The result is in `folder/trained` and its log in `folder/log.json`. `trained/seen_prompts.json` lists the prompts
    that the model has seen, see `seen_prompts`.

    Args:
        corpus: rows with `prompt` and `text`.
        model, optimiser: sections of the profile.
        max_tokens: most tokens of prompt and response; longer responses were left out when the corpus was read.
        seed: seed of the adapter's initial weights and of the order of the data.
        folder: the folder to fill; an interrupted call of the same training continues from a checkpoint in it.
    """
    if optimiser.devices > 1 and not is_launched():
        settings = {"model": model.model_dump(), "optimiser": optimiser.model_dump()}
        settings |= {"max_tokens": max_tokens, "seed": seed}
        launch("sft", corpus[["prompt", "text"]], settings, optimiser.devices, folder)
        return
    columns = {"prompt": _templated(corpus["prompt"], model), "completion": corpus["text"].tolist()}
    config = SFTConfig(
        **_arguments(optimiser, model, seed, folder),
        max_length=max_tokens,
        train_sampling_strategy="group_by_length",
        loss_type="nll",
    )
    stay_on_one_device(config)

    def build(policy, tokenizer, trunk):
        data = Dataset.from_dict(columns)
        options = {"trunk": trunk, "bfloat16_products": model.bfloat16_products}
        return ResponseSFTTrainer(policy, args=config, train_dataset=data, processing_class=tokenizer, **options)

    if learns_nothing(len(corpus), optimiser):
        raise InputError(NOTHING_LEARNED.format(rows=len(corpus), what="responses"))
    settings = {"optimiser": optimiser.model_dump(), "max_tokens": max_tokens}
    with memory_advice(SMALLER.format("sft")):
        _train(build, model, None, seed, folder, _begun(train_sft, columns, model, None, settings, seed))
    _note_prompts(corpus["prompt"], None, model, folder)


def train_preferences(
    pairs: pd.DataFrame,
    arm: Arm,
    start: Path | None,
    model: Model,
    preference: Preference,
    max_tokens: int,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    reference: Path | None = None,
) -> None:
    """Train one arm on pairs.

    The result is in `folder/trained` and its log in `folder/log.json`. `trained/seen_prompts.json` lists the prompts
    that the model has seen, including those of `start`, see `seen_prompts`.

    Args:
        pairs: rows with `prompt`, `chosen`, `rejected`, and `weight` for a weighted arm.
        arm: the arm; its loss, beta and epochs are used.
        start: folder of the SFT model, which training starts from and which is the frozen reference; None: the base
            model.
        model, preference: sections of the profile.
        max_tokens: most tokens of prompt and response.
        seed: seed of the adapter's initial weights and of the order of the data.
        folder: the folder to fill; an interrupted call of the same training continues from a checkpoint in it.
        callbacks: called at every step. With any, no checkpoint is kept, since it would not contain what they gather.
        reference: folder of another model of the same base that is the frozen reference; None: what training starts
            from. It is a model of its own in memory, and no layer is computed once for both.

    Raises:
        ValueError: a pair with more than `max_tokens` tokens, a weight that is not a finite number >= 0, or a single
            step at the learning rate of 0 that a warm-up begins with (`errors.InputError`).
    """
    optimiser = preference.dpo if arm.loss == "dpo" else preference.orpo
    if optimiser.devices > 1 and not is_launched():
        if callbacks:
            raise ValueError("callbacks: they cannot be handed to other processes; set devices to 1")
        settings = {"arm": arm.model_dump(), "start": start and str(start), "model": model.model_dump()}
        settings |= {"preference": preference.model_dump(), "max_tokens": max_tokens, "seed": seed}
        settings |= {"reference": reference and str(reference)}
        launch("preferences", pairs, settings, optimiser.devices, folder)
        return
    columns = {
        "prompt": _templated(pairs["prompt"], model),
        "chosen": pairs["chosen"].tolist(),
        "rejected": pairs["rejected"].tolist(),
    }
    if "weight" in pairs:
        columns["weight"] = pairs["weight"].tolist()
    changed = {"epochs": arm.epochs} if arm.epochs else {}
    changed |= {"checkpoint_steps": 0} if callbacks else {}
    optimiser = optimiser.model_copy(update=changed)
    objective = {"loss": arm.loss, "beta": arm.beta or preference.beta, "lam": preference.lam, "max_length": max_tokens}
    objective |= {"policy_beta": arm.policy_beta} if arm.policy_beta else {}
    options = {"precompute_ref_batch_size": 8, "bfloat16_products": model.bfloat16_products}
    config = DeviationConfig(**_arguments(optimiser, model, seed, folder), **objective, **options)
    stay_on_one_device(config)
    if learns_nothing(len(pairs), optimiser):
        raise InputError(NOTHING_LEARNED.format(rows=len(pairs), what="pairs"))

    frozen = None if reference is None else models.load_model(model.name, reference, revision=model.revision)

    def build(policy, tokenizer, trunk):
        data = Dataset.from_dict(columns)
        return DeviationTrainer(policy, frozen, config, None, data, processing_class=tokenizer, trunk=trunk)

    settings = objective | {"optimiser": optimiser.model_dump()}
    settings |= {"reference": hash_folder(reference)} if reference else {}
    begun = _begun(train_preferences, columns, model, start, settings, seed)
    with memory_advice(SMALLER.format(f"preference.{arm.loss}")):
        _train(build, model, start, seed, folder, begun, callbacks, divided=frozen is None)
    _note_prompts(pairs["prompt"], start, model, folder)


def _train(
    build: Callable,
    model: Model,
    start: Path | None,
    seed: int,
    folder: Path,
    begun: dict,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    divided: bool = True,
) -> None:
    """Train what `build` gives; `divided`: the layers below the adapter may be taken out and computed once."""
    checkpoints = folder / "checkpoints"
    if PartialState().is_main_process:
        continue_or_begin(checkpoints, begun)
    PartialState().wait_for_everyone()
    if start is not None:
        check_base(start, model.name, model.revision)
        check_template(start, model.template)
    tokenizer = models.load_tokenizer(model.name, model.revision)
    whole = model.lora_r is None
    dtype = "float32" if whole else model.dtype  # of trained parameters: see `numerics`
    base = models.load_model(model.name, start if whole else None, revision=model.revision, dtype=dtype)
    depth = 0 if whole else layers_below(model, base, start)
    # if processes divide a model's weights among themselves, none has a whole layer
    shared_out = any(map(parse_flag_from_env, ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")))
    trunk = None
    if depth > 0 and divided and not shared_out:
        trunk = keep_lower_layers(base, depth, bfloat16=model.bfloat16_products)
    set_seed(seed)
    one_dtype = is_deepspeed_zero3_enabled()  # it cannot gather float32 adapters and a bfloat16 base
    if whole:
        policy = base
    elif start is None:
        policy = add_adapter(base, model, autocast_adapter_dtype=not one_dtype)
    else:
        policy = continue_adapter(base, start, model, autocast_adapter_dtype=not one_dtype)
    trainer = build(policy, tokenizer, trunk)
    trainer.remove_callback(ProgressCallback)
    for callback in (QuietProgress, *callbacks):
        trainer.add_callback(callback)
    last = last_whole(checkpoints)
    if last:
        log.info("continuing from %s", last.name)
    trainer.train(resume_from_checkpoint=last and str(last))
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # gathers the parts of all processes
    if trainer.accelerator.is_main_process:
        chosen = {} if whole else {"selected_adapters": ["default"]}
        shutil.rmtree(folder / "trained", ignore_errors=True)  # a kill may have left a part of it
        policy.save_pretrained(folder / "trained", state_dict=weights, **chosen)
        if whole:
            tokenizer.save_pretrained(folder / "trained")
        write_base(folder / "trained", model.name, model.revision, model.template)
        write_json(folder / "log.json", trainer.state.log_history)
        shutil.rmtree(checkpoints)


def _begun(
    function: Callable, columns: dict[str, list], model: Model, start: Path | None, settings: dict, seed: int
) -> dict:
    """What a training depends on, by name. Its steps are resumed only by a training that depends on the same."""
    return {
        "data": content_key(*(str(value) for column in columns.values() for value in column)),
        "model": model.model_dump() | {"version": exact_version(model.name, model.revision)},
        "start": start and hash_folder(start),
        "settings": settings,
        "seed": seed,
        "code": code_key(function),
        "devices": PartialState().num_processes,
    }


def _note_prompts(prompts: pd.Series, start: Path | None, model: Model, folder: Path) -> None:
    if not PartialState().is_main_process:
        return
    base = Path(model.name)  # in the worlds of chapter 4, this module trained it
    start = start or (base if seen_prompts.read(base) is not None else None)
    seen_prompts.write(folder / "trained", prompts, start)


class QuietProgress(ProgressCallback):
    """The progress bar without a line of numbers at every step; the numbers are in `log.json`."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


def stay_on_one_device(config) -> None:
    """Use one of the GPUs that a process sees. To use several, `accelerate launch` starts one process per GPU."""
    if config.n_gpu > 1:
        config._n_gpu = 1  # else transformers joins one batch per GPU and splits it again, also packed ones


def _arguments(optimiser: Optimiser, model: Model, seed: int, folder: Path) -> dict:
    return {
        "output_dir": str(folder / "checkpoints"),
        "learning_rate": optimiser.learning_rate,
        "num_train_epochs": optimiser.epochs,
        "per_device_train_batch_size": optimiser.batch_size,
        "gradient_accumulation_steps": optimiser.accumulation,
        "warmup_steps": optimiser.warmup_steps,
        "lr_scheduler_type": optimiser.schedule,
        "max_grad_norm": optimiser.max_grad_norm,
        "seed": seed,
        "use_cpu": models.device() == "cpu",  # so that several processes join one group
        "bf16": model.dtype == "bfloat16",
        "gradient_checkpointing": torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,  # every step uses the whole adapter
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "steps" if optimiser.checkpoint_steps else "no",
        "save_steps": optimiser.checkpoint_steps,
        "save_total_limit": 1,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _templated(prompts: pd.Series, model: Model) -> list[str]:
    return [model.template.replace("{prompt}", prompt) for prompt in prompts]
