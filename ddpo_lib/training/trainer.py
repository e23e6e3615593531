"""Pairs with weights -> adapter: SFT, DPO, ORPO, DDPO, DORPO, as thin subclasses of TRL's trainers.

`DeviationTrainer` is TRL's `DPOTrainer` with another loss; a `weight` column makes DPO into DDPO and ORPO into DORPO.

    config = DeviationConfig("out", loss="dpo")
    trainer = DeviationTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)

Log-probabilities come from `logps.score_responses`. Those of the reference are computed once for each (weights, prompt,
response) and stored on disk, so arms that start from one model share them.
"""

import uuid
from copy import deepcopy
from functools import cached_property, partial
from types import MappingProxyType

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import DPOTrainer, SFTTrainer
from trl.models import prepare_deepspeed

from ddpo_lib.base.store import content_key
from ddpo_lib.models.boundaries import plain_texts, warn_of_prompts
from ddpo_lib.models.fast_products import FastProducts
from ddpo_lib.models.numerics import numerics_of, train_in_float32
from ddpo_lib.training.batches import ByLength, check_columns, check_lengths, check_weights, with_column, with_weights
from ddpo_lib.training.checkpoints import WholeCheckpoints
from ddpo_lib.training.config import BASE_MOVED, DeviationConfig, check_arguments, moves_base
from ddpo_lib.training.frozen_layers import Trunk
from ddpo_lib.training.logps import score_responses
from ddpo_lib.training.losses import ddpo_loss, dorpo_loss
from ddpo_lib.training.metrics import preference_metrics, response_metrics
from ddpo_lib.training.reference import (
    as_reference,
    load_initial,
    needs_copy,
    version_of,
    with_reference_logps,
)


