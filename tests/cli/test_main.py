"""The `ddpo` command as a user types it: its help, bad input, a full disk. The whole job is in test_smoke.py."""

import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import WORDS, tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.main import app

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


def said(*words) -> str:
    """What a command prints, in this process, which has torch already."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*words) -> str:
    """What `main` makes the error line of, in this process."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


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
    [*([group.name] if isinstance(group.name, str) else []), command.callback.__name__]
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
        lines.write('{"prompt": "p", "responses": [{"text": "t", "score": Infinity}]}\n')
    line = refused("weights", source, tmp_path / "out.parquet")
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


def run(corpus: Path, runs: Path, profile: str = "smoke") -> list:
    return ["run", "--profile", profile, "--corpus", corpus, "--runs", runs, "--cores", "1"]


def test_run_with_an_unknown_profile(tmp_path):
    source = write_corpus(tmp_path / "mine.jsonl", [1, 2])
    line = refused(*run(source, tmp_path / "runs", profile="embeded"))
    assert "embeded" in line
    assert not (tmp_path / "runs").exists()


def test_run_on_a_missing_file(tmp_path):
    line = refused(*run(tmp_path / "missing.jsonl", tmp_path / "runs"))
    assert str(tmp_path / "missing.jsonl") in line
    assert not (tmp_path / "runs").exists()


def test_run_on_a_malformed_line(tmp_path):
    """The error of a process that `run` starts is its own."""
    source = write_corpus(tmp_path / "bad.jsonl", [1, 2])
    with source.open("a") as lines:
        lines.write('{"prompt": "p", "responses": [\n')
    line = error_line(ddpo(*run(source, tmp_path / "runs")))
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
@pytest.mark.filterwarnings("default:.*alone in their group:UserWarning")  # as for a user, to whom it is no error
def test_run_where_no_pair_can_be_made(tmp_path, score_lists, why):
    source = write_corpus(tmp_path / "unpaired.jsonl", *score_lists)
    line = refused("make", "pairs", "--profile", "smoke", "--corpus", source, "--runs", tmp_path / "runs")
    assert why in line
    assert source.name in line
    assert_nothing_half_made(tmp_path / "runs")


@pytest.mark.parametrize(
    ("score_lists", "why"),
    [([[1], [2], [3], [4], [5], [6]], "no prompt has two responses"), ([[1, 2], [3, 4]], "a map needs 5 responses")],
    ids=["one response a prompt", "four responses"],
)
@pytest.mark.filterwarnings("default:.*alone in their group:UserWarning")  # as for a user, to whom it is no error
def test_the_deviation_profile_says_what_a_corpus_lacks(tmp_path, score_lists, why):
    source = write_corpus(tmp_path / "small.jsonl", *score_lists)
    line = refused(*run(source, tmp_path / "runs", profile="deviation"))
    assert why in line
    assert source.name in line
    assert_nothing_half_made(tmp_path / "runs")


def test_the_deviation_profile_makes_chapter_1_of_pairs_without_a_score_and_trains_nothing(tmp_path):
    source = write_corpus(tmp_path / "twos.jsonl", *[[None, None]] * 6)
    chapter = Path(said(*run(source, tmp_path / "runs", profile="deviation")).strip().splitlines()[-1])
    assert "to tell whether rare responses are good" in chapter.read_text(encoding="utf-8")
    made = {path.parent.name for path in (tmp_path / "runs").glob("*/*/manifest.json")}
    assert made == {"corpus", "vectors", "findings", "maps", "chapter-01-deviation-analysis"}


# weights -> train -> generate -> evaluate: nothing is evaluated on what it was trained on


SPLIT = ["--held-out", "0.3", "--split-seed", "5"]
WORDS_OF_RESPONSES = [("cat", "sat"), ("dog", "ran"), ("king", "slept"), ("ship", "burned"), ("door", "opened")]


