import multiprocessing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpo_lib.base.store import Store, content_key


def test_arrays_come_back_as_they_were_put(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"key {i}": rng.normal(size=i % 7).astype(np.float32) for i in range(1200)}
    arrays["special"] = np.array([np.nan, -np.inf, -0.0, 1e-45], dtype=np.float32)
    Store("test", tmp_path).put(arrays.items())
    assert Store("test", tmp_path).stored([*arrays, "absent"]) == set(arrays)
    found = Store("test", tmp_path).get([*arrays, "absent"])
    assert found.keys() == arrays.keys()
    assert all(found[key].tobytes() == arrays[key].tobytes() for key in arrays)


def test_a_key_keeps_its_first_value(tmp_path):
    store = Store("test", tmp_path)
    store.put([("a", np.array([1.0]))])
    store.put([("a", np.array([2.0])), ("b", np.array([3.0]))])
    assert {key: value.tolist() for key, value in store.get(["a", "b"]).items()} == {"a": [1.0], "b": [3.0]}


def test_stores_of_two_names_or_folders_share_nothing(tmp_path):
    Store("one", tmp_path).put([("a", np.array([1.0]))])
    assert Store("two", tmp_path).get(["a"]) == {}
    assert Store("one", tmp_path / "deeper" / "still").get(["a"]) == {}


def test_what_cannot_be_put_whole_is_not_put_at_all(tmp_path):
    store = Store("test", tmp_path)
    with pytest.raises(ValueError, match="could not convert"):
        store.put([("a", np.array([1.0])), ("b", "no numbers")])
    assert store.get(["a", "b"]) == {}


def test_the_cache_folder_follows_xdg_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Store("test").put([("a", np.array([1.0]))])
    assert Store("test").path.is_relative_to(tmp_path / "ddpo")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        (("a", ""), ("a",)),
        (("", ""), ("",)),
        ((), ("",)),
        (("\x00" * 8,), ("", "")),
        (("é",), ("e\u0301",)),
    ],
)
def test_tuples_that_look_alike_have_different_keys(one, other):
    assert content_key(*one) != content_key(*other)


def test_no_letter_stands_for_the_border_between_parts():
    assert content_key("a", "b") not in {content_key(f"a{letter}b") for letter in map(chr, range(256))}


parts = st.lists(st.text(st.characters(), max_size=4), max_size=3)


@given(parts, parts)
def test_keys_are_equal_exactly_when_tuples_are(one, other):
    assert (content_key(*one) == content_key(*other)) == (one == other)


def fill(folder, name: float, start) -> None:
    """Put 200 arrays of its own and 200 that the other process puts too, a few at a time."""
    store = Store("test", folder)
    start.wait(60)
    for i in range(0, 200, 4):
        keys = [f"{name} {j}" for j in range(i, i + 4)] + [f"both {j}" for j in range(i, i + 4)]
        store.put((key, np.array([name, j])) for j, key in enumerate(keys))


def test_two_processes_that_fill_one_store_lose_nothing(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    processes = [spawn.Process(target=fill, args=(tmp_path, name, start)) for name in (1.0, 2.0)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    found = Store("test", tmp_path).get([f"{name} {i}" for name in ("1.0", "2.0", "both") for i in range(200)])
    assert len(found) == 600
    assert all(found[f"{name} {i}"][0] == float(name) for name in ("1.0", "2.0") for i in range(200))
    assert all(found[f"both {i}"].tolist() in ([1.0, 4 + i % 4], [2.0, 4 + i % 4]) for i in range(200))
