"""A training that was killed goes on if the same call is made again; any other call begins anew and says why."""

import json
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file
from tiny import tiny_model, tiny_pairs, tiny_tokenizer

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Arm, Model, Optimiser, Preference
from ddpo_lib.training import train
from ddpo_lib.training.checkpoints import FILE, WholeCheckpoints, last_whole

SFT = Optimiser(
    learning_rate=0.01,
    epochs=2.0,
    batch_size=2,
    warmup_steps=1,
    schedule="linear",
    max_grad_norm=1.0,
    checkpoint_steps=2,
)
STEPS = 8
SUMMARY = "train_runtime"  # of the entry of a log that has seconds


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Model(name=str(folder), dtype="float32", template="{prompt}", lora_r=4, lora_alpha=8)


@pytest.fixture(scope="module")
def corpus() -> pd.DataFrame:
    return tiny_pairs(8).to_pandas().rename(columns={"chosen": "text"})


class Stopped(Exception):
    """The training is stopped between two steps."""


def train_until(stop: int | None, call, folder: Path) -> list[int]:
    """Train; stop after a step, as a kill would. Returns the steps that were taken."""
    taken: list[int] = []

    def note(self, args, state, control, **kwargs):
        taken.append(state.global_step)
        if state.global_step == stop:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.QuietProgress, "on_step_end", note)
        try:
            call(folder)
            assert stop is None
        except Stopped:
            pass
    return taken


def sft(corpus, settings, optimiser=SFT, seed=0):
    return partial(train.train_sft, corpus, settings, optimiser, 64, seed)


