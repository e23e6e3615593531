import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ddpo_lib.deviation.distances import BLOCK, mean_distance
from ddpo_lib.deviation.weighting import weights

WIDE = BLOCK // 4  # vectors of which a block holds four
FLOAT32 = 2e-7  # of distances between float32 vectors, which are accurate to about 1e-7 themselves


def one_group_at_a_time(vectors, groups):
    """The definition, with the full matrix of each group."""
    result = np.full(len(vectors), np.nan)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        matrix = 1 - unit[rows] @ unit[rows].T
        if len(rows) > 1:
            result[rows] = (matrix.sum(1) - np.diag(matrix)) / (len(rows) - 1)
    return result


@st.composite
def grouped_vectors(draw, least=2):
    sizes = draw(st.lists(st.integers(least, 9), min_size=1, max_size=5))
    groups = np.repeat(np.arange(len(sizes)) * 7 - 3, sizes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = rng.permutation(len(groups))
    return rng.normal(size=(len(groups), draw(st.integers(2, 12)))), groups[order], rng


def test_three_vectors_worked_by_hand():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    near, far = 1 - np.sqrt(0.5), 1.0
    expected = [(far + near) / 2, (far + near) / 2, near]
    np.testing.assert_allclose(mean_distance(vectors, np.zeros(3, int)), expected, atol=1e-12)


def test_weights_worked_by_hand():
    distance = np.array([0.2, 0.6, 1.0, 0.4, 0.4])
    groups = np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(weights(distance, groups), [0, 1, 2, 1, 1], atol=1e-12)
    np.testing.assert_allclose(weights(distance, groups, scale="ratio"), [1 / 3, 1, 5 / 3, 1, 1], atol=1e-12)
    lifted = weights(distance, groups, floor=0.3)
    np.testing.assert_allclose(lifted, [0.3, 0.9, 1.8, 1, 1], atol=1e-12)


def test_every_case_of_the_released_code(golden):
    for case in golden["deviation"]:
        groups = np.zeros(case["n"], dtype=int)
        distance = {s: mean_distance(np.array(case[f"{s}_vectors"]), groups) for s in ("semantic", "style")}
        for space, value in distance.items():
            np.testing.assert_allclose(value, case["mean_distance"][space], atol=1e-5)
            np.testing.assert_allclose(weights(value, groups), case["weights"][space], atol=1e-5)
        np.testing.assert_allclose(weights(list(distance.values()), groups), case["weights"]["both"], atol=1e-5)


@given(grouped_vectors())
def test_the_one_pass_equals_the_definition(case):
    vectors, groups, _ = case
    np.testing.assert_allclose(mean_distance(vectors, groups), one_group_at_a_time(vectors, groups), atol=1e-9)


@pytest.mark.parametrize("scale", ["minmax", "ratio"])
@given(case=grouped_vectors())
def test_order_rotation_and_length_of_the_vectors_do_not_matter(scale, case):
    vectors, groups, rng = case
    distance = mean_distance(vectors, groups)
    weight = weights(distance, groups, scale=scale)
    order = rng.permutation(len(groups))
    turn, _ = np.linalg.qr(rng.normal(size=(vectors.shape[1],) * 2))
    length = rng.uniform(0.1, 9, size=(len(vectors), 1))
    for other, rows in ((vectors[order], order), (vectors @ turn * length, np.arange(len(groups)))):
        moved = mean_distance(other, groups[rows])
        np.testing.assert_allclose(moved, distance[rows], atol=1e-9)
        np.testing.assert_allclose(weights(moved, groups[rows], scale=scale), weight[rows], atol=1e-6)


@pytest.mark.parametrize("scale", ["minmax", "ratio"])
@given(case=grouped_vectors(), floor=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_weights_are_not_negative_sum_to_the_size_and_keep_the_floor(scale, case, floor):
    vectors, groups, rng = case
    other = rng.normal(size=vectors.shape)
    value = weights([mean_distance(v, groups) for v in (vectors, other)], groups, scale=scale, floor=floor)
    assert (value >= floor - 1e-9).all()
    for group in np.unique(groups):
        np.testing.assert_allclose(value[groups == group].sum(), (groups == group).sum(), rtol=1e-9)


@given(grouped_vectors())
def test_groups_do_not_see_each_other(case):
    vectors, groups, _ = case
    one = groups == groups[0]
    together = weights(mean_distance(vectors, groups), groups)[one]
    alone = weights(mean_distance(vectors[one], groups[one]), groups[one])
    np.testing.assert_allclose(together, alone, atol=1e-9)


@given(grouped_vectors(least=4))
def test_a_far_outlier_gets_the_largest_weight(case):
    vectors, groups, _ = case
    vectors = np.abs(vectors)
    row = 0
    vectors[row] = -vectors[row]
    value = weights(mean_distance(vectors, groups), groups)
    assert value[row] == value[groups == groups[row]].max()


@pytest.mark.parametrize("scale", ["minmax", "ratio"])
@given(case=grouped_vectors(least=1), floor=st.sampled_from([0.0, 0.5]), spaces=st.integers(1, 3))
def test_equal_distances_all_weigh_one(scale, case, floor, spaces):
    _, groups, rng = case
    _, inverse = np.unique(groups, return_inverse=True)
    distances = [rng.uniform(0, 2, size=inverse.max() + 1)[inverse] for _ in range(spaces)]
    np.testing.assert_allclose(weights(distances, groups, scale=scale, floor=floor), 1, rtol=1e-12)


@pytest.mark.parametrize("length", [1e-30, 1e-8, 1.0, 1e8, 1e30])
def test_float32_vectors_may_be_of_any_length(length):
    vectors, groups = uneven_groups([40, 3, 2, 7, 7], 48)
    vectors[groups == 0] *= length
    expected = one_group_at_a_time(vectors.astype(np.float64), groups)
    np.testing.assert_allclose(mean_distance(vectors, groups), expected, atol=FLOAT32)


def test_identical_responses_all_weigh_one():
    groups = np.array([4, 4, 4, 4])
    vectors = np.tile(np.random.default_rng(0).normal(size=5).astype(np.float32), (4, 1))
    distance = mean_distance(vectors, groups)
    np.testing.assert_allclose(distance, 0, atol=FLOAT32)
    np.testing.assert_array_equal(weights(distance, groups), np.ones(4))


def uneven_groups(sizes, dims, seed=0):
    """Groups of these sizes, rows mixed, float32 vectors of any length that lean to one side."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = rng.normal(size=(len(groups), dims)) + rng.normal(size=dims)
    return (vectors * rng.uniform(0.1, 9, size=(len(groups), 1))).astype(np.float32), groups


@pytest.mark.parametrize("sizes", [[23], [4, 5, 2, 2, 2, 9]])
def test_a_group_may_span_blocks(sizes):
    vectors, groups = uneven_groups(sizes, WIDE)
    expected = one_group_at_a_time(vectors.astype(np.float64), groups)
    np.testing.assert_allclose(mean_distance(vectors, groups), expected, atol=FLOAT32)
    np.testing.assert_allclose(mean_distance(vectors.astype(np.float64), groups), expected, atol=1e-12)


def test_many_groups_of_uneven_size_equal_the_definition_sorted_or_not():
    vectors, groups = uneven_groups(np.random.default_rng(1).geometric(0.05, size=400) + 1, 96)
    order = np.argsort(groups, kind="stable")
    for dtype, close in ((np.float32, FLOAT32), (np.float64, 1e-12)):
        given = vectors.astype(dtype)
        distance = mean_distance(given, groups)
        np.testing.assert_allclose(distance, one_group_at_a_time(vectors.astype(np.float64), groups), atol=close)
        np.testing.assert_allclose(mean_distance(given[order], groups[order]), distance[order], atol=close)


def test_one_group_of_hundreds_of_thousands():
    """a rows of one direction and b at a right angle: a distance of b / (n - 1), or a / (n - 1)."""
    a, b = 200_000, 300_000
    vectors = np.repeat(np.eye(4, dtype=np.float32)[:2] * 3, [a, b], axis=0)
    distance = mean_distance(vectors, np.zeros(a + b, int))
    np.testing.assert_allclose(distance, np.repeat([b, a], [a, b]) / (a + b - 1), rtol=1e-9)


def test_memory_beyond_the_vectors_is_as_the_docstring_says():
    vectors, groups = uneven_groups([12_000, 7_000, 1_000], 256)
    tracemalloc.start()
    try:
        mean_distance(vectors, groups)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 70 * len(groups) + 4e6 * 1.1 * os.cpu_count() + 1e6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_may_be_of_any_float_and_lie_in_a_file(dtype, tmp_path):
    vectors, groups = uneven_groups([40, 3, 2, 7, 7], 32)
    vectors = vectors.astype(dtype)
    distance = mean_distance(vectors, groups)
    assert distance.dtype == np.float64
    close = 1e-12 if dtype == np.float64 else FLOAT32
    np.testing.assert_allclose(distance, one_group_at_a_time(vectors.astype(np.float64), groups), atol=close)
    np.save(tmp_path / "vectors.npy", vectors)
    on_disk = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    np.testing.assert_array_equal(mean_distance(on_disk, groups), distance)


def test_no_responses_have_no_distances_and_no_weights():
    nobody = np.empty(0, dtype=int)
    distance = mean_distance(np.empty((0, 3), dtype=np.float32), nobody)
    assert distance.shape == weights(distance, nobody).shape == (0,)


@settings(max_examples=30)
@given(arrays(np.float64, 6, elements=st.floats(0.1, 1.5)))
def test_ties_survive_noise_of_one_ulp(distance):
    groups = np.zeros(6, dtype=int)
    distance[1] = distance[0]
    noisy = distance.copy()
    noisy[1] = np.nextafter(noisy[1], 2)
    np.testing.assert_allclose(weights(noisy, groups), weights(distance, groups), atol=1e-6)


def test_two_responses_always_weigh_the_same_even_an_ulp_apart():
    """The released code gives 0 and 2 there (departure 9)."""
    distance = np.array([0.3, np.nextafter(0.3, 1)])
    np.testing.assert_array_equal(weights(distance, np.zeros(2, int)), [1, 1])


def test_a_response_alone_has_no_distance_and_weight_one():
    vectors, groups = np.eye(3), np.array([0, 0, 1])
    with pytest.warns(UserWarning, match="1 of 3 responses are alone"):
        distance = mean_distance(vectors, groups)
    assert np.isnan(distance[2])
    np.testing.assert_array_equal(weights(distance, groups), [1, 1, 1])


def test_where_every_response_is_lowest_in_one_space_all_weigh_one():
    groups = np.zeros(2, dtype=int)
    np.testing.assert_array_equal(weights([np.array([0.1, 0.9]), np.array([0.9, 0.1])], groups), [1, 1])


@pytest.mark.parametrize(
    ("vectors", "groups", "words"),
    [
        (np.ones(3), np.zeros(3, int), r"vectors: expected numbers of shape \(n, d\)"),
        (np.array([["a"]]), np.zeros(1, int), r"vectors: expected numbers of shape"),
        (np.ones((3, 2)), np.zeros(2, int), "groups: expected 3 integers"),
        (np.ones((3, 2)), np.zeros(3), "groups: expected 3 integers"),
        (np.array([[1.0, 0], [0, 0], [np.nan, 1]]), np.zeros(3, int), "vectors: row 1 is zero"),
        (np.array([[1.0, 0], [1, 0], [np.nan, 1]]), np.zeros(3, int), "vectors: row 2 is zero, or holds NaN"),
    ],
)
def test_vectors_without_a_direction_are_refused(vectors, groups, words):
    with pytest.raises(ValueError, match=words):
        mean_distance(vectors, groups)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dims", [3, WIDE])
@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_the_first_row_without_a_direction_is_named_whatever_the_order_of_the_work(dims, bad):
    """Row 2 is of the largest group, which comes last and, of wide vectors, in blocks."""
    groups = np.array([0, 1, 2, 0, 1, 2, 2, 2, 2, 2, 3, 3])
    vectors = np.ones((len(groups), dims), dtype=np.float32)
    vectors[[11, 8, 4, 2]] = bad
    with pytest.raises(ValueError, match="vectors: row 2 is zero, or holds NaN or infinity"):
        mean_distance(vectors, groups)


@given(st.sets(st.integers(0, 1999), min_size=1, max_size=5))
@settings(max_examples=20)
def test_the_first_of_many_rows_is_named(rows):
    vectors, groups = uneven_groups(np.random.default_rng(2).geometric(0.02, size=60) + 1, 1024)
    rows = [row for row in rows if row < len(groups)] or [0]
    vectors[rows] = 0
    with pytest.raises(ValueError, match=f"vectors: row {min(rows)} is zero"):
        mean_distance(vectors, groups)


@pytest.mark.parametrize(
    ("distance", "options", "words"),
    [
        ([0.1, 0.2], {"scale": "max"}, "scale: expected"),
        ([0.1, 0.2], {"floor": 1.5}, "floor: expected"),
        ([0.1, 0.2, 0.3], {}, "distances: expected shape"),
        ([0.1, np.nan], {}, "distances: row 1 is nan"),
        ([-0.1, 0.2], {}, "distances: row 0 is -0.1"),
        ([0.1, np.inf], {}, "distances: row 1 is inf"),
        ([[0.1, 0.2], [np.nan, -1]], {}, r"distances\[1\]: row 0 is nan"),
        ([[0.1, 0.2, 0.3]] * 2, {}, r"distances\[0\]: expected shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_distances_and_options_are_refused(distance, options, words):
    with pytest.raises(ValueError, match=words):
        weights(np.array(distance), np.zeros(2, int), **options)