def hashes(prompts) -> set[str]:
    return {hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with what the five commands make of 24 prompts and a tiny model, and what `evaluate` says."""
    folder = tmp_path_factory.mktemp("commands")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    optimiser = {"learning_rate": 0.001, "epochs": 1.0, "batch_size": 8, "warmup_steps": 0}
    knobs = {
        "extends": "smoke",
        "spaces": {"semantic": {"model": "lexical"}, "others": {}},
        "model": {"name": str(folder / "model"), "template": "{prompt}", "lora_r": 4, "last_layers": 2},
        "preference": {"dpo": optimiser},
        "sft": optimiser,
        "sampling": {"samples": 2, "max_new_tokens": 8},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(knobs))
    lines = [
        {
            "prompt": f"{first} {second} near the",
            "responses": [
                {"text": f"the {first} {a} {b} past one {second}", "score": 3 * j + i % 4}
                for j, (a, b) in enumerate(WORDS_OF_RESPONSES)
            ],
        }
        for i, (first, second) in enumerate(itertools.product(WORDS[:6], WORDS[6:10]))
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    profile = ["--profile", folder / "tiny.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        weights = folder / "weights.parquet"
        said("weights", folder / "mine.jsonl", weights, "--semantic", "lexical", *SPLIT)
        said("train", weights, folder / "sft", "--arm", "sft", *profile)
        said("train", weights, folder / "ddpo", "--arm", "ddpo-both", "--from", folder / "sft", *profile)
        said("generate", folder / "ddpo", weights, folder / "samples.jsonl", *profile)
        out = folder / "results.json"
        found = said("evaluate", folder / "samples.jsonl", "--scored", weights, "--out", out, *profile)
        (folder / "said.txt").write_text(found)
        yield folder


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_sampled_is_held_out_and_no_model_has_seen_it(trained):
    table = pd.read_parquet(trained / "weights.parquet")
    sides = {split: set(table.loc[table["split"] == split, "prompt"]) for split in ("train", "test")}
    assert min(map(len, sides.values())) > 2
    lines = read_lines(trained / "samples.jsonl")
    assert {line["prompt"] for line in lines} == sides["test"]
    assert len(lines) == len(sides["test"])
    for name in ("sft", "ddpo"):
        seen = json.loads((trained / name / "seen_prompts.json").read_text())
        assert seen == sorted(seen)
        assert set(seen) == hashes(sides["train"])
        assert not set(seen) & hashes(sides["test"])


def test_a_line_of_samples_tells_what_was_seen_and_what_was_cut(trained):
    lines = read_lines(trained / "samples.jsonl")
    assert all(line["seen"] is False for line in lines)
    for response in (response for line in lines for response in line["responses"]):
        assert set(response) == {"text", "score", "source", "tokens", "finished"}
        assert response["tokens"] <= 8
        assert isinstance(response["finished"], bool)


def test_evaluate_first_says_that_nothing_was_seen(trained):
    held_out = len(read_lines(trained / "samples.jsonl"))
    first = (trained / "said.txt").read_text().splitlines()[0]
    assert first == f"{held_out} prompts; seen in training by the models: 0 (samples); seen by the reward: 0"
    result = json.loads((trained / "results.json").read_text())
    assert result["prompts"] == {"evaluated": held_out, "seen_by_models": {"samples": 0}, "seen_by_reward": 0}
    samples = result["samples"]["samples"]
    assert samples["finished_known"] == samples["samples"] == 2 * held_out


def test_the_corpus_itself_is_split_as_its_weights_are(trained, tmp_path):
    profile = ["--profile", trained / "tiny.yaml"]
    said("generate", trained / "ddpo", trained / "mine.jsonl", tmp_path / "samples.jsonl", *SPLIT, *profile)
    assert read_lines(tmp_path / "samples.jsonl") == read_lines(trained / "samples.jsonl")
    arguments = [trained / "samples.jsonl", "--scored", trained / "mine.jsonl", *SPLIT]
    assert said("evaluate", *arguments, *profile) == (trained / "said.txt").read_text()


def test_training_prompts_are_sampled_if_asked_for_and_reported_as_seen(trained, tmp_path):
    profile = ["--profile", trained / "tiny.yaml"]
    for split in ("train", "all"):
        said("generate", trained / "ddpo", trained / "weights.parquet", tmp_path / split, "--split", split, *profile)
    (train, every) = (read_lines(tmp_path / split) for split in ("train", "all"))
    assert all(line["seen"] for line in train)
    assert len(every) == 24
    assert sum(line["seen"] for line in every) == len(train)
    found = said("evaluate", tmp_path / "train", "--scored", trained / "weights.parquet", *profile)
    first, warning = found.splitlines()[:2]
    n = len(train)
    assert first == f"{n} prompts; seen in training by the models: {n} (train); seen by the reward: {n}"
    assert warning.startswith("WARNING: train, the reward learned from prompts evaluated here")


def test_held_out_prompts_that_a_model_has_seen_are_refused(trained, tmp_path):
    """Another seed calls training prompts held out; so does an old table whose column says so."""
    arguments = [trained / "ddpo", trained / "mine.jsonl", tmp_path / "out.jsonl", "--profile", trained / "tiny.yaml"]
    with pytest.raises(InputError, match=r"ddpo: was trained on \d+ of the \d+ held-out prompts of .*mine\.jsonl"):
        said("generate", *arguments, "--held-out", "0.5", "--split-seed", "6")
    assert not list(tmp_path.iterdir())


def test_an_arm_has_seen_what_the_model_it_starts_from_has(trained, tmp_path, caplog):
    """The arm's own table trains on half of the prompts, SFT's on others too."""
    said("weights", trained / "mine.jsonl", tmp_path / "w.parquet", "--semantic", "lexical", "--held-out", "0.5")
    profile = ["--profile", trained / "tiny.yaml"]
    said("train", tmp_path / "w.parquet", tmp_path / "dpo", "--arm", "dpo", "--from", trained / "sft", *profile)
    assert re.search(r"sft: was trained on \d+ of the \d+ held-out prompts", caplog.text)
    table = pd.read_parquet(tmp_path / "w.parquet")
    own = hashes(table.loc[table["split"] == "train", "prompt"])
    before = set(json.loads((trained / "sft" / "seen_prompts.json").read_text()))
    assert own - before
    assert before - own
    assert set(json.loads((tmp_path / "dpo" / "seen_prompts.json").read_text())) == own | before


def test_a_model_of_which_nothing_is_known_is_sampled_and_reported_so(trained, tmp_path, caplog):
    shutil.copytree(trained / "ddpo", tmp_path / "other")
    (tmp_path / "other" / "seen_prompts.json").unlink()
    profile = ["--profile", trained / "tiny.yaml"]
    said("generate", tmp_path / "other", trained / "weights.parquet", tmp_path / "other.jsonl", *profile)
    assert "other: no seen_prompts.json" in caplog.text
    assert not any("seen" in line for line in read_lines(tmp_path / "other.jsonl"))
    arguments = [trained / "samples.jsonl", tmp_path / "other.jsonl", "--scored", trained / "weights.parquet"]
    first = said("evaluate", *arguments, *profile).splitlines()[0]
    assert "by the models: 0 (samples), unknown (other: no field `seen`); seen by the reward: 0" in first


def test_prompts_alone_can_be_sampled(trained, tmp_path):
    prompts = ["ran sang the", "old door past"]
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    profile = ["--profile", trained / "tiny.yaml"]
    printed = said("generate", trained / "ddpo", tmp_path / "prompts.jsonl", tmp_path / "out.jsonl", *profile)
    assert "4 samples for 2 of 2 held-out prompts" in printed
    assert [(line["prompt"], line["seen"]) for line in read_lines(tmp_path / "out.jsonl")] == [
        (prompt, False) for prompt in prompts
    ]


def test_arms_that_were_cut_unequally_are_not_compared(trained, tmp_path):
    lines = read_lines(trained / "samples.jsonl")
    for name, cut in (("mostly", 1.0), ("seldom", 0.5), ("silent", None)):
        for i, response in enumerate(response for line in lines for response in line["responses"]):
            response |= {"text": f"the cat sat {i}", "finished": None if cut is None else i % 4 >= 4 * cut}
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [*(tmp_path / f"{name}.jsonl" for name in ("mostly", "seldom", "silent")), "--out", tmp_path / "r.json"]
    found = said("evaluate", *arguments, "--scored", trained / "weights.parquet", "--profile", trained / "tiny.yaml")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["samples"]["silent"]["finished_known"] == 0
    assert list(result["not_comparable"]) == ["seldom"]
    n = result["samples"]["seldom"]["samples"]
    share = f"{result['samples']['seldom']['cut'] / n:.0%}"
    (line,) = (line for line in found.splitlines() if "not comparable" in line)
    told = f"the token limit cut {share} of the samples of seldom and 100% of those of mostly"
    assert line.split() == f"seldom not comparable: {told}".split()
    (line,) = (line for line in found.splitlines() if line.startswith("silent") and " p " in line)
    assert "cut" not in line


def test_a_blank_sample_scores_the_lowest(trained, tmp_path):
    """A file of samples has a placeholder for it, which must not be scored as a story."""
    lines = read_lines(trained / "samples.jsonl")
    for line in lines[1:]:
        for response in line["responses"]:
            response["text"] = "(empty)"
    (tmp_path / "blank.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [trained / "samples.jsonl", tmp_path / "blank.jsonl", "--scored", trained / "weights.parquet"]
    said("evaluate", *arguments, "--out", tmp_path / "r.json", "--profile", trained / "tiny.yaml")
    result = json.loads((tmp_path / "r.json").read_text())
    n = len(lines)
    one, mean = (result["arms"][arm]["quality"]["mean"] for arm in ("samples", "blank"))
    assert -1 <= n * mean + n - 1 <= 1  # only the first prompt's mean, -1 to 1, is not -1
    assert one > mean
    assert result["samples"]["blank"]["blank"] >= 2 * (n - 1)
    lines[0]["responses"] = lines[1]["responses"]
    (tmp_path / "blank.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"blank\.jsonl: every sample is blank"):
        said("evaluate", tmp_path / "blank.jsonl", "--profile", trained / "tiny.yaml")


def test_a_split_without_prompts_is_an_error_with_a_remedy(trained, tmp_path):
    profile = ["--profile", trained / "tiny.yaml"]
    for name, share in (("none", "0"), ("all", "1")):
        arguments = ["--semantic", "lexical", "--held-out", share]
        said("weights", trained / "mine.jsonl", tmp_path / f"{name}.parquet", *arguments)
    with pytest.raises(InputError, match=r"none\.parquet: none of 24 prompts is held out.*--split-seed"):
        said("generate", trained / "ddpo", tmp_path / "none.parquet", tmp_path / "out.jsonl", *profile)
    with pytest.raises(InputError, match=r"all\.parquet: none of 24 prompts is in the training split.*--split-seed"):
        said("train", tmp_path / "all.parquet", tmp_path / "sft", "--arm", "sft", *profile)
    table = pd.read_parquet(tmp_path / "none.parquet").drop(columns="split")
    table.to_parquet(tmp_path / "old.parquet")
    with pytest.raises(InputError, match=r"old\.parquet: no column `split`; `ddpo weights IN"):
        said("train", tmp_path / "old.parquet", tmp_path / "sft", "--arm", "sft", *profile)
    with pytest.raises(InputError, match=r"old\.parquet: no column `split`"):
        said("generate", trained / "ddpo", tmp_path / "old.parquet", tmp_path / "out.jsonl", *profile)
