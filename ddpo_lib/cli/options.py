"""What several commands of `ddpo` share: types with which a command annotates its arguments, so that an option has the
same name, help and limits in each of them, and the form of the examples in `--help`.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

IS_MAIN = os.environ.get("RANK", "0") == "0"  # of the processes that `accelerate launch` started

PROFILE = typer.Option(help="A profile of the package, such as embedded, smoke, small or paper, or a YAML file.")
CORPUS = typer.Option(help="Corpus: a file, a folder or a hub data set; default: the profile's.")
RUNS = typer.Option(help="Folder of the runs.")
GPUS = "GPUs, such as 0,1: each process uses one of them alone; list a GPU twice to share it between two."

HELD_OUT, SPLIT_SEED = 0.1, 42  # the same for every command (paper, data: 90/10 by prompt, seed 42)
SHARE = typer.Option(min=0, max=1, help="Share of the prompts that are held out; a prompt's text decides.")

TOKENS = typer.Option(min=1, help="Most new tokens per sample, thoughts included; default: the profile's.")
SENDS = typer.Option(
    help="Settings to send, such as temperature,top_k, or none; of temperature, top_p, top_k, min_p, "
    "repetition_penalty."
)

Sends = Annotated[str | None, SENDS]
Tokens = Annotated[int | None, TOKENS]
Profile = Annotated[str, PROFILE]
HeldOut = Annotated[float, SHARE]
SplitSeed = Annotated[int, typer.Option(help="Seed of the split; another seed holds out other prompts.")]
Corpus = Annotated[str | None, CORPUS]
Runs = Annotated[Path, RUNS]


def sent(names: str | None) -> list[str] | None:
    """The settings that `--sends` names; None if it is not given, empty for "none"."""
    if names is None:
        return None
    return [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]


def examples(*lines: str) -> str:
    """The end of a command's `--help`, with shell lines as they are typed, one per line of at most 76 characters.

    The command line joins the lines of a paragraph, so each line is a paragraph.
    """
    return "\n\n".join(["Examples:", *lines])
