"""Pairs with weights -> adapter: SFT, DPO, ORPO, DDPO, DORPO, as thin subclasses of TRL's trainers.

`DeviationTrainer` is TRL's `DPOTrainer` with another loss; a `weight` column makes DPO into DDPO and ORPO into DORPO.

    config = DeviationConfig("out", loss="dpo")
    trainer = DeviationTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)

Log-probabilities come from `logps.score_responses`. Those of the reference are computed once for each (weights, prompt,
response) and stored on disk, so arms that start from one model share them.
"""

import uuid
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import DPOConfig, DPOTrainer, SFTTrainer
from trl.models import prepare_deepspeed
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ddpo_lib.base.store import content_key
from ddpo_lib.models.models import device
from ddpo_lib.training.batches import ByLength, WeightedPairs, check_lengths, check_weights
from ddpo_lib.training.checkpoints import WholeCheckpoints
from ddpo_lib.training.frozen_layers import Trunk
from ddpo_lib.training.logps import score_responses
from ddpo_lib.training.losses import ddpo_loss, dorpo_loss
from ddpo_lib.training.metrics import preference_metrics, response_metrics
from ddpo_lib.training.reference import as_reference, version_of, with_reference_logps

_TRL_DEFAULTS = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "label_smoothing": 0.0,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
}


@dataclass
class DeviationConfig(DPOConfig):
    """TRL's DPOConfig with a choice of loss. Without a GPU, training is in float32 by default.

    A pair with more than `max_length` tokens is an error; it is never cut.

    Raises:
        ValueError: a loss or variant that does not exist, `beta` or `lam` that is not positive and finite, or an option
            of TRL's own losses.
    """

    loss: str = field(default="dpo", metadata={"help": '"dpo" or "orpo"; with a `weight` column DDPO or DORPO'})
    lam: float = field(default=0.25, metadata={"help": "lambda, the weight of ORPO's odds-ratio term"})
    dorpo_variant: str = field(default="paper", metadata={"help": '"paper" or "released", see losses.dorpo_loss'})
    max_length: int | None = field(default=2048, metadata={"help": "most tokens of prompt and response"})
    train_sampling_strategy: str = field(default="group_by_length", metadata={"help": "see TrainingArguments"})

    def __post_init__(self):
        if self.loss not in ("dpo", "orpo"):
            raise ValueError(f'loss: expected "dpo" or "orpo", got {self.loss!r}')
        if self.dorpo_variant not in ("paper", "released"):
            raise ValueError(f'dorpo_variant: expected "paper" or "released", got {self.dorpo_variant!r}')
        for name in ("beta", "lam"):
            if not (0 < getattr(self, name) < float("inf")):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.bf16 is None and device() == "cpu":
            self.bf16 = False  # TRL's default is bfloat16, which transformers refuses without a GPU
        super().__post_init__()
        for name, value in _TRL_DEFAULTS.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is an option of TRL's own losses; leave it at {value!r}"
                )
        self.precompute_ref_log_probs = True  # TRL then loads no second model; ORPO needs no reference


