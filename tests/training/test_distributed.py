"""Two processes against one, at equal global batches. Really started, on the CPU, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from tiny import LAYERS, load_with_adapter, save_model_and_adapter, tiny_model, tiny_pairs, tiny_tokenizer
from train_distributed import STEPS, train
from typer.testing import CliRunner

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli import commands
from ddpo_lib.cli.main import app
from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

PROJECT = Path(__file__).parents[2]
CONFIGS = PROJECT / "workflow" / "accelerate"


def launch(*command, cache: Path) -> subprocess.CompletedProcess:
    """`accelerate launch` with two processes on the CPU."""
    folders = os.pathsep.join([str(PROJECT), str(PROJECT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": folders, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    config = ["--config_file", CONFIGS / "cpu.yaml", "--main_process_port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *map(str, [*config, *command])],
        env={**os.environ, **environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Folders of the model and of the adapter that all start from."""
    return save_model_and_adapter(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def one_process(start, tmp_path_factory):
    """What one process makes of batches of four."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return train(*start, folder, 4, 1)


@pytest.fixture(scope="module")
def two_processes(start, tmp_path_factory) -> Path:
    """A folder with what each of two processes makes of batches of two, and of two batches of one a step."""
    folder = tmp_path_factory.mktemp("two")
    launch(PROJECT / "tests" / "train_distributed.py", *start, folder, "2x1", "1x2", cache=folder)
    return folder


@pytest.mark.parametrize("batches", ["2x1", "1x2"])
def test_two_processes_train_as_one_does(two_processes, one_process, batches):
    """Losses of five steps, trained adapters and reference log-probs; both processes hold the same."""
    for rank in range(2):
        results = torch.load(two_processes / f"{batches}-rank-{rank}.pt")
        assert results.pop("world") == {"size": 2, "rank": rank}
        for loss, found in results.items():
            expected = one_process[loss]
            assert len(found["losses"]) == STEPS
            assert found.keys() == expected.keys()
            for name in found:
                difference = (found[name] - expected[name]).abs().max().item()
                assert difference < 1e-5, f"{loss} {name}"


@pytest.fixture(scope="module")
def weighted(tmp_path_factory) -> tuple[Path, Path]:
    """A profile of the tiny model, and a table as `ddpo weights` writes it."""
    folder = tmp_path_factory.mktemp("command")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    pairs = tiny_pairs(12)
    rows = [
        {"prompt_id": f"p{i}", "prompt": pair["prompt"], "text": pair[side], "score": score, "weight_both": 0.5 + i % 3}
        for i, pair in enumerate(pairs)
        for side, score in (("chosen", 9.0), ("rejected", 1.0))
    ]
    table = pd.DataFrame(rows)
    table["response_id"] = [f"r{i}" for i in range(len(table))]
    table["split"] = "train"
    table.to_parquet(folder / "weights.parquet")
    return folder / "model", folder / "weights.parquet"


def profile(folder: Path, model: Path, batch_size: int, devices: int = 1) -> Path:
    optimiser = {"learning_rate": 0.001, "epochs": 2.0, "batch_size": batch_size, "warmup_steps": 0}
    optimiser |= {"devices": devices}
    knobs = {
        "extends": "smoke",
        "model": {"name": str(model), "template": "{prompt}", "lora_r": 4, "lora_alpha": 8, "last_layers": LAYERS - 2},
        "preference": {"dpo": optimiser, "orpo": optimiser},
        "sft": optimiser,
    }
    file = folder / f"{devices}-x-{batch_size}.yaml"
    file.write_text(yaml.safe_dump(knobs))
    return file


def test_ddpo_train_in_two_processes_makes_the_adapter_of_one(weighted, tmp_path):
    """Once, in one piece, and nothing beside it; the layers below the adapter are kept on disk by both."""
    model, table = weighted
    command = ["-m", "ddpo_lib.cli", "train", table]
    done = launch(*command, tmp_path / "two", "--profile", profile(tmp_path, model, 2), cache=tmp_path / "cache")
    assert done.stdout.count(f"{tmp_path / 'two'}: ddpo-both trained on 12 pairs") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of one"))
        commands.train(table, tmp_path / "one", "ddpo-both", None, str(profile(tmp_path, model, 4)))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["cache", "cache of one", "one", "two"]
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert max(one[name].abs().max().item() for name in one if "lora_B" in name) > 1e-3
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    assert json.loads((tmp_path / "two" / "log.json").read_text())[0]["weight/mean"] > 0


@pytest.mark.parametrize("arm", ["ddpo-both", "sft"])
def test_an_arm_of_a_profile_with_two_devices_is_that_of_one(weighted, arm, tmp_path, monkeypatch):
    """The command starts the processes itself. It makes the same files and leaves nothing beside them."""
    model, table = weighted
    made = {}
    for devices in (1, 2):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{devices}"))
        out = tmp_path / f"on-{devices}"
        commands.train(table, out, arm, None, str(profile(tmp_path, model, 4 // devices, devices)))
        made[devices] = load_file(out / "adapter_model.safetensors")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"cache-1", "cache-2", "on-1", "on-2"}
    files = [sorted(path.name for path in (tmp_path / f"on-{devices}").iterdir()) for devices in made]
    assert files[0] == files[1]
    assert made[1].keys() == made[2].keys()
    assert max((made[1][name] - made[2][name]).abs().max().item() for name in made[1]) < 1e-5
    assert max(made[1][name].abs().max().item() for name in made[1] if "lora_B" in name) > 1e-3


def test_what_stops_a_training_is_said_by_the_command_that_started_its_processes(weighted, tmp_path):
    _, table = weighted
    named = profile(tmp_path, tmp_path / "no model", 2, devices=2)
    with pytest.raises(InputError, match="no model"):
        commands.train(table, tmp_path / "out", "sft", None, str(named))
    assert not (tmp_path / "out").exists()


def test_commands_that_cannot_share_their_work_refuse_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, ["make", "pairs", "--runs", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("make: started as several processes")
    assert not list(tmp_path.iterdir())


def test_several_gpus_in_one_process_are_refused(start, tmp_path):
    config = DeviationConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    config._n_gpu = 2  # as transformers counts them
    settings = {"args": config, "train_dataset": tiny_pairs(2), "processing_class": tiny_tokenizer()}
    with pytest.raises(ValueError, match="accelerate launch"):
        DeviationTrainer(load_with_adapter(*start), **settings)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_is_one_that_accelerate_launch_takes(path):
    """Up to the start of processes, which needs GPUs: keys and values pass the launcher's own checks."""
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "-m", "ddpo_lib.cli"])
    arguments, config, _ = _validate_launch_command(arguments)
    kinds = {"cpu": "MULTI_GPU", "ddp": "MULTI_GPU", "deepspeed_zero3": "DEEPSPEED", "fsdp": "FSDP"}
    assert config.distributed_type.value == kinds[path.stem]
    assert arguments.num_processes == (2 if path.stem == "cpu" else 8)
    options = vars(launch_command_parser().parse_args(["script.py"]))
    assert {*config.fsdp_config, *config.deepspeed_config} <= options.keys()
    environment = prepare_multi_gpu_env(arguments) if path.stem != "deepspeed_zero3" else {}
    assert environment.get("FSDP_VERSION") == ("2" if path.stem == "fsdp" else None)
