"""The benchmark for a GPU runs whole on a CPU, and its arithmetic is right; how fast anything is, is not tested."""

import json
from dataclasses import replace
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu, gpu_shapes, gpu_tables
from benchmarks.gpu_sampling import EMBEDDING
from benchmarks.gpu_shapes import flops, stories
from benchmarks.gpu_training import AGAIN, AGAINST, LADDER, OURS, STOCK, TRAININGS, built

TINY = gpu_shapes.SHAPES["tiny"]
SMALL = replace(TINY, layers=1, width=4, inner=6, heads=2, kv_heads=1, vocabulary=10, rank=1)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    made = gpu.measure_all("tiny", folder)
    assert json.loads((folder / "speed.json").read_text()) == made
    assert (folder / "speed.md").read_text() == gpu_tables.report(made)
    return made


@pytest.fixture
def asked(monkeypatch):
    """What is measured, with its limit, where every measurement fails; the first takes 400 seconds."""
    calls = []

    def fail(shape, name, limit, cache):
        calls.append((shape, name, limit))
        return {"failed": "not tried"}

    clock = SimpleNamespace(monotonic=lambda: 400.0 * bool(calls))
    monkeypatch.setattr(gpu, "measure_apart", fail)
    monkeypatch.setattr(gpu, "time", clock)
    return calls


def test_everything_but_vllm_is_measured_on_a_cpu(content):
    assert list(content["measured"]) == gpu.names()
    failed = {name: made["failed"] for name, made in content["measured"].items() if "failed" in made}
    assert set(failed) <= {"vLLM"}
    for made in content["measured"].values():
        assert all(made[key] > 0 for key in ("tokens_per_second", "texts_per_second", "peak_bytes") if key in made)


def leave(folder, **other) -> dict:
    """What a run that measured everything has written in a folder; or one of something else."""
    left = gpu.begun("tiny", folder / "speed.json") | {"measured": {name: {"seconds": 1} for name in gpu.names()}}
    (folder / "speed.json").write_text(json.dumps(left | other))
    return left


def test_a_second_run_measures_what_is_missing(asked, tmp_path):
    before = leave(tmp_path)["measured"]
    del before["DORPO"]
    leave(tmp_path, measured=before | {EMBEDDING: {"failed": "not done within 150 s"}}, made="2026-01-02")
    made = gpu.measure_all("tiny", tmp_path)
    assert [name for _, name, _ in asked[1:]] == [EMBEDDING, "DORPO"]
    failed = {"failed": "not tried"}
    assert made["measured"] == before | {EMBEDDING: failed, "DORPO": failed}
    assert made["made"] == "2026-01-02"
    assert json.loads((tmp_path / "speed.json").read_text()) == made


def test_nothing_is_begun_where_all_is_measured(asked, tmp_path):
    left = leave(tmp_path)
    assert gpu.measure_all("tiny", tmp_path) == left
    assert asked == []


@pytest.mark.parametrize(
    "other", [{"layers": 3}, {"code": "of another day"}, {"versions": {}}, {"hardware": {"gpu": "NVIDIA H200"}}]
)
def test_what_was_measured_of_something_else_is_measured_again(asked, tmp_path, other):
    leave(tmp_path, **other)
    gpu.measure_all("tiny", tmp_path)
    assert [name for _, name, _ in asked[1:]] == gpu.names()


def test_the_first_import_of_the_libraries_is_on_no_measurements_clock(asked, tmp_path):
    gpu.measure_all("llama-8b", tmp_path)
    assert asked[0][:2] == ("tiny", STOCK)
    assert asked[1] == ("llama-8b", STOCK, gpu.LIMIT)


@pytest.mark.parametrize(("visible", "first"), [(None, "0"), ("3,5", "3"), ("", "")])
def test_a_measurement_sees_one_gpu(monkeypatch, tmp_path, visible, first):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(gpu, "measure", lambda *_: {"seen": gpu.os.environ["CUDA_VISIBLE_DEVICES"]})
    here, there = Pipe(duplex=False)
    gpu.send_measure(there, TINY, STOCK, str(tmp_path))
    assert here.recv() == {"seen": first}


