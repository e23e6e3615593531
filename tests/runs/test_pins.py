"""A run keeps to the commits that it resolved, and becomes stale when a model is replaced in its folder."""

import json
import os

import pytest
import yaml
from huggingface_hub import constants
from tiny import tiny_model, tiny_tokenizer

from ddpo_lib.models.versions import COMMIT
from ddpo_lib.profiles.profile import load_profile, names
from ddpo_lib.runs.pins import FILE, pin, stay_offline
from ddpo_lib.runs.pipeline import open_run

OLD, NEW = "0123456789" * 4, "abcdef0123" * 4
DATA = "euclaise/WritingPrompts_preferences"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def downloaded(kind: str, name: str, commit: str, revision: str = "main") -> None:
        ref = tmp_path / "hub" / f"{kind}s--{name.replace('/', '--')}" / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)

    return downloaded


def write(folder, **changes) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump({"extends": "smoke", "name": "mine", **changes}))
    return str(folder / "mine.yaml")


def params(profile: str, folder) -> dict:
    return {name: step.params for name, step in open_run(profile, folder=folder).steps.items()}


def test_every_model_of_the_hub_in_a_shipped_profile_is_pinned(tmp_path, hub):
    for name in names():
        profile = load_profile(name)
        pinned, _ = pin(profile, "stories.jsonl", tmp_path)
        assert pinned == profile, name  # nothing was left to resolve, offline and with an empty cache
    paper = load_profile("paper")
    revisions = {paper.model.revision, load_profile("paper-mistral").model.revision, paper.quality.revision}
    revisions |= {space.revision for space in paper.spaces.choices().values()}
    assert len(revisions) == 5
    assert all(COMMIT.fullmatch(revision) for revision in revisions)


@pytest.mark.parametrize(
    ("changes", "source", "offline"),
    [
        ({}, "stories.jsonl", True),
        ({}, DATA, False),
        ({"model": {"name": "owner/model"}}, "stories.jsonl", False),
        ({"spaces": {"style": {"model": "owner/style"}}}, "stories.jsonl", False),
        ({"spaces": {"others": {"more": {"model": "owner/more"}}}}, "stories.jsonl", False),
        ({"quality": {"kind": "reward-model", "base": "owner/reward"}}, "stories.jsonl", False),
        ({"baselines": {"other": {"model": "owner/other"}}}, "stories.jsonl", False),
        ({"baselines": {"other": {"engine": "server", "url": "http://localhost/v1", "model": "m"}}}, "s.jsonl", True),
    ],
)
def test_the_hub_is_asked_for_nothing_unless_a_profile_or_its_corpus_names_it(tmp_path, changes, source, offline):
    """PEFT asks for an adapter's base at each save, whatever the base is."""
    stay_offline(load_profile(write(tmp_path, **changes)), source)
    assert os.environ.get("HF_HUB_OFFLINE") == ("1" if offline else None)


def test_what_the_user_says_of_the_hub_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    stay_offline(load_profile("smoke"), "stories.jsonl")
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_profile_that_names_another_model_does_not_take_over_the_revision(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: paper\nname: a\nmodel: {name: gpt2}\nspaces: {style: {model: b/c}}\n")
    profile = load_profile(str(tmp_path / "a.yaml"))
    assert profile.model.revision is None
    assert profile.model.lora_r == 128
    assert profile.spaces.style.revision is None
    assert profile.spaces.semantic.revision == load_profile("paper").spaces.semantic.revision


def test_a_run_resolves_a_name_of_the_hub_once(tmp_path, hub):
    baseline = {"model": "someone/chat", "instruction": "{prompt}"}
    mine = write(tmp_path, model={"name": "someone/tiny"}, baselines={"chat": baseline})
    assert params(mine, tmp_path / "runs")["sft"]["model"]["version"] is None  # not found anywhere: a step says so
    hub("model", "someone/tiny", OLD)
    hub("model", "someone/chat", OLD)
    first = params(mine, tmp_path / "runs")
    assert first["sft"]["model"]["revision"] == OLD
    assert first["sft"]["model"]["version"] == first["samples-chat"]["model"]["version"] == f"commit {OLD}"
    run = open_run(mine, folder=tmp_path / "runs")
    assert json.loads((run.folder / FILE).read_text()) == {
        "model someone/tiny@main": OLD,
        "model someone/chat@main": OLD,
    }
    hub("model", "someone/tiny", NEW)  # its owner has uploaded another
    assert params(mine, tmp_path / "runs") == first
    (run.folder / FILE).unlink()
    assert params(mine, tmp_path / "runs")["sft"]["model"]["version"] == f"commit {NEW}"
    tagged = write(tmp_path, model={"name": "someone/tiny", "revision": OLD})
    assert params(tagged, tmp_path / "runs")["sft"] == first["sft"]


def test_a_run_resolves_the_data_set_too(tmp_path, hub):
    hub("dataset", DATA, OLD)
    run = open_run("paper", folder=tmp_path)
    assert run.steps["corpus"].params["source"] == f"{DATA}@{OLD}"
    assert open_run("paper", f"{DATA}@{NEW}", tmp_path).steps["corpus"].params["source"] == f"{DATA}@{NEW}"
    assert run.folder == tmp_path / "paper"


def test_a_look_at_a_run_writes_nothing(tmp_path, hub):
    hub("dataset", DATA, OLD)
    run = open_run("paper", folder=tmp_path, ask=False)
    assert run.steps["corpus"].params["source"] == f"{DATA}@{OLD}"
    assert not run.folder.exists()


@pytest.fixture
def local(tmp_path):
    """A profile whose model and semantic encoder are folders, and a function that trains one of them anew."""

    def save(name: str, seed: int) -> None:
        tiny_model(seed).save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)

    for name in ("model", "encoder", "chat"):
        save(name, 0)
    baselines = {"chat": {"model": "./chat", "instruction": "{prompt}"}}
    spaces = {"semantic": {"model": "./encoder"}}
    return write(tmp_path, model={"name": "./model"}, spaces=spaces, baselines=baselines), save


def changed(profile: str, folder, change) -> set[str]:
    def keys():
        run = open_run(profile, folder=folder)
        return {name: run.key(name) for name in run.steps}

    before = keys()
    change()
    after = keys()
    return {name for name in before if before[name] != after[name]}


def test_a_base_model_that_is_replaced_in_its_folder_makes_stale_what_depends_on_it(local, tmp_path):
    profile, save = local
    assert changed(profile, tmp_path, lambda: save("model", 0)) == set()
    stale = changed(profile, tmp_path, lambda: save("model", 1))
    assert {"corpus", "sft", "arm-dpo", "samples-dpo", "evaluation"} <= stale
    assert not any(name.startswith(("world", "row", "base")) for name in stale)


def test_an_encoder_that_is_replaced_makes_stale_vectors_and_weighted_arms(local, tmp_path):
    profile, save = local
    stale = changed(profile, tmp_path, lambda: save("encoder", 1))
    assert {"vectors", "quality", "arm-ddpo-both", "evaluation", "ranking", "maps", "sharpness"} <= stale
    assert not stale & {"corpus", "pairs", "sft", "samples-sft", "samples-chat"}


def test_a_baseline_that_is_replaced_is_sampled_again(local, tmp_path):
    profile, save = local
    stale = changed(profile, tmp_path, lambda: save("chat", 1))
    assert {"samples-chat", "evaluation"} <= stale
    assert not stale & {"corpus", "vectors", "sft", "samples-dpo"}