class DeviationTrainer(ByLength, WholeCheckpoints, DPOTrainer):
    """DPO, DDPO, ORPO and DORPO (paper, the DDPO and DORPO objectives).

    The loss of a step is the mean of weight times loss over its pairs. It does not depend on how the pairs are divided
    into micro-batches and processes. A pair has the weight of its winner. Weights sum to n over the n responses to a
    prompt, so their mean over a batch is not 1; they are not scaled again.

    Args:
        model, args, train_dataset, eval_dataset, processing_class, ...: as in `trl.DPOTrainer`. A data set has
            `prompt`, `chosen`, `rejected`, and `weight` for weighted training: the deviation weight of the winner, a
            finite number >= 0. Without `ref_model`, the reference is the model as it is given.
        trunk: the layers below the first adapter, run once per sequence (see `frozen_layers.Trunk`), or None.

    Raises:
        ValueError: a weight that is negative, NaN, infinite or not a number, or a pair with more than `max_length`
            tokens; the message names the first such row. A model without a parameter to train.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the pairs of all micro-batches

    def __init__(
        self, model, ref_model=None, args: DeviationConfig | None = None, *, trunk: Trunk | None = None, **kwargs
    ):
        self._trunk = trunk
        args = args or DeviationConfig("deviation-trainer")
        super().__init__(model, ref_model, args, **kwargs)
        _check_trains(self.model)
        if self.aux_loss_enabled:
            raise ValueError("router_aux_loss_coef: a router's auxiliary loss is not part of these losses; set it to 0")
        if isinstance(self.data_collator, DataCollatorForPreference):
            pad = self.data_collator.pad_token_id
            self.data_collator = WeightedPairs(pad, args.max_length, args.truncation_mode, args.pad_to_multiple_of)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scored = score_responses(model, inputs, inputs["completion_mask"], self._trunk)
        logps = scored.logps
        weight = inputs.get("weight", torch.ones(len(logps) // 2)).to(logps.device)
        if self.args.loss == "dpo":
            references = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).to(logps.device)
            losses = ddpo_loss(*logps.chunk(2), *references.chunk(2), weight, self.beta)
            rewards = self.beta * (logps.detach() - references)
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
        return (loss, {"losses": losses}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples, device):
        pairs = torch.tensor(sum(len(batch["input_ids"]) // 2 for batch in batch_samples), device=device)
        return self.accelerator.gather(pairs).sum()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*{*self._signature_columns, "weight", self.args.length_column_name}]

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        if isinstance(dataset, Dataset):
            check_weights(dataset, dataset_name)
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
        name = args.length_column_name
        return dataset if name in dataset.column_names else dataset.add_column(name, lengths)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the reference's summed log-probabilities as two columns; compute those that are not on disk."""
        if self.args.loss == "orpo":
            return dataset
        if not isinstance(dataset, Dataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)  # TRL's error
        if is_deepspeed_zero3_enabled():  # no process has whole weights to hash: stored for this run only
            version = uuid.uuid4().hex
        else:
            version = version_of(self.model, self._precompute_model_hash, self._trunk.version if self._trunk else "")
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
        parts = [gather(self.compute_ref_log_probs(model, batch)) for batch in batches]
        return [torch.cat(side).cpu().numpy() for side in zip(*parts, strict=True)]

    def compute_ref_log_probs(self, model, inputs):
        """(B,) summed log-probabilities of the chosen and of the rejected responses under the reference `model`."""
        policy = self.accelerator.unwrap_model(model) if self.ref_model is None else None
        with torch.no_grad(), as_reference(model, policy), self.accelerator.autocast():
            return score_responses(model, inputs, inputs["completion_mask"], self._trunk).logps.chunk(2)

    def _arm(self) -> dict:
        """What distinguishes this arm from others: settings, `weight`, one per pair or None, and a hash of `pairs`."""
        names = ("loss", "beta") if self.args.loss == "dpo" else ("loss", "lam", "dorpo_variant")
        weighted = isinstance(self.train_dataset, Dataset) and "weight" in self.train_dataset.column_names
        weight = list(self.train_dataset["weight"]) if weighted else None
        return {name: getattr(self.args, name) for name in names} | {"weight": weight, "pairs": self._pairs}

    @cached_property
    def _pairs(self) -> str | None:
        data, names = self.train_dataset, ("prompt_ids", "chosen_ids", "rejected_ids")
        if not isinstance(data, Dataset):
            return None
        return content_key(*(str(ids) for name in names for ids in data[name]))


class ResponseSFTTrainer(ByLength, WholeCheckpoints, SFTTrainer):
    """TRL's SFTTrainer with a loss on response tokens only, by `logps.score_responses`, and with an optional trunk."""

    def __init__(self, *args, trunk: Trunk | None = None, **kwargs):
        self._trunk = trunk
        super().__init__(*args, **kwargs)
        _check_trains(self.model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scored = score_responses(model, inputs, inputs["labels"] != -100, self._trunk)
        _note(self, response_metrics(scored, self.accelerator.gather), inputs["attention_mask"])
        loss = -scored.logps.sum() / (scored.counts.sum() if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, {"logps": scored.logps}) if return_outputs else loss


def _check_trains(model) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "model: none of its parameters is trained; load its adapter with `is_trainable=True`, or call "
            "`requires_grad_(True)` on what is to be trained"
        )


def _note(trainer, metrics: dict[str, torch.Tensor], attention_mask: torch.Tensor) -> None:
    """Store a batch's metrics for the next entry of the log, as TRL does."""
    mode = "train" if trainer.model.training else "eval"
    for name, value in metrics.items():
        trainer._metrics[mode][name].append(value.item())
    if mode == "train":
        trainer._total_train_tokens += int(trainer.accelerator.gather(attention_mask.sum()).sum())
    trainer._metrics[mode]["num_tokens"] = [trainer._total_train_tokens]