class DeviationTrainer(FastProducts, ByLength, WholeCheckpoints, DPOTrainer):
    """DPO, DDPO, ORPO and DORPO (paper, the DDPO and DORPO objectives).

    Parameters that are trained are made float32, as TRL loads a model by its name; `bf16` computes by autocast.

    The loss of a step is the mean of weight times loss over its pairs. It does not depend on how the pairs are divided
    into micro-batches and processes. A pair has the weight of its winner. Weights sum to n over the n responses to a
    prompt, so their mean over a batch is not 1; they are not scaled again.

    Args:
        model, ref_model, args, data_collator, train_dataset, ...: as in `trl.DPOTrainer`. A data set has `prompt`,
            `chosen`, `rejected`, as text or as lists of messages, and `weight` for weighted training: the deviation
            weight of the winner, a finite number >= 0. Without `ref_model`, the reference is the model as it is given.
        trunk: the layers below the first adapter, run once per sequence (see `frozen_layers.Trunk`), or None.

    Raises:
        ValueError: a weight that is negative, NaN, infinite or not a number, or a pair with more than `max_length`
            tokens; the message names the first such row. A model without a parameter to train. Arguments of TRL's
            trainer that do not fit these losses: pictures, a reference for ORPO, a router's auxiliary loss, an adapter
            whose start changes the base.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the pairs of all micro-batches
    _tag_names = ("trl", "ddpo")  # what the model card says, with the two below
    _paper = MappingProxyType(
        {"title": "Modifying Large Language Model Post-Training for Diverse Creative Writing", "id": "2503.17126"}
    )

    def __init__(
        self,
        model,
        ref_model=None,
        args: DeviationConfig | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        compute_metrics=None,
        callbacks=None,
        optimizers=(None, None),
        quantization_config=None,
        peft_config=None,
        *,
        trunk: Trunk | None = None,
    ):
        self._trunk = trunk
        args = args or DeviationConfig("deviation-trainer")
        check_arguments(args, ref_model, processing_class, compute_metrics, trunk)
        if ref_model is None and moves_base(model, args, peft_config):
            raise ValueError(BASE_MOVED)
        self._name = _method(args, train_dataset)
        if isinstance(model, torch.nn.Module) and peft_config is None:
            _to_float32(model, args)  # before the reference is computed with it
        if ref_model is None and needs_copy(model, args, peft_config):
            ref_model = deepcopy(model)  # TRL would load the model's folder, which may hold other weights
        self.bfloat16_products = args.bfloat16_products
        super().__init__(
            model,
            ref_model,
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        _check_trains(self.model)
        _to_float32(self.model, args)
        if self.aux_loss_enabled:
            raise ValueError("router_aux_loss_coef: a router's auxiliary loss is not part of these losses; set it to 0")
        if self.ref_model is not None and trunk is not None:
            raise ValueError("trunk: a reference model of its own has no trunk; leave out one of the two")
        self.data_collator = with_weights(self.data_collator, self.train_dataset)
        if args.loss == "orpo":
            self.precompute_ref_logps = False  # ORPO has no reference, of a set that comes later neither

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """As TRL's `evaluate`, also for a set that training did not have.

        Raises:
            ValueError: such a set, after all parameters were trained with DPO or DDPO without a `ref_model`, and the
                folder that the model came from does not hold the weights that training began with.
        """
        known = eval_dataset is None or isinstance(eval_dataset, str)
        moved = self.state.global_step > 0 and not isinstance(self.model, PeftModel)
        reload = self.precompute_ref_logps and self.ref_model is None and moved and not known
        if reload:  # TRL refuses this
            self.ref_model = load_initial(self.model, self.args, self._precompute_model_hash).to(self.args.device)
        try:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            if reload:
                self.ref_model = None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scored = score_responses(model, inputs, inputs["completion_mask"], self._trunk)
        logps = scored.logps
        weight = inputs.get("weight", torch.ones(len(logps) // 2)).to(logps.device)
        if self.args.loss == "dpo":
            references = torch.cat(self._references(model, inputs)).to(logps.device)
            policy_beta = self.args.policy_beta or self.beta
            losses = ddpo_loss(*logps.chunk(2), *references.chunk(2), weight, self.beta, policy_beta)
            rewards = self.beta * (logps.detach() - references) + (policy_beta - self.beta) * logps.detach()
        else:
            means = logps / scored.counts
            losses = dorpo_loss(*means.chunk(2), weight, self.args.lam, variant=self.args.dorpo_variant)
            rewards = means.detach()
        gather = self.accelerator.gather
        _note(self, preference_metrics(scored, losses.detach(), weight, rewards, gather), inputs["attention_mask"])
        if num_items_in_batch is None:
            loss = losses.mean()
        else:  # pairs of all processes, which average their gradients
            loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch
        if not return_outputs:
            return loss
        with torch.no_grad():  # whole logits, for `compute_metrics`, as in TRL
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        return loss, outputs

    def _references(self, model, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
        if self.precompute_ref_logps:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        return self.compute_ref_log_probs(self.ref_model or model, inputs)

    def _get_num_items_in_batch(self, batch_samples, device):
        pairs = torch.tensor(sum(len(batch["input_ids"]) // 2 for batch in batch_samples), device=device)
        return self.accelerator.gather(pairs).sum()

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*{*self._signature_columns, "weight", self.args.length_column_name}]

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        check_columns(dataset, dataset_name)
        if isinstance(dataset, Dataset) and "weight" in dataset.column_names:
            check_weights(dataset["weight"], dataset_name)
        texts = plain_texts(dataset)
        longest, args.max_length = args.max_length, None  # TRL would cut long pairs; here they are an error
        try:
            dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        finally:
            args.max_length = longest
        if not isinstance(dataset, Dataset):
            return dataset
        ids = zip(dataset["prompt_ids"], dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
        lengths = [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in ids]
        check_lengths(lengths, longest, dataset_name)
        warn_of_prompts(processing_class, *texts, list(map(len, dataset["prompt_ids"])), dataset_name)
        return with_column(dataset, args.length_column_name, lengths)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the reference's summed log-probabilities as two columns; compute those that are not on disk."""
        if self.args.loss == "orpo":
            return dataset
        if not isinstance(dataset, Dataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)  # TRL's error
        if is_deepspeed_zero3_enabled():  # no process has whole weights to hash: stored for this run only
            version = uuid.uuid4().hex
        else:
            below = self._trunk.version if self._trunk else ""
            with self.accelerator.autocast():
                kinds = {"device": self.args.device.type, "bfloat16_products": self.bfloat16_products}
                arithmetic = numerics_of(self.model, **kinds)
            version = version_of(self.model, self._precompute_model_hash, below, arithmetic)
        return with_reference_logps(dataset, version, partial(self._reference_logps, batch_size))

    def _reference_logps(self, batch_size: int, dataset: Dataset) -> list[np.ndarray]:
        """(n,) of the chosen and (n,) of the rejected. Each process computes its share and gets all of them.

        TRL's own method passes them on in a file, which the other processes do not find for a data set in memory.
        """
        model = self.ref_model or self.model
        if self.ref_model is None and self.is_deepspeed_enabled:
            self._precompute_engine = self._precompute_engine or prepare_deepspeed(self.model, self.accelerator)
            model = self._precompute_engine
        batches = self.accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator))
        gather = self.accelerator.gather_for_metrics
        with self.fast_products():
            parts = [gather(self.compute_ref_log_probs(model, batch)) for batch in batches]
        return [torch.cat(side).cpu().numpy() for side in zip(*parts, strict=True)]

    def compute_ref_log_probs(self, model, inputs):
        """(B,) summed log-probabilities of the chosen and of the rejected responses under the reference `model`."""
        policy = self.accelerator.unwrap_model(model) if self.ref_model is None else None
        with torch.no_grad(), as_reference(model, policy), self.accelerator.autocast():
            return score_responses(model, inputs, inputs["completion_mask"], self._trunk).logps.chunk(2)

    def _arm(self) -> dict:
        """What distinguishes this arm from others: settings, `weight`, one per pair or None, and a hash of `pairs`."""
        names = ("loss", "beta", "policy_beta") if self.args.loss == "dpo" else ("loss", "lam", "dorpo_variant")
        weighted = isinstance(self.train_dataset, Dataset) and "weight" in self.train_dataset.column_names
        weight = list(self.train_dataset["weight"]) if weighted else None
        return {name: getattr(self.args, name) for name in names} | {"weight": weight, "pairs": self._pairs}

    @cached_property
    def _pairs(self) -> str | None:
        data, names = self.train_dataset, ("prompt_ids", "chosen_ids", "rejected_ids")
        if not isinstance(data, Dataset):
            return None
        return content_key(*(str(ids) for name in names for ids in data[name]))


