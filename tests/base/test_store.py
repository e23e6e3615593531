import multiprocessing
import re
import resource

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


def test_arrays_of_one_length_come_back_as_a_matrix_from_all_parts(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    store = Store("test", tmp_path)
    for start in range(0, 50, 20):
        store.put((str(i), rows[i]) for i in range(start, min(start + 20, 50)))
    order = [49, 0, 20, 20, 7]
    np.testing.assert_array_equal(Store("test", tmp_path).matrix([str(i) for i in order]), rows[order])
    with pytest.raises(KeyError, match="1 of 2 keys"):
        store.matrix(["3", "absent"])


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_part_that_lost_its_end_is_passed_over_and_what_it_held_can_be_put_again(tmp_path, left, caplog):
    store = Store("test", tmp_path)
    store.put([("whole", np.ones(3))])
    before = set(store.path.iterdir())
    store.put([("torn", np.zeros(300))])
    (part,) = set(store.path.iterdir()) - before
    part.write_bytes(part.read_bytes()[:left])
    again = Store("test", tmp_path)
    assert again.stored(["whole", "torn"]) == {"whole"}
    assert str(part) in caplog.text
    again.put([("torn", np.ones(2))])
    assert {key: value.tolist() for key, value in again.get(["whole", "torn"]).items()} == {
        "whole": [1, 1, 1],
        "torn": [1, 1],
    }


def test_only_empty_arrays(tmp_path):
    Store("test", tmp_path).put([("a", np.empty(0))])
    assert Store("test", tmp_path).get(["a"])["a"].shape == (0,)


def test_merged_parts_hold_what_they_held(tmp_path):
    store = Store("test", tmp_path)
    arrays = {str(i): np.full(i % 3, i, np.float32) for i in range(40)}
    for key, value in arrays.items():
        store.put([(key, value)])
    store.merge()
    assert len(list(store.path.iterdir())) == 1
    for reader in (store, Store("test", tmp_path)):
        found = reader.get(list(arrays))
        assert all(found[key].tobytes() == value.tobytes() for key, value in arrays.items())


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path):
    store = Store("test", tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(store.path))):
            store.put([("a", np.ones(100_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(store.path.iterdir()) == []


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
