"""No file that is read runs code: pickles that would leave a mark are offered wherever a file is loaded."""

import io
import json
import pickle
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import save_model_and_adapter, tiny_pairs, tiny_tokenizer

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.measures.stand_in import StandIn
from ddpo_lib.models.models import load_model
from ddpo_lib.profiles.settings import Model, Optimiser
from ddpo_lib.spaces.embed import Space, embed
from ddpo_lib.training import train
from ddpo_lib.training.checkpoints import FILE, _mark


class Trap:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.write_text, (self.mark, "code ran"))


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "mark"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Path]:
    folders = save_model_and_adapter(tmp_path_factory.mktemp("saved"))
    tiny_tokenizer().save_pretrained(folders[0])
    return folders


def test_the_trap_works(mark):
    """Else the other tests would pass whatever is loaded."""
    file = io.BytesIO()
    torch.save({"weight": Trap(mark)}, file)
    file.seek(0)
    torch.load(file, weights_only=False)
    assert mark.read_text() == "code ran"


def as_pickled_weights(folder: Path, name: str, mark: Path, old: str) -> Path:
    """The folder with its weights in a pickle, as tools wrote them before safetensors, and a trap among them."""
    weights = load_file(folder / old)
    (folder / old).unlink()
    torch.save({**weights, "trap": Trap(mark)}, folder / name)
    return folder


def test_weights_of_a_model_and_of_an_adapter_run_no_code(saved, mark, tmp_path):
    model, adapter = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in saved)
    as_pickled_weights(adapter, "adapter_model.bin", mark, "adapter_model.safetensors")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported|unpickl"):
        load_model(str(saved[0]), adapter)
    as_pickled_weights(model, "pytorch_model.bin", mark, "model.safetensors")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported|unpickl"):
        load_model(str(model))
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported|unpickl"):
        embed(["A text."], Space(str(model)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_runs_no_code(saved, mark, tmp_path, name, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    optimiser = {"learning_rate": 0.01, "epochs": 2.0, "batch_size": 4, "warmup_steps": 0, "schedule": "linear"}
    settings = Model(name=str(saved[0]), dtype="float32", template="{prompt}", lora_r=4, lora_alpha=8)
    corpus = tiny_pairs(4).to_pandas().rename(columns={"chosen": "text"})
    each_step = Optimiser(**optimiser, max_grad_norm=1.0, checkpoint_steps=1)
    call = partial(train.train_sft, corpus, settings, each_step, 64, 0, tmp_path / "out")

    class Stop(Exception):
        pass

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(train.QuietProgress, "on_step_begin", lambda *args, **kwargs: None)
        patch.setattr(train.QuietProgress, "on_step_end", stop)
        call()
    place = tmp_path / "out" / "checkpoints" / "checkpoint-1"
    torch.save(Trap(mark), place / name)
    (place / FILE).unlink()
    _mark(place, {"tokens": 0, "arm": None})
    if name == "training_args.bin":  # nothing reads it
        call()
    else:
        with pytest.raises(Exception, match=r"(?i)weights.only"):
            call()
    assert not mark.exists()


def test_arrays_of_objects_are_not_read(mark, tmp_path):
    np.save(tmp_path / "vectors.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "vectors.npy")  # as every step of a run reads vectors
    (tmp_path / "reward.json").write_text(
        json.dumps({"spaces": {"semantic": {"model": "lexical"}, "style": {"model": "lexical"}}, "facts": {}})
    )
    with zipfile.ZipFile(tmp_path / "ridge.npz", "w") as archive:
        for name in ("centre", "slopes", "intercept"):
            archive.write(tmp_path / "vectors.npy", f"{name}.npy")
    with pytest.raises(ValueError, match="allow_pickle"):
        StandIn.load(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["corpus.pkl", "corpus.jsonl", "corpus.parquet", "corpus"])
def test_a_pickle_is_no_corpus(mark, tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ValueError, match="a Python pickle, which can run code"):
        read_corpus(tmp_path / name)
    assert not mark.exists()


def test_no_line_of_the_library_loads_pickles():
    files = sorted((Path(__file__).parents[1] / "ddpo_lib").rglob("*.py"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    plain = {name for text in texts.values() for name in re.findall(r"class (\w+)\(yaml\.SafeLoader\)", text)}
    for file, text in texts.items():
        for words in (
            "import pickle",
            "pickle.load",
            "torch.load",
            "joblib.load",
            "read_pickle",
            "allow_pickle",
            "yaml.unsafe_load",
            "yaml.full_load",
        ):
            assert words not in text, f"{file}: {words}"
        for loader in re.findall(r"yaml\.load\(.*, (\w+)\)", text):
            assert loader in plain, f"{file}: {loader} may make objects of any kind"
        assert text.count("yaml.load(") == len(re.findall(r"yaml\.load\(.*, \w+\)", text)), file
