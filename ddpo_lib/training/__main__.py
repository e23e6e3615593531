"""What each process of a training on several devices does; `launch.launch` starts them and writes their orders."""

import json
import sys
from pathlib import Path

import pandas as pd
from accelerate import PartialState

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Arm, Model, Optimiser, Preference
from ddpo_lib.training.launch import REFUSED
from ddpo_lib.training.train import train_preferences, train_sft


def main(orders: Path) -> None:
    """Train as the orders in a folder say: `settings.json`, and the rows in `table.parquet`."""
    settings = json.loads((orders / "settings.json").read_text())
    table = pd.read_parquet(orders / "table.parquet")
    rest = {"model": Model(**settings["model"]), "max_tokens": settings["max_tokens"], "seed": settings["seed"]}
    rest["folder"] = Path(settings["folder"])
    try:
        if settings["kind"] == "sft":
            train_sft(table, optimiser=Optimiser(**settings["optimiser"]), **rest)
        else:
            arm, preference = Arm(**settings["arm"]), Preference(**settings["preference"])
            start, reference = (settings[name] and Path(settings[name]) for name in ("start", "reference"))
            train_preferences(table, arm, start, preference=preference, reference=reference, **rest)
    except InputError as error:
        if PartialState().is_main_process:
            (orders / REFUSED).write_text(str(error))
        raise SystemExit(2) from None
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