@pytest.fixture(scope="module")
def whole(corpus, settings, tmp_path_factory) -> Path:
    """The folder of an SFT that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert train_until(None, sft(corpus, settings), folder) == [*range(1, STEPS + 1)]
    return folder


@pytest.fixture(scope="module")
def killed(corpus, settings, tmp_path_factory) -> Path:
    """The folder of the same SFT, killed after step 5, with the checkpoints of steps 2 and 4."""
    folder, kept = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("kept")
    train_until(3, sft(corpus, settings), folder)
    shutil.copytree(folder / "checkpoints" / "checkpoint-2", kept / "checkpoint-2")
    assert train_until(5, sft(corpus, settings), folder) == [3, 4, 5]
    assert [place.name for place in (folder / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]
    shutil.copytree(kept, folder / "checkpoints", dirs_exist_ok=True)
    return folder


def assert_same(found: Path, wanted: Path) -> None:
    one, other = (load_file(folder / "trained" / "adapter_model.safetensors") for folder in (found, wanted))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
    logs = [json.loads((folder / "log.json").read_text()) for folder in (found, wanted)]
    assert [[entry for entry in log if SUMMARY not in entry] for log in logs] == [logs[1][:-1]] * 2
    assert sorted(path.name for path in found.iterdir()) == ["log.json", "trained"]


def test_the_same_call_goes_on_and_ends_as_if_nothing_had_happened(whole, killed, corpus, settings, tmp_path):
    folder = Path(shutil.copytree(killed, tmp_path / "again"))
    assert train_until(None, sft(corpus, settings), folder) == [5, 6, 7, 8]
    assert_same(folder, whole)


def test_a_torn_checkpoint_is_passed_over(whole, killed, corpus, settings, tmp_path, caplog):
    folder = Path(shutil.copytree(killed, tmp_path / "again"))
    with (folder / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors").open("rb+") as file:
        file.truncate(100)
    assert train_until(None, sft(corpus, settings), folder) == [*range(3, STEPS + 1)]
    assert "checkpoint-4: is incomplete (adapter_model.safetensors has 100 of" in caplog.text
    assert "it is passed over" in caplog.text
    assert_same(folder, whole)


def other_data(corpus, settings, tmp_path):
    return sft(corpus.assign(text=corpus["text"].str.replace("cat", "dog")), settings)


def other_order(corpus, settings, tmp_path):
    return sft(corpus.iloc[::-1], settings)


def other_rate(corpus, settings, tmp_path):
    return sft(corpus, settings, SFT.model_copy(update={"learning_rate": 0.02}))


def other_seed(corpus, settings, tmp_path):
    return sft(corpus, settings, seed=1)


def other_weights(corpus, settings, tmp_path):
    """The model was trained anew in its folder."""
    shutil.copytree(settings.name, tmp_path / "model")
    tiny_model(seed=1).save_pretrained(tmp_path / "model")
    return sft(corpus, settings.model_copy(update={"name": str(tmp_path / "model")}))


def other_arm(corpus, settings, tmp_path):
    preference = Preference(beta=0.1, lam=0.25, dpo=SFT, orpo=SFT)
    arm = Arm(loss="dpo", start="base")
    return partial(train.train_preferences, tiny_pairs(8).to_pandas(), arm, None, settings, preference, 64, 0)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (other_data, "data"),
        (other_order, "data"),
        (other_rate, "settings"),
        (other_seed, "seed"),
        (other_weights, "model"),
        (other_arm, "data, settings, code"),
    ],
)
def test_another_call_begins_anew_and_says_what_differs(killed, corpus, settings, tmp_path, caplog, other, named):
    folder = Path(shutil.copytree(killed, tmp_path / "again"))
    assert train_until(1, other(corpus, settings, tmp_path), folder) == [1]
    assert (
        f"checkpoints: unfinished work of another kind ({named} differs); it is removed and begun anew" in caplog.text
    )
    assert not list((folder / "checkpoints").glob("checkpoint-*"))


def test_other_code_begins_anew(killed, corpus, settings, tmp_path, caplog, monkeypatch):
    folder = Path(shutil.copytree(killed, tmp_path / "again"))
    monkeypatch.setattr(train, "code_key", lambda function: {"code": "of another release"})
    assert train_until(1, sft(corpus, settings), folder) == [1]
    assert "(code differs)" in caplog.text


def test_an_arm_of_another_start_weight_or_setting_begins_anew(corpus, settings, whole, killed, tmp_path, caplog):
    preference = Preference(beta=0.1, lam=0.25, dpo=SFT, orpo=SFT)
    starts = [Path(shutil.copytree(whole / "trained", tmp_path / name)) for name in ("start", "other")]
    shutil.copy(killed / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors", starts[1])
    pairs = tiny_pairs(8, [1.0] * 7 + [0.5]).to_pandas()

    def call(pairs, start, reference=None, **arm):
        arm = Arm(**{"loss": "dpo", "start": "sft"} | arm)
        return partial(train.train_preferences, pairs, arm, start, settings, preference, 64, 0, reference=reference)

    out, first = tmp_path / "out", call(pairs, starts[0])
    train_until(3, first, out)
    assert train_until(3, first, out) == [3]
    for named, other in {
        "start": call(pairs, starts[1]),
        "data": call(pairs.assign(weight=1.0), starts[0]),
        "settings": call(pairs, starts[0], beta=0.2),
        "settings, reference": call(pairs, starts[0], reference=starts[1]),
    }.items():
        folder = Path(shutil.copytree(out, tmp_path / f"asked with another {named}"))
        caplog.clear()
        assert train_until(1, other, folder) == [1]
        assert f"({named.split(',')[0]} differs)" in caplog.text


# Which checkpoint is the last whole one


def checkpoint(folder: Path, step: int, state: dict | None = None) -> Path:
    """A checkpoint as a trainer writes it, with small files."""
    from ddpo_lib.training.checkpoints import _mark

    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    state = {"global_step": step, "max_steps": 100, "best_model_checkpoint": None, "stateful_callbacks": {}} | (
        state or {}
    )
    (place / "trainer_state.json").write_text(json.dumps(state))
    for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (place / name).write_bytes(b"x" * 1000)
    _mark(place, {"tokens": step, "arm": None})
    return place


DAMAGE = {
    "a truncated file": lambda place: os.truncate(place / "optimizer.pt", 999),
    "a file of no length": lambda place: os.truncate(place / "adapter_model.safetensors", 0),
    "no weights": lambda place: (place / "adapter_model.safetensors").unlink(),
    "no trainer_state.json": lambda place: (place / "trainer_state.json").unlink(),
    "half of trainer_state.json": lambda place: os.truncate(place / "trainer_state.json", 20),
    "half of the mark": lambda place: os.truncate(place / FILE, 20),
    "a mark of no length": lambda place: os.truncate(place / FILE, 0),
    "a mark that is no object": lambda place: (place / FILE).write_text("[1]"),
    "no mark, as in the middle of writing": lambda place: (place / FILE).unlink(),
    "nothing": lambda place: [file.unlink() for file in place.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_torn_checkpoint_and_the_one_before_it_the_latter_counts(tmp_path, caplog, damage):
    before, torn = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert last_whole(tmp_path) == torn
    DAMAGE[damage](torn)
    assert last_whole(tmp_path) == before
    assert f"{torn}: " in caplog.text and "it is passed over" in caplog.text
    DAMAGE[damage](before)
    assert last_whole(tmp_path) is None


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 130, "/".join(["😀" * 60] * 16), "a\0b", "\ud800"], ids=ascii)
def test_a_mark_with_a_name_that_no_system_has_ends_with_what_to_do(tmp_path, name):
    (checkpoint(tmp_path, 9) / FILE).write_text(json.dumps({"files": {name: 1}}))
    with pytest.raises(InputError, match=r"checkpoint-9: checkpoint\.json is not as a trainer writes it; remove"):
        last_whole(tmp_path)


def test_other_files_and_a_folder_without_checkpoints_are_no_checkpoints(tmp_path):
    assert last_whole(tmp_path / "none") is None
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-12-old").mkdir()
    assert last_whole(tmp_path) is None


def test_where_training_stopped_early_it_is_resumed_from_the_checkpoint_before(tmp_path):
    """transformers would take another step and evaluate again, which could change what is best."""
    best = checkpoint(tmp_path, 4)
    stopped = {"TrainerControl": {"args": {"should_training_stop": True}}}
    checkpoint(tmp_path, 8, {"best_model_checkpoint": str(best), "stateful_callbacks": stopped})
    assert last_whole(tmp_path) == best
    end = checkpoint(tmp_path, 100, {"stateful_callbacks": stopped})  # the last step of all: nothing follows it
    assert last_whole(tmp_path) == end


def test_a_checkpoint_whose_best_one_is_gone_is_passed_over(tmp_path):
    """A folder that was moved, or a kill: transformers would forget the best weights and keep the last ones."""
    best = checkpoint(tmp_path, 4)
    new = checkpoint(tmp_path, 8, {"best_model_checkpoint": str(best)})
    assert last_whole(tmp_path) == new
    moved = Path(shutil.copytree(tmp_path, tmp_path.with_name("moved")))
    assert last_whole(moved) == moved / "checkpoint-4"
    (best / "optimizer.pt").unlink()
    assert last_whole(tmp_path) is None


def test_the_new_checkpoint_is_kept_when_the_clock_was_set_back(corpus, settings, tmp_path):
    train_until(3, sft(corpus, settings), tmp_path / "out")
    old = tmp_path / "out" / "checkpoints" / "checkpoint-2"
    tomorrow = time.time() + 86400
    for path in (old, *old.iterdir()):
        os.utime(path, (tomorrow, tomorrow))
    assert train_until(5, sft(corpus, settings), tmp_path / "out") == [3, 4, 5]
    assert last_whole(old.parent) == old.with_name("checkpoint-4")
    assert not old.exists()


def test_every_trainer_of_ours_marks_its_checkpoints():
    from ddpo_lib.measures.reward_model import RewardTrainer
    from ddpo_lib.training.trainer import DeviationTrainer, ResponseSFTTrainer

    for trainer in (RewardTrainer, DeviationTrainer, ResponseSFTTrainer):
        assert issubclass(trainer, WholeCheckpoints)
