"""The store of reference log-probabilities: two processes that need the same ones at once, and one that is killed."""

import multiprocessing

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import direct_logps, load_with_adapter, save_model_and_adapter, tiny_pairs, tiny_tokenizer

from ddpo_lib.training import reference
from ddpo_lib.training.logps import way_for, with_fused_head
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

PAIRS = 8


def compute(start, out: str, begin, results) -> None:
    """Put in the queue how many forwards this process ran, and the log-probs that it was given."""
    model = load_with_adapter(*start)
    calls = []
    way_for(with_fused_head(model), "cpu")  # what the first use compares is no pair
    model.get_base_model().model.layers[-1].register_forward_hook(lambda *_: calls.append(1))
    config = DeviationConfig(out, use_cpu=True, bf16=False, report_to="none", precompute_ref_batch_size=1)
    begin.wait(120)
    trainer = DeviationTrainer(model, args=config, train_dataset=tiny_pairs(PAIRS), processing_class=tiny_tokenizer())
    data = trainer.train_dataset
    results.put((len(calls), [*data["ref_chosen_logps"], *data["ref_rejected_logps"]]))


def test_two_processes_at_once_do_the_work_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start = save_model_and_adapter(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    begin, results = spawn.Barrier(2), spawn.Queue()
    processes = [
        spawn.Process(target=compute, args=(start, str(tmp_path / f"out-{i}"), begin, results)) for i in range(2)
    ]
    for process in processes:
        process.start()
    (first, found), (second, same) = (results.get(timeout=180) for _ in processes)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted((first, second)) == [0, PAIRS]  # one for each pair
    assert found == same

    config = DeviationConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", loss="orpo")
    settings = {"args": config, "train_dataset": tiny_pairs(PAIRS), "processing_class": tiny_tokenizer()}
    trainer = DeviationTrainer(load_with_adapter(*start), **settings)
    batch = trainer.data_collator(list(trainer.train_dataset))
    expected = direct_logps(load_with_adapter(*start), batch).sum(dim=1).float()
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)


class Killed(Exception):
    pass


def test_what_was_computed_before_a_kill_is_not_computed_again(tmp_path, monkeypatch):
    """Ten rows, four at once, and a kill in the third part: the next process computes that part alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(reference, "AT_ONCE", 4)
    rows = list(range(10))
    columns = {
        "prompt_ids": [[1]] * 10,
        "chosen_ids": [[row] for row in rows],
        "rejected_ids": [[row, 0] for row in rows],
    }
    asked = []

    def compute(part: Dataset, killed_at: int | None) -> list[np.ndarray]:
        numbers = [ids[0] for ids in part["chosen_ids"]]
        if killed_at in numbers:
            raise Killed
        asked.append(numbers)
        return [-np.array(numbers, dtype=np.float32), -np.array(numbers, dtype=np.float32) - 0.5]

    def add(killed_at=None) -> Dataset:
        return reference.with_reference_logps(
            Dataset.from_dict(columns), "version", lambda part: compute(part, killed_at)
        )

    with pytest.raises(Killed):
        add(killed_at=9)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7]]
    made = add()
    assert asked[2:] == [[8, 9]]
    assert made["ref_chosen_logps"] == [-row for row in rows]
    assert made["ref_rejected_logps"] == [-row - 0.5 for row in rows]
