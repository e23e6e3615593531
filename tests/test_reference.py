"""The store of reference log-probabilities under two processes that need the same ones at once."""

import multiprocessing

import torch
from tiny import direct_logps, load_with_adapter, save_model_and_adapter, tiny_pairs, tiny_tokenizer

from ddpo_lib.trainer import DeviationConfig, DeviationTrainer

PAIRS = 8


def compute(start, out: str, begin, results) -> None:
    """Put in the queue how many batches this process ran, and the log-probs that it was given."""
    model = load_with_adapter(*start)
    calls = []
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
    assert sorted((first, second)) == [0, PAIRS]
    assert found == same

    config = DeviationConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", loss="orpo")
    settings = {"args": config, "train_dataset": tiny_pairs(PAIRS), "processing_class": tiny_tokenizer()}
    trainer = DeviationTrainer(load_with_adapter(*start), **settings)
    batch = trainer.data_collator(list(trainer.train_dataset))
    expected = direct_logps(load_with_adapter(*start), batch).sum(dim=1).float()
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)
