"""The list of prompts that lies beside a trained model or reward."""

import hashlib
import json

import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import seen_prompts


def test_the_list_is_of_hashes_in_order_without_repeats(tmp_path):
    seen_prompts.write(tmp_path, ["A door opens.", "A door  opens.\n", "A door shuts."])
    wanted = sorted(hashlib.sha256(prompt).hexdigest() for prompt in (b"A door opens.", b"A door shuts."))
    assert json.loads((tmp_path / "seen_prompts.json").read_text()) == wanted
    assert seen_prompts.read(tmp_path) == set(wanted)


def test_what_the_start_has_seen_is_added(tmp_path):
    start, folder = tmp_path / "start", tmp_path / "folder"
    start.mkdir()
    folder.mkdir()
    seen_prompts.write(start, ["one", "two"])
    seen_prompts.write(folder, ["two", "three"], start)
    assert seen_prompts.read(folder) == {seen_prompts.fingerprint(prompt) for prompt in ("one", "two", "three")}


def test_nothing_is_claimed_of_a_start_of_which_nothing_is_known(tmp_path, caplog):
    folder = tmp_path / "folder"
    folder.mkdir()
    seen_prompts.write(folder, ["two"], tmp_path / "start")
    assert seen_prompts.read(folder) is None
    assert "start: no seen_prompts.json" in caplog.text


def test_prompts_that_were_seen_are_counted(tmp_path):
    assert seen_prompts.count(tmp_path, ["one"]) is None
    seen_prompts.write(tmp_path, ["one", "two"])
    assert seen_prompts.count(tmp_path, ["one", "three", " two\n"]) == 2


@pytest.mark.parametrize("content", ["", '["ab', "{}", "[1]", "null", "[" * 100_000, b"\xff"])
def test_a_list_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "seen_prompts.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"seen_prompts\.json: not a list of fingerprints"):
        seen_prompts.read(tmp_path)
