"""Pairs with weights -> adapter: SFT, DPO, ORPO, DDPO, DORPO, as thin subclasses of TRL's trainers.

`DeviationTrainer` is TRL's `DPOTrainer` with another loss; a `weight` column makes DPO into DDPO and ORPO into DORPO.

    config = DeviationConfig("out", loss="dpo")
    trainer = DeviationTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)

The LM head runs on response tokens alone. The reference's log-probabilities are computed once for each (weights,
prompt, response) and kept on disk, so that arms which start from one model share them.
"""

import json
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from peft import PeftModel
from tqdm import tqdm
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import DPOConfig, DPOTrainer, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import use_adapter

from ddpo_lib.losses import ddpo_loss, dorpo_loss
from ddpo_lib.store import Store, content_key
from ddpo_lib.trunk import Trunk

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
    """TRL's DPOConfig with the choice of loss. A pair over `max_length` tokens is an error, never cut in silence."""

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
        super().__post_init__()
        for name, value in _TRL_DEFAULTS.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} belongs to TRL's own losses; here leave it at {value!r}"
                )
        self.precompute_ref_log_probs = True  # TRL then loads no second model; for ORPO nothing is computed


@dataclass
class DeviationCollator(DataCollatorForPreference):
    """TRL's padded preference batch with the pairs' weights."""

    def torch_call(self, examples: list[dict]) -> dict:
        batch = super().torch_call(examples)
        if "weight" in examples[0]:
            batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


class _EpochSampler(LengthGroupedSampler):
    """Batches of like length, in an order that depends on seed and epoch alone, so that a resumed run has it too."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return super().__iter__()


class _ByLength:
    """Gives a trainer whose strategy is "group_by_length" that order."""

    def _get_train_sampler(self, train_dataset=None):
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(data, Dataset):
            return super()._get_train_sampler(train_dataset)
        known = self.args.length_column_name in data.column_names
        lengths = list(data[self.args.length_column_name]) if known else [len(ids) for ids in data["input_ids"]]
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _EpochSampler(size, lengths, self.args.seed)


class DeviationTrainer(_ByLength, DPOTrainer):
    """DPO, DDPO, ORPO and DORPO (paper, the DDPO and DORPO objectives).

    Args:
        model, args, train_dataset, eval_dataset, processing_class, ...: as `trl.DPOTrainer` takes them. A data set
            has `prompt`, `chosen`, `rejected`, and `weight` for weighted training: the deviation weight of the
            winner, a finite number >= 0. Without `ref_model`, the reference is the model as it is given.
        trunk: the layers below the first adapter, run once for each sequence and kept (see `trunk.Trunk`).

    Raises:
        ValueError: a weight that is negative, NaN, infinite or not a number, or a pair over `max_length` tokens;
            names the first such row.
    """

    def __init__(
        self, model, ref_model=None, args: DeviationConfig | None = None, *, trunk: Trunk | None = None, **kwargs
    ):
        self._trunk = trunk
        args = args or DeviationConfig("deviation-trainer")
        super().__init__(model, ref_model, args, **kwargs)
        if isinstance(self.data_collator, DataCollatorForPreference):
            pad = self.data_collator.pad_token_id
            self.data_collator = DeviationCollator(pad, args.max_length, args.truncation_mode, args.pad_to_multiple_of)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logps, counts = response_logps(model, inputs, inputs["completion_mask"], self._trunk)
        weight = inputs.get("weight", torch.ones(len(logps) // 2)).to(logps.device)
        if self.args.loss == "dpo":
            references = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]).to(logps.device)
            losses = ddpo_loss(*logps.chunk(2), *references.chunk(2), weight, self.beta)
            rewards = self.beta * (logps.detach() - references)
        else:
            rewards = logps.detach() / counts
            means = (logps / counts).chunk(2)
            losses = dorpo_loss(*means, weight, self.args.lam, variant=self.args.dorpo_variant)
        self._record(losses.detach(), weight, rewards, logps.detach(), inputs["attention_mask"])
        loss = losses.mean()
        return (loss, {"losses": losses}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _record(self, losses, weight, rewards, logps, attention_mask) -> None:
        """Means over the pairs of all processes, for the log."""
        gather = self.accelerator.gather
        losses, weight = gather(losses), gather(weight)
        chosen, rejected = (gather(part) for part in rewards.chunk(2))
        heavy = weight >= weight.quantile(0.75)
        light = weight <= weight.quantile(0.25)
        metrics = {
            "weight/mean": weight.mean(),
            "weight/effective_pairs": weight.sum() ** 2 / (weight**2).sum().clamp(min=1e-12),
            "weight/zero": (weight == 0).float().mean(),
            "loss/top_weights": losses[heavy].mean(),
            "loss/bottom_weights": losses[light].mean(),
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/accuracies": (chosen > rejected).float().mean(),
            "rewards/margins": (chosen - rejected).mean(),
            "logps/chosen": gather(logps.chunk(2)[0]).mean(),
            "logps/rejected": gather(logps.chunk(2)[1]).mean(),
        }
        mode = "train" if self.model.training else "eval"
        for name, value in metrics.items():
            self._metrics[mode][name].append(value.item())
        if mode == "train":
            self._total_train_tokens += int(gather(attention_mask.sum()).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*{*self._signature_columns, "weight", self.args.length_column_name}]

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        if isinstance(dataset, Dataset):
            _check_weights(dataset, dataset_name)
        longest, args.max_length = args.max_length, None  # TRL would drop and cut; here a long pair is an error
        try:
            dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        finally:
            args.max_length = longest
        if not isinstance(dataset, Dataset):
            return dataset
        lengths = [len(p) + max(len(c), len(r)) for p, c, r in zip(*(dataset[k] for k in _IDS), strict=True)]
        if longest is not None and lengths and max(lengths) > longest:
            rows = [i for i, length in enumerate(lengths) if length > longest]
            raise ValueError(
                f"max_length: {len(rows)} of {len(lengths)} pairs of the {dataset_name} data are over {longest} "
                f"tokens, first row {rows[0]} with {lengths[rows[0]]}; leave them out or raise max_length"
            )
        name = args.length_column_name
        return dataset if name in dataset.column_names else dataset.add_column(name, lengths)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The reference's summed log-probabilities as two columns; each sequence once, shared on disk."""
        if self.args.loss == "orpo":
            return dataset
        if not isinstance(dataset, Dataset):
            return super()._precompute_ref_logps(dataset, name, batch_size)  # says that it needs a map-style data set
        version = self._reference_version()
        keys = {}
        for side in ("chosen", "rejected"):
            texts = zip(dataset["prompt_ids"], dataset[f"{side}_ids"], strict=True)
            keys[side] = [content_key(version, str(p), str(r)) for p, r in texts]
        store = Store("reference-logps")
        with FileLock(f"{store.path}.lock"):  # a second process waits, and then finds the work done
            known = store.get(list({*keys["chosen"], *keys["rejected"]}))
            sides = zip(keys["chosen"], keys["rejected"], strict=True)
            rows = [i for i, both in enumerate(sides) if not known.keys() >= set(both)]
            rows.sort(key=lambda i: len(dataset[i]["chosen_ids"]))
            collate = DeviationCollator(self._tokenizer.pad_token_id)
            for start in tqdm(range(0, len(rows), batch_size), desc="reference log-probs", disable=not rows):
                part = rows[start : start + batch_size]
                batch = collate([{k: dataset[i][k] for k in _IDS} for i in part])
                batch = {k: v.to(self.accelerator.device) for k, v in batch.items()}
                with self._reference() as reference, torch.no_grad(), self.accelerator.autocast():
                    logps, _ = response_logps(reference, batch, batch["completion_mask"], self._trunk)
                values = logps.float().cpu().numpy().reshape(2, -1)
                made = {keys[side][i]: values[s, n : n + 1] for n, i in enumerate(part) for s, side in enumerate(keys)}
                store.put(made.items())
                known.update(made)
        for side in keys:
            column = np.array([known[key][0] for key in keys[side]], dtype=np.float32)
            dataset = dataset.add_column(f"ref_{side}_logps", column)
        return dataset

    def _reference_version(self) -> str:
        """What a reference log-probability depends on besides the tokens: weights, lower layers, adapter settings."""
        adapters = {name: config.to_dict() for name, config in getattr(self.model, "peft_config", {}).items()}
        plain = json.dumps(adapters, sort_keys=True, default=_plain)
        return content_key(self._precompute_model_hash, self._trunk.version if self._trunk else "", plain)

    @contextmanager
    def _reference(self):
        """The frozen reference, without dropout: as before training, also when it is asked for after."""
        reference = self.ref_model or self.accelerator.unwrap_model(self.model)
        initial = nullcontext()
        if self.ref_model is None and isinstance(reference, PeftModel):
            initial = use_adapter(reference, "ref" if "ref" in reference.peft_config else None)
        training = reference.training
        reference.eval()
        try:
            with initial:
                yield reference
        finally:
            reference.train(training)


