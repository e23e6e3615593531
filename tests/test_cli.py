"""The `ddpo` command as a user types it: its help, bad input, a full disk. The whole job is in test_smoke.py."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ddpo_lib.cli import app

FULL_AT = 2048  # bytes: the size at which a file can grow no more


def ddpo(*words, full_disk: bool = False, **environment: str) -> subprocess.CompletedProcess:
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, FULL_AT))

    return subprocess.run(
        [sys.executable, "-m", "ddpo_lib.cli", *map(str, words)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        preexec_fn=limit if full_disk else None,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def error_line(done: subprocess.CompletedProcess) -> str:
    """The one line that says what is wrong; the status is 2 and there is no traceback."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
    return line


def assert_nothing_half_made(runs: Path) -> None:
    """Every artifact has its manifest, and what was begun aside holds no file."""
    for folder in runs.glob("*/[!.]*"):
        assert (folder / "manifest.json").exists(), folder
    aside = [path for path in runs.glob("*/.partial/**/*") if path.is_file() and path.suffix != ".lock"]
    assert not aside


def write_corpus(path: Path, *score_lists: list[float | None]) -> Path:
    """A prompt for each list of scores."""
    endings = ["It rained.", "Who goes there?", "Dear all, I left early.", "we ran and ran"]
    lines = [
        json.dumps(
            {
                "prompt": f"Story number {i}",
                "responses": [{"text": f"{endings[j]} ({i})", "score": score} for j, score in enumerate(scores)],
            }
        )
        for i, scores in enumerate(score_lists)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_ddpo_help_names_every_command():
    done = ddpo("--help")
    assert done.returncode == 0
    for command in ("weights", "train", "generate", "evaluate", "run", "make", "annotate"):
        assert f" {command} " in done.stdout


COMMANDS = [[command.callback.__name__] for command in app.registered_commands]
COMMANDS += [
    [group.name, command.callback.__name__]
    for group in app.registered_groups
    for command in group.typer_instance.registered_commands
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_its_arguments_explained(command):
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.stdout
    assert "--help" in done.stdout
    assert len(done.stdout.split()) > 30


# ddpo weights


@pytest.fixture(scope="module")
def weighted(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A user's corpus, its weights, and the cache that `ddpo weights` filled on the way."""
    folder = tmp_path_factory.mktemp("weights")
    source, out, cache = folder / "mine.jsonl", folder / "new" / "out.parquet", folder / "cache"
    write_corpus(source, [3, 1, None, 8], [None, None, None])
    done = ddpo("weights", source, out, XDG_CACHE_HOME=str(cache))
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(out) in done.stdout
    return source, out, cache


def test_weights_are_a_row_a_response_and_sum_to_the_size_of_the_group(weighted):
    _, out, _ = weighted
    table = pd.read_parquet(out)
    assert table["text"].tolist()[:2] == ["It rained. (0)", "Who goes there? (0)"]
    np.testing.assert_array_equal(table["score"].tolist(), [3, 1, np.nan, 8, np.nan, np.nan, np.nan])
    for name in ("semantic", "style", "both"):
        np.testing.assert_allclose(table.groupby("prompt_id")[f"weight_{name}"].sum(), [4, 3])
    assert table[["semantic", "style"]].gt(0).all(axis=None)
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def test_weights_of_a_missing_file(tmp_path):
    done = ddpo("weights", tmp_path / "missing.jsonl", tmp_path / "out.parquet")
    assert str(tmp_path / "missing.jsonl") in error_line(done)
    assert not list(tmp_path.iterdir())


def test_weights_of_a_malformed_line(tmp_path):
    source = write_corpus(tmp_path / "bad.jsonl", [1, 2])
    with source.open("a") as lines:
        lines.write('{"prompt": "p", "responses": [{"text": "t", "score": NaN}]}\n')
    line = error_line(ddpo("weights", source, tmp_path / "out.parquet"))
    assert f"{source}, line 2" in line
    assert "`score`" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_a_full_disk_leaves_no_output_and_the_error_names_it(weighted, tmp_path):
    source, _, cache = weighted
    out = tmp_path / "out.parquet"
    line = error_line(ddpo("weights", source, out, full_disk=True, XDG_CACHE_HOME=str(cache)))
    assert "no space left" in line
    assert out.name in line
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_for_the_cache_leaves_an_older_output_as_it_was(weighted, tmp_path):
    source, out, _ = weighted
    before = out.read_bytes()
    line = error_line(ddpo("weights", source, out, full_disk=True, XDG_CACHE_HOME=str(tmp_path)))
    assert str(tmp_path) in line
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


# ddpo run


def run(corpus: Path, runs: Path, profile: str = "smoke") -> subprocess.CompletedProcess:
    return ddpo("run", "--profile", profile, "--corpus", corpus, "--runs", runs, "--cores", "1")


def test_run_with_an_unknown_profile(tmp_path):
    source = write_corpus(tmp_path / "mine.jsonl", [1, 2])
    line = error_line(run(source, tmp_path / "runs", profile="embeded"))
    assert "embeded" in line
    assert not (tmp_path / "runs").exists()


def test_run_on_a_missing_file(tmp_path):
    line = error_line(run(tmp_path / "missing.jsonl", tmp_path / "runs"))
    assert str(tmp_path / "missing.jsonl") in line
    assert not (tmp_path / "runs").exists()


def test_run_on_a_malformed_line(tmp_path):
    source = write_corpus(tmp_path / "bad.jsonl", [1, 2])
    with source.open("a") as lines:
        lines.write('{"prompt": "p", "responses": [\n')
    line = error_line(run(source, tmp_path / "runs"))
    assert f"{source}, line 2" in line
    assert_nothing_half_made(tmp_path / "runs")


@pytest.mark.parametrize(
    ("score_lists", "why"),
    [
        ([[None, None, None], [None, None], [None, None]], "no response has a score"),
        ([[1], [2], [3], [4]], "every prompt has one response"),
    ],
    ids=["no scores", "one response a prompt"],
)
def test_run_where_no_pair_can_be_made(tmp_path, score_lists, why):
    source = write_corpus(tmp_path / "unpaired.jsonl", *score_lists)
    line = error_line(run(source, tmp_path / "runs"))
    assert why in line
    assert source.name in line
    assert_nothing_half_made(tmp_path / "runs")


@pytest.mark.parametrize(
    ("score_lists", "why"),
    [([[1], [2], [3], [4], [5], [6]], "no prompt has two responses"), ([[1, 2], [3, 4]], "a map needs 5 responses")],
    ids=["one response a prompt", "four responses"],
)
def test_the_deviation_profile_says_what_a_corpus_lacks(tmp_path, score_lists, why):
    source = write_corpus(tmp_path / "small.jsonl", *score_lists)
    line = error_line(run(source, tmp_path / "runs", profile="deviation"))
    assert why in line
    assert source.name in line
    assert_nothing_half_made(tmp_path / "runs")


def test_the_deviation_profile_makes_chapter_1_of_pairs_without_a_score_and_trains_nothing(tmp_path):
    source = write_corpus(tmp_path / "twos.jsonl", *[[None, None]] * 6)
    done = run(source, tmp_path / "runs", profile="deviation")
    assert done.returncode == 0, done.stderr[-3000:]
    chapter = Path(done.stdout.strip().splitlines()[-1])
    assert "whether rare is good, it cannot say" in chapter.read_text(encoding="utf-8")
    made = {path.parent.name for path in (tmp_path / "runs").glob("*/*/manifest.json")}
    assert made == {"corpus", "deviation", "spaces", "findings", "maps", "chapter-01-deviation-analysis"}
