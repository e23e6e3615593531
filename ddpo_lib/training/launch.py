"""A training on several devices: `accelerate launch` starts a process per device, and each runs `__main__.py`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.models import models

REFUSED = "refused.txt"  # what the main process writes for an `InputError`


def is_launched() -> bool:
    """Whether this process is one of several, started by `accelerate launch` or another launcher."""
    return "WORLD_SIZE" in os.environ


def launch(kind: str, table: pd.DataFrame, settings: dict, devices: int, folder: Path) -> None:
    """Call `train_sft` or `train_preferences` in several processes, and wait for them.

    Args:
        kind: "sft" or "preferences".
        table: the first argument of the function.
        settings: its other arguments by name, sections as mappings and folders as text.
        devices: number of processes; each has a GPU, or they share the cores.
        folder: the folder to fill.

    Raises:
        InputError: as the function.
        subprocess.CalledProcessError: a process failed.
    """
    on_cpu = models.device() == "cpu"
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",  # accelerate starts one process for MULTI_CPU, unless MPI is installed
        "num_machines": 1,
        "num_processes": devices,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": "no",  # the trainer's own setting decides
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": on_cpu,
        "debug": False,
    }
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // devices)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        orders = Path(name)
        table.to_parquet(orders / "table.parquet")
        (orders / "settings.json").write_text(json.dumps({"kind": kind, "folder": str(folder), **settings}))
        (orders / "accelerate.json").write_text(json.dumps(config))
        command = ["-m", "accelerate.commands.launch", "--config_file", str(orders / "accelerate.json")]
        command += ["--main_process_port", "0", "-m", "ddpo_lib.training", str(orders)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run([sys.executable, *command], env=environment, check=False)
        if done.returncode:
            if (orders / REFUSED).exists():
                raise InputError((orders / REFUSED).read_text())
            raise subprocess.CalledProcessError(done.returncode, done.args)
