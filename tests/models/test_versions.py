"""Exact versions: of real models in folders, in wheels and in a cache laid out as the hub lays out its own."""

import json
import os
import shutil

import pytest
import torch
from huggingface_hub import constants
from tiny import tiny_model, tiny_tokenizer

from ddpo_lib.base import files
from ddpo_lib.base.errors import InputError
from ddpo_lib.models.models import WHEELS, load_model, load_tokenizer
from ddpo_lib.models.versions import exact_version, find_commit, known_commit, known_version

OLD, NEW = "0123456789" * 4, "abcdef0123" * 4


def save(folder, seed: int = 0):
    tiny_model(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a hub's cache with one model, two of whose commits have been downloaded; no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--someone--tiny"
    for seed, commit in enumerate((OLD, NEW)):
        save(repository / "snapshots" / commit, seed)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(NEW)
    (repository / "refs" / "v1").write_text(OLD)
    return repository


def test_a_folder_that_is_trained_anew_has_another_version(tmp_path):
    first = exact_version(str(save(tmp_path / "model")))
    assert first == exact_version(str(save(tmp_path / "again")))
    assert first != exact_version(str(save(tmp_path / "model", seed=1)))
    assert first == exact_version(str(save(tmp_path / "model")))
    assert first.startswith("folder ")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_that_a_model_is_loaded_from_counts(tmp_path, file):
    folder = save(tmp_path / "model")
    first = exact_version(str(folder))
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")
    assert exact_version(str(folder)) != first


def test_what_a_trainer_leaves_beside_a_model_does_not_count(tmp_path):
    folder = save(tmp_path / "model")
    first = exact_version(str(folder))
    for file in ("README.md", "trainer_state.json", "optimizer.pt", "rng_state_0.pth", ".git/config.json"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("{}")
    shutil.copytree(folder, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", folder / "checkpoint-20")
    assert exact_version(str(folder)) == first
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert exact_version(str(folder)) != first


def test_an_embedded_model_has_the_version_of_its_wheel():
    assert exact_version("minilm") == f"wheel {WHEELS['minilm'].sha256}"


def test_a_hub_model_has_the_commit_that_its_revision_resolved_to(hub):
    assert exact_version("someone/tiny") == exact_version("someone/tiny", "main") == f"commit {NEW}"
    assert exact_version("someone/tiny", "v1") == f"commit {OLD}"
    assert exact_version("someone/tiny", OLD) == f"commit {OLD}"
    assert known_commit("someone/tiny", kind="dataset") is None


def test_the_commit_is_that_of_the_weights_which_are_loaded(hub):
    for revision in (None, "v1", OLD, NEW):
        kind, _, commit = exact_version("someone/tiny", revision).partition(" ")
        loaded = load_model("someone/tiny", revision=commit)
        wanted = tiny_model(0 if commit == OLD else 1)
        assert kind == "commit"
        assert torch.equal(loaded.lm_head.weight.cpu(), wanted.lm_head.weight)
    assert load_tokenizer("someone/tiny", OLD).eos_token == "<end>"


def test_a_hub_model_that_is_nowhere_has_no_version(hub):
    assert known_version("someone/else") is None
    with pytest.raises(InputError, match=r"model someone/else: .*a folder, or a commit of 40 digits"):
        exact_version("someone/else")
    with pytest.raises(InputError, match="dataset someone/stories"):
        find_commit("someone/stories", kind="dataset")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of the hashes that are kept; every file counts as large, and none as too young."""
    monkeypatch.setattr(files, "LARGE", 0)
    monkeypatch.setattr(files, "SETTLED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files._kept_hash.cache_clear()
    return tmp_path / "cache" / "ddpo" / "hashes"


def test_a_large_file_is_read_once_for_all_processes(tmp_path, kept):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = files.file_hash(file)
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    (record,) = kept.iterdir()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": "kept"}))
    files._kept_hash.cache_clear()  # as in another process
    assert files.file_hash(file) == "kept"
    record.write_text("{torn")
    files._kept_hash.cache_clear()
    assert files.file_hash(file) == first


def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path, kept):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first, before = files.file_hash(file), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert files.file_hash(file) != first


def test_a_file_that_was_written_a_moment_ago_is_not_trusted_to_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "LARGE", 0)
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    files.file_hash(file)
    assert not (tmp_path / "cache").exists()