class ResponseSFTTrainer(FastProducts, ByLength, WholeCheckpoints, SFTTrainer):
    """TRL's SFTTrainer with a loss on response tokens only, by `logps.score_responses`, and with an optional trunk.

    `bfloat16_products`: as in `DeviationConfig`.
    """

    def __init__(self, *args, trunk: Trunk | None = None, bfloat16_products: bool = False, **kwargs):
        self._trunk = trunk
        self.bfloat16_products = bfloat16_products
        super().__init__(*args, **kwargs)
        _check_trains(self.model)
        _to_float32(self.model, self.args)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scored = score_responses(model, inputs, inputs["labels"] != -100, self._trunk)
        _note(self, response_metrics(scored, self.accelerator.gather), inputs["attention_mask"])
        loss = -scored.logps.sum() / (scored.counts.sum() if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, {"logps": scored.logps}) if return_outputs else loss


def _method(args: DeviationConfig, data) -> str:
    """The method's name for the model card."""
    weighted = "weight" in next(iter(data or ()), {})
    return ("D" if weighted else "") + args.loss.upper()


def _check_trains(model) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "model: none of its parameters is trained; load its adapter with `is_trainable=True`, or call "
            "`requires_grad_(True)` on what is to be trained"
        )


def _to_float32(model, args) -> None:
    if not is_deepspeed_zero3_enabled():  # it keeps float32 copies itself
        train_in_float32(model, autocast=bool(args.bf16 or args.fp16))


def _note(trainer, metrics: dict[str, torch.Tensor], attention_mask: torch.Tensor) -> None:
    """Store a batch's metrics for the next entry of the log, as TRL does."""
    mode = "train" if trainer.model.training else "eval"
    for name, value in metrics.items():
        trainer._metrics[mode][name].append(value.item())
    if mode == "train":
        trainer._total_train_tokens += int(trainer.accelerator.gather(attention_mask.sum()).sum())
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]
