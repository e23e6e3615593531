"""The examples in `--help`: every public command has some; those that need no training and no other program are run."""

import itertools
import json
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from test_human_eval import write_answers, write_run
from test_main import said
from tiny import WORDS, save_model_and_adapter, tiny_tokenizer
from typer.testing import CliRunner

from ddpo_lib.cli.main import app

WIDTH = 76  # characters that a terminal of 80 columns shows in one line
NOT_RUN = {  # how an example begins, or what it contains -> why the test only parses it
    "ddpo train ": "trains",
    "ddpo online ": "trains",
    "ddpo run ": "trains, or executes a chapter",
    "ddpo read ": "executes all chapters, and publishes the book of this checkout",
    "ddpo pdf ": "prints the book of this checkout",
    "ddpo make samples-": "trains",
    "ddpo verify ": "needs a run that is made",
    "ddpo generate - ": "loads a model that is not the test's, or needs a server",
    "ddpo annotate serve ": "runs until it is stopped",
    "ddpo annotate judge ": "loads a model that is not the test's, or needs a server",
    "--show summary": "loads a model that is not the test's",
}


def public_commands(group=None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """The commands that `--help` lists, by the words that call them."""
    found = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            found |= public_commands(command, (*path, name))
        elif not command.hidden:
            found[(*path, name)] = command
    return found


def examples_of(command) -> list[str]:
    """The lines of a command's epilog, after their heading."""
    heading, *lines = (command.epilog or "").split("\n\n")
    assert heading in ("Examples:", "")
    return lines


PUBLIC = public_commands()
EXAMPLES = [line for command in PUBLIC.values() for line in examples_of(command)]
PARSED = [line for line in EXAMPLES if any(part in f"{line} " for part in NOT_RUN)]
RUN = [line for line in EXAMPLES if line not in PARSED]


@pytest.mark.parametrize("path", PUBLIC, ids=" ".join)
def test_the_help_of_every_public_command_shows_its_examples_as_lines_to_copy(path):
    lines = examples_of(PUBLIC[path])
    assert lines
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}).stdout
    for line in lines:
        assert tuple(shlex.split(line)[: len(path) + 1]) == ("ddpo", *path)
        assert len(line) <= WIDTH, line
        assert line in [row.strip() for row in shown.splitlines()]


def parse(line: str) -> None:
    """Check the commands, arguments and options of a line as the command line does before it calls a function.

    Raises what the command line raises for an unknown option, a value of the wrong type or a missing argument.
    """
    words, command = shlex.split(line)[1:], typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, words)


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_parsed(line):
    parse(line)


@pytest.mark.parametrize(
    "line", ["ddpo weights mine.jsonl", "ddpo plan --gpus 0", "ddpo run --cores many", "ddpo annotate serve s --port 0"]
)
def test_a_wrong_line_is_not_parsed(line):
    with pytest.raises(Exception, match=r"Missing parameter|No such option|Input should be"):
        parse(line)


def test_what_is_only_parsed_is_said_and_nothing_else_is_left_out():
    assert {part for part in NOT_RUN if not any(part in f"{line} " for line in PARSED)} == set()
    commands = {path for path in PUBLIC if any(line.startswith(f"ddpo {' '.join(path)}") for line in RUN)}
    only_parsed = {
        ("train",),
        ("online",),
        ("run",),
        ("read",),
        ("pdf",),
        ("verify",),
        ("annotate", "serve"),
        ("annotate", "judge"),
    }
    assert set(PUBLIC) - commands == only_parsed


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The files that the examples name: a corpus, its weights, an adapter that was not trained, samples, a study."""
    folder = tmp_path_factory.mktemp("examples")
    save_model_and_adapter(folder, last_layers=2)
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "adapter").rename(folder / "ddpo")
    knobs = {
        "extends": "smoke",
        "spaces": {"semantic": {"model": "lexical"}, "others": {}},
        "model": {"name": str(folder / "model"), "template": "{prompt}", "lora_r": 4, "last_layers": 2},
        "sampling": {"samples": 2, "max_new_tokens": 8},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(knobs))
    endings = ["sat", "ran and sang", "slept under a star", "opened one old door"]
    lines = [
        {
            "prompt": f"{a} {b} near the",
            "responses": [{"text": f"the {a} {end} past {b}", "score": 3 * j + i % 4} for j, end in enumerate(endings)],
        }
        for i, (a, b) in enumerate(itertools.product(WORDS[:6], WORDS[6:10]))
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "prompts.jsonl").write_text('{"prompt": "ran sang the"}\n{"prompt": "old door past"}\n')
    for name in ("samples", "dpo", "ddpo"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:6]))
    weights = ["weights", folder / "mine.jsonl", "--semantic", "lexical", "--held-out", "0.3", "--split-seed", "5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        said(*weights, folder / "weights.parquet")
        for k in (1, 2):
            said(*weights, folder / f"part{k}.parquet", "--shard", f"{k}/2")
    for run in ("embedded", "small"):
        write_run(folder / "runs" / run, prompts=6)
    said("annotate", "prepare", folder / "runs" / "small", "--arms", "dpo", "sft", "--out", folder / "study")
    items = json.loads((folder / "study" / "key.json").read_text())["items"]
    write_answers(folder / "study", "ann", {item: [("quality", "1"), ("diversity", "Set A")] for item in items})
    return folder


@pytest.mark.parametrize("line", RUN)
def test_examples_that_train_nothing_run_on_small_files(line, files, tmp_path, monkeypatch):
    """As shown, but with a profile that extends `smoke` by a tiny model where the line names no profile."""
    shutil.copytree(files, tmp_path / "here", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path / "here")
    words = shlex.split(line)[1:]
    if words[:2] == ["annotate", "prepare"]:  # it writes no study over another
        shutil.rmtree("study")
    path = next(path for path in PUBLIC if tuple(words[: len(path)]) == path)
    takes_profile = any(param.name == "profile" for param in PUBLIC[path].params)
    if takes_profile and "--profile" not in words:
        words += ["--profile", "tiny.yaml"]
    assert said(*words).strip()
    outputs = [word for word in words if Path(word).suffix in (".parquet", ".jsonl", ".json")]
    assert all(Path(word).exists() for word in outputs)
