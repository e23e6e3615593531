"""Which pairs or responses form a batch, and in which order: similar lengths together, fixed by seed and epoch."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.dpo_trainer import DataCollatorForPreference


class WeightedPairs(DataCollatorForPreference):
    """TRL's padded preference batch, with the pairs' weights as `weight`, (B,) float32.

    A pair with more than `max_length` tokens or with a bad weight is an error; of a data set that is not streamed, such
    pairs were named before.
    """

    def torch_call(self, examples: list[dict]) -> dict:
        check_lengths([_tokens(example) for example in examples], self.max_length, "batch")
        check_weights([example["weight"] for example in examples if "weight" in example], "batch")
        batch = super().torch_call(examples)
        if "weight" in examples[0]:
            batch["weight"] = torch.tensor([example["weight"] for example in examples], dtype=torch.float32)
        return batch


def with_weights(collator: Callable, data) -> Callable:
    """The collator of a trainer whose data are prepared: TRL's one with weights, or the user's own as it is.

    Raises:
        ValueError: the data have weights, and the user's own collator leaves them out.
    """
    if type(collator) is DataCollatorForPreference:
        fields = {name: getattr(collator, name) for name in ("max_length", "truncation_mode", "pad_to_multiple_of")}
        return WeightedPairs(collator.pad_token_id, **fields)
    first = next(iter(data))
    if "weight" in first and "weight" not in collator([first]):
        raise ValueError(
            "data_collator: its batches have no `weight`, so all pairs would weigh 1; let it add the weights of its "
            "rows as a (B,) tensor, as `ddpo_lib.training.batches.WeightedPairs` does"
        )
    return collator


def check_columns(data, name: str) -> None:
    """Raise a ValueError that says which column, or which row of it, cannot be a preference pair's."""
    first = next(iter(data), {})
    if pictures := {"image", "images"} & first.keys():
        raise ValueError(f"{pictures.pop()}: the {name} data have pictures, which this trainer does not read")
    columns = [column for column in ("prompt", "chosen", "rejected") if column in first]
    for column in ("chosen", "rejected"):
        if column not in columns:
            raise ValueError(f"{column}: the {name} data have no such column; they have {', '.join(first) or 'none'}")
    forms = {column: type(first[column]) for column in columns}
    if len(set(forms.values())) > 1:
        told = ", ".join(f"{column} is a {form.__name__}" for column, form in forms.items())
        raise ValueError(f"row 0 of the {name} data: {told}; give all as text (str), or all as lists of messages")
    for column in columns if isinstance(data, Dataset) else ():
        for row, value in enumerate(data[column]):
            if value is None or value == []:
                raise ValueError(f"{column}: row {row} of the {name} data is empty; leave the pair out")


def check_weights(weights: Iterable, name: str) -> None:
    """Raise a ValueError that names the first row whose weight is not a finite number >= 0."""
    for row, weight in enumerate(weights):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not np.isfinite(weight) or weight < 0:
            raise ValueError(f"weight: row {row} of the {name} data is {weight!r}; expected a finite number >= 0")


def with_column(data: Dataset, name: str, values) -> Dataset:
    """The data with a column, in the place of one of that name."""
    return (data.remove_columns(name) if name in data.column_names else data).add_column(name, values)


def _tokens(example: dict) -> int:
    return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))


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