class ResponseSFTTrainer(_ByLength, SFTTrainer):
    """TRL's SFTTrainer with the LM head on response tokens alone and, where given, a kept trunk."""

    def __init__(self, *args, trunk: Trunk | None = None, **kwargs):
        self._trunk = trunk
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logps, counts = response_logps(model, inputs, inputs["labels"] != -100, self._trunk)
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._total_train_tokens += int(self.accelerator.gather(inputs["attention_mask"].sum()).sum())
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        loss = -logps.sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, {"logps": logps}) if return_outputs else loss


def response_logps(model, batch: dict, response: torch.Tensor, trunk: Trunk | None = None):
    """Summed log-probability of each row's response, and its number of tokens.

    Args:
        model: a causal language model, plain, PEFT or wrapped for several devices.
        batch: `input_ids` and `attention_mask`, (B, L), padded on the right.
        response: (B, L), true on response tokens.
        trunk: kept lower layers, or None.

    Returns:
        (B,) float32 sums and (B,) counts.
    """
    target = response[:, 1:].bool()
    inputs = {"attention_mask": batch["attention_mask"], "use_cache": False}
    if trunk is None:
        inputs["input_ids"] = batch["input_ids"]
    else:
        inputs["inputs_embeds"] = trunk(batch["input_ids"], batch["attention_mask"])
    keep = torch.nn.functional.pad(target, (0, 1))  # the position before a response token predicts it
    with _head_on(model, keep):
        logits = model(**inputs).logits
    tokens = batch["input_ids"][:, 1:][target]
    logp = -torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")
    row = target.nonzero()[:, 0]
    sums = torch.zeros(len(target), device=logp.device).index_add(0, row, logp)
    return sums, target.sum(dim=1).to(logp.device)


@contextmanager
def _head_on(model, keep: torch.Tensor):
    """Within, the LM head sees the (R, d) hidden states at `keep` alone, and the model returns (R, V) logits."""
    head = getattr(model, "module", model).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, args: (args[0][keep.to(args[0].device)],))
    try:
        yield
    finally:
        handle.remove()


_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


def _plain(value):
    """For JSON: sets in a fixed order, anything else by its words."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _check_weights(dataset: Dataset, name: str) -> None:
    if "weight" not in dataset.column_names:
        return
    for row, weight in enumerate(dataset["weight"]):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not np.isfinite(weight) or weight < 0:
            raise ValueError(f"weight: row {row} of the {name} data is {weight!r}; expected a finite number >= 0")
