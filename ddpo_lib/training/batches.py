"""Which pairs or responses form a batch, and in which order: similar lengths together, fixed by seed and epoch."""

import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.dpo_trainer import DataCollatorForPreference


class WeightedPairs(DataCollatorForPreference):
    """TRL's padded preference batch, with the pairs' weights as `weight`, (B,) float32."""

    def torch_call(self, examples: list[dict]) -> dict:
        batch = super().torch_call(examples)
        if "weight" in examples[0]:
            batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


def check_weights(data: Dataset, name: str) -> None:
    """Raise a ValueError that names the first row whose `weight` is not a finite number >= 0."""
    if "weight" not in data.column_names:
        return
    for row, weight in enumerate(data["weight"]):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not np.isfinite(weight) or weight < 0:
            raise ValueError(f"weight: row {row} of the {name} data is {weight!r}; expected a finite number >= 0")


def check_lengths(lengths: list[int], longest: int | None, name: str) -> None:
    """Raise a ValueError that counts the pairs with more than `longest` tokens and names the first one."""
    rows = [row for row, length in enumerate(lengths) if longest is not None and length > longest]
    if rows:
        raise ValueError(
            f"max_length: {len(rows)} of {len(lengths)} pairs of the {name} data are over {longest} tokens, first row "
            f"{rows[0]} with {lengths[rows[0]]}; leave them out or raise max_length"
        )


class ByLength:
    """Makes the order of a trainer's sampling strategy "group_by_length" the same when a training is resumed."""

    def _get_train_sampler(self, train_dataset=None):
        data = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not isinstance(data, Dataset):
            return super()._get_train_sampler(train_dataset)
        known = self.args.length_column_name in data.column_names
        lengths = list(data[self.args.length_column_name]) if known else [len(ids) for ids in data["input_ids"]]
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return _EpochSampler(size, lengths, self.args.seed)


class _EpochSampler(LengthGroupedSampler):
    """Batches of similar length, in an order that depends only on seed and epoch."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return super().__iter__()
