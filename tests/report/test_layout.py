"""Places in the plane: exact neighbours, maps that keep what is near, one seed one map."""

import numpy as np
import psutil
import pytest
from conftest import SHARED
from sklearn.manifold import trustworthiness

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.report import explore, layout
from ddpo_lib.report.layout import BLOCK, Neighbours, lay_out, lay_out_groups
from ddpo_lib.spaces.embed import embed

HANNA = SHARED / "data" / "hanna.jsonl"


def some(rows: int, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine distances in float64."""
    a, b = (x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True) for x in (a, b))
    return 1 - a @ b.T


def test_neighbours_of_three_rows_by_hand():
    index, distance = Neighbours(np.array([[1, 0], [0, 2], [3, 3]])).among_themselves(3)
    assert index[0].tolist() == [0, 2, 1]
    assert index[1].tolist() == [1, 2, 0]
    assert index[2, 0] == 2
    assert distance[0] == pytest.approx([0, 1 - 0.5**0.5, 1])
    found, away = Neighbours(np.array([[1, 0], [0, 2], [3, 3]])).query(np.array([[5, 0.1], [-1, -1]]), 2)
    assert found[0].tolist() == [0, 2]
    assert away[1] == pytest.approx([1 + 0.5**0.5] * 2)


@pytest.mark.parametrize("rows", [BLOCK - 1, BLOCK, 2 * BLOCK + 7])
def test_neighbours_are_those_of_the_whole_matrix_of_distances(rows):
    vectors, others = some(rows), some(40, seed=1)
    search, own = Neighbours(vectors), distances(vectors, vectors)
    np.fill_diagonal(own, -1)  # itself first
    for (index, distance), wanted in (
        (search.among_themselves(15), own),
        (search.query(others, 15), distances(others, vectors)),
    ):
        assert index.tolist() == np.argsort(wanted, axis=1)[:, :15].tolist()
        assert distance == pytest.approx(np.sort(wanted, axis=1)[:, :15].clip(0), abs=1e-6)


def test_a_row_comes_before_its_copies():
    vectors = np.repeat(some(4), 5, axis=0)
    index, distance = Neighbours(vectors).among_themselves(5)
    assert index[:, 0].tolist() == list(range(20))
    assert (index // 5 == np.arange(20)[:, None] // 5).all()
    assert distance == pytest.approx(np.zeros((20, 5)), abs=1e-6)


def test_one_seed_gives_one_map_and_the_later_rows_do_not_change_it():
    vectors, later = some(60), some(7, seed=1)
    alone, none = lay_out(vectors, later[:0], seed=3)
    places, added = lay_out(vectors, later, seed=3)
    assert (alone == places).all() and none.shape == (0, 2)
    for _ in range(5):
        assert (lay_out(vectors, later, seed=3)[1] == added).all()
    assert not np.allclose(lay_out(vectors, later, seed=4)[0], places)
    assert places.dtype == added.dtype == np.float32
    assert np.isfinite(places).all() and np.isfinite(added).all()


def test_each_group_has_the_map_of_its_own_rows():
    vectors, later, groups = some(24), some(3, seed=1), np.array([2] * 4 + [7] * 20)
    places, added = lay_out_groups(vectors, groups, later, np.array([2, 7, 9]), seed=0)
    assert np.isnan(places[:4]).all() and np.isnan(added[[0, 2]]).all()
    alone, one = lay_out(vectors[4:], later[1:2], seed=0)
    assert (places[4:] == alone).all() and (added[1] == one[0]).all()


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="a map needs 5 or more, got 4"):
        lay_out(some(4), some(0), seed=0)


@pytest.fixture(scope="module")
def stories():
    if not HANNA.exists():
        pytest.skip(f"{HANNA} is not beside the project")
    return read_corpus(HANNA, held_out=0.2)


@pytest.fixture(scope="module")
def styles(stories) -> np.ndarray:
    return embed(stories["text"].tolist(), "stylometric")


def test_a_map_of_real_stories_keeps_what_is_near(stories, styles):
    """Venna and Kaski's trustworthiness: 1 if the map shows no false neighbours, about 1/2 for places at random."""
    own, later = styles[stories["split"] == "train"], styles[stories["split"] == "test"]
    places, added = lay_out(own, later, seed=0)
    assert trustworthiness(own, places, n_neighbors=15, metric="cosine") > 0.8
    shuffled = np.random.default_rng(0).permutation(places)
    assert trustworthiness(own, shuffled, n_neighbors=15, metric="cosine") < 0.6
    nearest = Neighbours(own).query(later, 15)[0]  # a later story lies among the stories nearest to it
    to_own = np.linalg.norm(added[:, None] - places[None], axis=2)
    among = np.take_along_axis(to_own, nearest, 1).mean()
    assert among < 0.6 * to_own.mean()


def test_processes_in_parallel_give_the_same_table(stories, styles, monkeypatch):
    corpus = stories[:120].reset_index(drop=True)
    vectors = {"style": styles[:120], "other": some(120)}
    samples, made = {"arm": corpus[:9].copy()}, {"arm": {name: rows[:9] for name, rows in vectors.items()}}
    once = explore.make_points(corpus, vectors, samples, made, seed=0)
    monkeypatch.setattr(explore, "SEVERAL", 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert explore.make_points(corpus, vectors, samples, made, seed=0).equals(once)
    assert not [child for child in psutil.Process().children() if "LokyProcess" in " ".join(child.cmdline())]


def test_without_a_place_for_machine_code_the_map_is_the_same(monkeypatch, tmp_path):
    vectors = some(20)
    places = lay_out(vectors, vectors[:0], seed=0)[0]
    (tmp_path / "ddpo").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    layout._umap.cache_clear()
    assert (lay_out(vectors, vectors[:0], seed=0)[0] == places).all()
