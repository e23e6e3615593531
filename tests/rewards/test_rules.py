"""Rewards in which deviation counts: worked numbers, and laws that each rule keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpo_lib.deviation import mean_distance
from ddpo_lib.rewards.advantages import grpo
from ddpo_lib.rewards.rules import RULES, cosine_distances, deviation, shape

RIGHT = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # two samples that are alike, and one at a right angle to both
APART = cosine_distances(RIGHT)


@st.composite
def groups(draw):
    """Rewards and distances of a group of 2 to 9 samples, some of which are equal."""
    seed, size = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 9))
    rng = np.random.default_rng(seed)
    distinct = rng.integers(0, size, size)  # which sample stands at each place
    rewards, vectors = rng.normal(size=size).round(draw(st.integers(0, 3))), rng.normal(size=(size, 5))
    return distinct, rewards[distinct], cosine_distances(vectors[distinct])


def test_deviation_is_the_mean_distance_to_the_others():
    vectors = np.random.default_rng(0).normal(size=(7, 5))
    assert deviation(APART).tolist() == [0.5, 0.5, 1.0]
    assert deviation(cosine_distances(vectors)) == pytest.approx(mean_distance(vectors, np.zeros(7, int)), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    [
        ("plain", {}, [1, 3, 2]),
        ("product", {}, [0 * 0.5, 2 * 0.5, 1 * 1.0]),
        ("similarity", {}, [1 / 2, 3 / 2, 2 / 1]),
        ("gated", {}, [0.4, 1.2, 2.0]),  # c = 0, 0, 1
        ("gated", {"gate": 2.5}, [1.0, 1.2, 2.0]),  # only 3 is above the gate
        ("gated", {"gate": 1.5, "share": 0.5}, [1.0, 1.5, 2.0]),
        # rewards have mean 2, spread 1; deviations have mean 2/3, spread 1/(2 sqrt 3)
        ("normalised", {}, [-1 - 0.5774, 1 - 0.5774, 0 + 1.1547]),
        # det(S + I) = 3 * 2; without one of the two alike 2 * 2; without the third 3
        ("logdet", {}, [1 + np.log(6 / 4), 3 + np.log(6 / 4), 2 + np.log(6 / 3)]),
        # likewise 1.25 * 1.5, 1.5 * 1.5 and 1.25
        (
            "logdet",
            {"weight": 2.0, "ridge": 0.5},
            [1 + 2 * np.log(1.25 / 1.5), 3 + 2 * np.log(1.25 / 1.5), 2 + 2 * np.log(1.5)],
        ),
    ],
)
def test_worked_numbers(rule, options, expected):
    assert shape(rule, [1.0, 3.0, 2.0], APART, **options) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("rule", RULES)
@given(groups(), st.randoms())
def test_a_permutation_of_the_group_permutes_the_rewards(rule, group, random):
    _, rewards, distances = group
    order = list(range(len(rewards)))
    random.shuffle(order)
    permuted = shape(rule, rewards[order], distances[np.ix_(order, order)])
    assert permuted == pytest.approx(shape(rule, rewards, distances)[order], abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(groups())
def test_equal_samples_get_equal_rewards(rule, group):
    distinct, rewards, distances = group
    found = shape(rule, rewards, distances)
    for sample in np.unique(distinct):
        assert np.ptp(found[distinct == sample]) < 1e-9


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("reward", [-2.0, 0.0, 1.0])
def test_where_all_samples_are_equal_advantages_are_those_of_plain_grpo(rule, reward):
    vectors = np.tile(np.random.default_rng(0).normal(size=5), (8, 1))
    found = shape(rule, np.full(8, reward), cosine_distances(vectors))
    assert np.ptp(found - reward) < 1e-9
    assert grpo(found) == pytest.approx(grpo(np.full(8, reward)), abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_where_all_deviate_alike_scaled_advantages_are_those_of_plain_grpo(rule):
    rewards = np.array([0.3, 0.9, 0.4, 0.1])
    found = grpo(shape(rule, rewards, cosine_distances(np.eye(4) + 0.5)))
    assert found == pytest.approx(grpo(rewards), rel=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_without_a_reward_keeps_none_and_changes_no_other(rule):
    vectors = np.random.default_rng(1).normal(size=(5, 3))
    distances, rewards = cosine_distances(vectors), np.array([0.5, np.nan, 1.0, 0.0, np.nan])
    found, scored = shape(rule, rewards, distances), [0, 2, 3]
    assert np.isnan(found[[1, 4]]).all()
    assert found[scored].tolist() == shape(rule, rewards[scored], distances[np.ix_(scored, scored)]).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_that_is_alone_keeps_its_reward(rule):
    assert shape(rule, [0.7], np.zeros((1, 1))).tolist() == [0.7]
    assert shape(rule, [np.nan, 0.7], APART[:2, :2])[1] == 0.7
    assert np.isnan(shape(rule, [np.nan], np.zeros((1, 1)))).all()
    assert shape(rule, [], np.zeros((0, 0))).tolist() == []


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"plain"}))
def test_of_two_equally_good_samples_the_one_that_deviates_gets_more(rule):
    good = np.array([1.0, 1.0, 1.0, 0.0])
    found = shape(rule, good, cosine_distances(np.vstack([RIGHT, [1.0, 0.1]])))
    assert found[2] > found[0] and found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"plain"}))
def test_only_rules_that_add_pay_a_worthless_sample_for_deviating(rule):
    found = shape(rule, [0.0, 0.0, 0.0, 1.0], cosine_distances(np.vstack([RIGHT, [1.0, 0.0]])))
    assert (found[2] > found[0]) == (rule in ("normalised", "logdet"))


def test_the_least_reward_is_subtracted_so_that_a_negative_one_does_not_pay_for_being_alike():
    found = shape("product", [-1.0, -1.0, -1.0, -2.0], cosine_distances(np.vstack([RIGHT, [1.0, 0.0]])))
    assert found.tolist() == pytest.approx([1 / 3, 1 / 3, 1.0, 0.0])


def test_the_term_of_a_determinant_is_what_the_sample_adds_to_it():
    vectors = np.random.default_rng(2).normal(size=(6, 4))
    distances = cosine_distances(vectors)
    matrix = 1 - distances + 0.3 * np.eye(6)
    expected = []
    for left_out in range(6):
        others = [i for i in range(6) if i != left_out]
        expected.append(np.linalg.slogdet(matrix)[1] - np.linalg.slogdet(matrix[np.ix_(others, others)])[1])
    assert shape("logdet", np.zeros(6), distances, ridge=0.3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rule", "rewards", "distances", "options", "named"),
    [
        ("products", [1.0, 2.0, 3.0], APART, {}, "rule: expected one of plain, product"),
        ("plain", [1.0, 2.0], APART, {}, r"distances: expected shape \(2, 2\), got \(3, 3\)"),
        ("plain", [1.0, np.inf, 3.0], APART, {}, "rewards: sample 1 is infinite"),
        ("plain", [1.0, 2.0, 3.0], APART * np.nan, {}, "distances: expected finite"),
        ("gated", [1.0, 2.0, 3.0], APART, {"share": 1.5}, "share"),
        ("logdet", [1.0, 2.0, 3.0], APART, {"ridge": 0.0}, "ridge"),
    ],
)
def test_what_cannot_be_a_group_is_named(rule, rewards, distances, options, named):
    with pytest.raises(ValueError, match=named):
        shape(rule, rewards, distances, **options)


@pytest.mark.parametrize("vectors", [[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [np.nan, 1.0]]])
def test_a_vector_without_a_direction_is_named(vectors):
    with pytest.raises(ValueError, match="row 1"):
        cosine_distances(vectors)
