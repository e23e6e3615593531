import numpy as np
import pytest

from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.equal_weights import describe_equal
from ddpo_lib.deviation.weighting import weights

pytestmark = pytest.mark.filterwarnings("ignore:.*alone in their group")


def weigh(sizes: list[int], copies: bool = False) -> tuple[np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    vectors = np.ones((len(groups), 4)) if copies else np.random.default_rng(0).normal(size=(len(groups), 4))
    return weights(mean_distance(vectors, groups), groups), groups


@pytest.mark.parametrize("seed", range(5))
def test_two_responses_are_equally_far_from_each_other_in_any_space(seed):
    groups = np.repeat(np.arange(20), 2)
    vectors = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    assert (weights(mean_distance(vectors, groups), groups) == 1).all()


def test_a_corpus_of_pairs_is_told_to_be_plain_dpo():
    said = describe_equal(*weigh([2, 2, 1, 2]))
    assert said.startswith("3 of 3 prompts with two or more responses have equal weights, 1 each (3 of them have two")
    assert "every weight is 1, so DDPO equals DPO and DORPO equals ORPO" in said


def test_some_prompts_of_two_are_counted():
    said = describe_equal(*weigh([2, 5, 4]))
    assert said.startswith("1 of 3 prompts with two or more responses have equal weights")
    assert said.endswith("there, DDPO equals DPO and DORPO equals ORPO")


def test_copies_have_equal_weights_too():
    assert describe_equal(*weigh([3, 3], copies=True)).startswith("2 of 2 prompts with two or more")


@pytest.mark.parametrize("sizes", [[3, 4], [1, 1], []])
def test_nothing_is_said_where_weights_differ_or_nothing_is_compared(sizes):
    assert describe_equal(*weigh(sizes)) is None