def test_padded_and_packed_contenders_have_references_of_their_own(monkeypatch, tmp_path):
    """What the second found there it would not compute."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    columns, _ = stories(TINY)
    computed = []
    for name in (OURS, "+ weights"):
        training = TRAININGS[name]
        policy = gpu_shapes.adapted_model(TINY, training.attention)
        passes = []
        policy.get_base_model().get_input_embeddings().register_forward_hook(lambda *_, passes=passes: passes.append(1))
        built(TINY, training, policy, columns, str(tmp_path / "out"))
        computed.append(len(passes))
    assert min(computed) > 0


def test_vllm_finds_the_model_by_its_configuration(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    gpu_shapes.llama(TINY).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert type(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))).__name__ == "LlamaForCausalLM"


def test_memory_that_is_not_known_is_left_out_of_the_table():
    text = gpu_tables.sampling_table({"vLLM": {"tokens_per_second": 5000.0}}, TINY)
    assert "| vLLM | 5,000 tokens |  |  |" in text


def test_contenders_train_on_the_same_losses(content):
    measured = content["measured"]
    found = gpu_tables.compared_losses(measured)
    assert found["same"]
    # losses move far more than they are apart: that they are the same says something
    assert 0 < found["noise"] < 0.1 * np.std(measured[STOCK]["losses"])
    for name in LADDER:
        assert len(measured[name]["losses"]) == TINY.steps
        assert measured[name]["losses"][0] == pytest.approx(np.log(2), abs=1e-3)  # the adapter starts at nothing
    orpo = measured["stock TRL ORPO"]["losses"]
    assert orpo[0] == pytest.approx(np.log(TINY.vocabulary), abs=0.3)  # a new model's words are all as likely


def test_only_packed_batches_have_no_padding(content):
    padding = {name: content["measured"][name]["padding"] for name in TRAININGS}
    packed = [name for name, training in TRAININGS.items() if training.kind.startswith("ours")]
    for name in packed:
        assert (padding[name] == 0) == (TRAININGS[name].attention == "sdpa")
    assert padding[STOCK] == padding["+ cached reference"] == padding["+ weights"] > 0.2


def test_the_tables_have_what_was_measured_and_name_what_was_not(content):
    text = gpu_tables.report(content)
    for name in AGAINST:
        assert f"| {name} |" in text
    asked = [row.asked for row in gpu_tables.goals(content["measured"])]
    assert asked == [
        *("7,000 tokens/s", "10,000 tokens/s", "1.5x tokens/s", "peak memory not above", "under 1%"),
        f"at most {gpu_tables.SAME}x bf16 noise apart",
    ]
    alone = {**content, "measured": {STOCK: content["measured"][STOCK], "vLLM": {"failed": "not installed"}}}
    assert "- vLLM: not installed" in gpu_tables.report(alone)
    assert gpu_tables.goals(alone["measured"]) == []
    assert gpu_tables.compared_losses(alone["measured"]) is None


def test_utilisation_is_told_only_of_a_device_whose_peak_is_known():
    made = {"losses": [0.7], "tokens_per_second": 1e4, "flops_per_token": 4.945e10, "peak_bytes": 2**34, "padding": 0}
    assert "| 10,000 | 1.00x | 50% | 16.0 GiB | 0% |" in gpu_tables.training_table({STOCK: made}, "NVIDIA H200")
    assert "| 10,000 | 1.00x |  | 16.0 GiB | 0% |" in gpu_tables.training_table({STOCK: made}, "another")


def test_operations_are_those_counted_by_hand():
    """A layer of width 4 with two heads over one of keys: q and o 16 weights each, k and v 8, three of 24 in the MLP;
    adapters of rank 1 on q (4 + 4) and v (4 + 2). One prompt of 2 tokens, a story of 3, 10 words."""
    layer = 5 * (4 * (16 + 16 + 8 + 8 + 72) + 6 * (8 + 6))
    attention = 6 * 5**2 * 4
    head = 4 * 4 * 10 * 3
    assert flops(SMALL, [(2, 3)]) == layer + attention + head
    assert flops(replace(SMALL, layers=3), [(2, 3)]) == 3 * (layer + attention) + head


def test_of_eight_billion_parameters_a_token_takes_four_operations_a_weight():
    """Short texts, all story: 4 operations for each of 8.03e9 weights less the embedding's, and the adapter's."""
    shape = gpu_shapes.SHAPES["llama-8b"]
    weights = 8_030_261_248 - shape.vocabulary * shape.width
    adapter = shape.layers * shape.rank * (2 * 4096 + 4096 + 1024)
    assert flops(shape, [(0, 1)]) == pytest.approx(4 * weights + 6 * adapter, rel=1e-4)


def test_stories_have_the_lengths_that_are_told_and_words_of_one_token():
    columns, lengths = stories(TINY)
    tokenizer = gpu_shapes.word_tokenizer(TINY)
    pairs = TINY.steps * TINY.pairs
    assert [len(column) for column in columns.values()] == [pairs] * 3
    for i in range(pairs):
        for side, (prompt, story) in zip(("chosen", "rejected"), lengths[2 * i : 2 * i + 2], strict=True):
            assert len(tokenizer(columns["prompt"][i]).input_ids) == prompt
            ids = tokenizer(columns["prompt"][i] + columns[side][i] + tokenizer.eos_token).input_ids
            assert len(ids) == prompt + story
            assert (max(ids[prompt:-1]) < TINY.vocabulary // 2) == (side == "chosen")


def test_lengths_are_spread_as_stories_are():
    shape = replace(gpu_shapes.SHAPES["llama-8b"], steps=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_shapes, "words", lambda *_: "")
        _, lengths = stories(shape)
    told = np.array([story for _, story in lengths])
    assert np.median(told) == pytest.approx(shape.story, rel=0.05)
    assert np.std(np.log(told)) == pytest.approx(gpu_shapes.SPREAD, rel=0.05)
    assert told.max() == shape.longest


def test_losses_are_the_same_where_they_differ_no_more_than_noise():
    def losses(*values):
        return {"losses": list(values)}

    measured = {
        STOCK: losses(1, 1),
        AGAIN: losses(1.1, 0.9),
        OURS: losses(0.7, 1.3),
        "+ weights": losses(1, 1),
    }
    found = gpu_tables.compared_losses(measured)
    assert found["noise"] == pytest.approx(0.1)
    assert found["apart"] == pytest.approx({OURS: 0.3, "+ weights": 0})
    assert not gpu_tables.compared_losses(measured | {OURS: losses(0.6, 1.4)})["same"]


def test_what_fails_or_finds_no_time_is_told(tmp_path):
    def failed(name, limit):
        return gpu.measure_apart("tiny", name, limit, str(tmp_path))["failed"]

    assert failed(STOCK, 0) == "no time was left of 7.5 minutes"
    assert failed(STOCK, 0.01) == "not done within 0 s"
    assert failed("no such thing", 60).startswith("KeyError")
