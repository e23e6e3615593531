import math
import tracemalloc
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from conftest import corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpo_lib.base.errors import InputError
from ddpo_lib.pairs.rules import draw_rows, make_pairs

GAPS = st.sampled_from([0, 1, 5, 12.5])
SCORES = st.lists(st.none() | st.integers(-5, 30), max_size=9)


@st.composite
def corpora(draw) -> pd.DataFrame:
    """Up to five prompts, the first of which has a pair for sure."""
    return corpus([0, 20], *draw(st.lists(SCORES, max_size=4)))


@given(corpora(), GAPS, st.integers(0, 99))
def test_a_response_is_used_at_most_once_and_the_winner_scores_strictly_higher(table, gap, seed):
    pairs = make_pairs(table, gap, seed)
    used = pairs["chosen_id"].tolist() + pairs["rejected_id"].tolist()
    assert len(used) == len(set(used))
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()
    by_id = table.set_index("response_id")
    for side in ("chosen", "rejected"):
        row = by_id.loc[pairs[f"{side}_id"]]
        for column, value in (("prompt_id", "prompt_id"), ("prompt", "prompt"), (side, "text")):
            assert pairs[column].tolist() == row[value].tolist()
        assert pairs[f"{side}_score"].tolist() == row["score"].tolist()


@given(corpora(), GAPS, st.integers(0, 99))
def test_pairs_at_the_gap_come_first_and_then_all_that_can_be_made(table, gap, seed):
    """No two responses left over differ in score; none left over by the first round differ by the gap."""
    pairs = make_pairs(table, gap, seed)
    for prompt_id, group in table[table["score"].notna()].groupby("prompt_id"):
        scores = dict(zip(group["response_id"], group["score"], strict=True))
        mine = pairs[pairs["prompt_id"] == prompt_id]
        left = set(scores) - set(mine["chosen_id"]) - set(mine["rejected_id"])
        assert len({scores[i] for i in left}) <= 1
        second = mine[mine["chosen_score"] - mine["rejected_score"] < gap]
        after_first = left | set(second["chosen_id"]) | set(second["rejected_id"])
        assert all(abs(scores[i] - scores[j]) < max(gap, 1) for i, j in combinations(after_first, 2))


@pytest.mark.parametrize("seed", range(20))
def test_no_smaller_pair_is_made_where_all_can_be_matched_at_the_gap(seed):
    pairs = make_pairs(corpus([1, 2, 3, 4, 101, 102, 103, 104]), gap=50, seed=seed)
    assert len(pairs) == 4
    assert (pairs["chosen_score"] > 100).all()
    assert (pairs["rejected_score"] < 5).all()


def test_the_second_round_pairs_what_the_first_could_not():
    """Nothing differs by 5: each still gets a partner, as the mean ratings of captions need it."""
    pairs = make_pairs(corpus([1.0, 1.25, 1.5, 1.75]), gap=5)
    assert len(pairs) == 2


@given(corpora(), GAPS, st.integers(0, 99), st.randoms(use_true_random=False))
def test_a_prompts_pairs_depend_on_nothing_but_the_prompt_and_the_seed(table, gap, seed, random):
    pairs = make_pairs(table, gap, seed)
    prompts = table["prompt_id"].unique().tolist()
    random.shuffle(prompts)
    shuffled = pd.concat([table[table["prompt_id"] == prompt] for prompt in prompts])
    pd.testing.assert_frame_equal(make_pairs(shuffled, gap, seed), pairs)
    for prompt_id in pairs["prompt_id"].unique():
        alone = make_pairs(table[table["prompt_id"] == prompt_id], gap, seed)
        among_others = pairs[pairs["prompt_id"] == prompt_id].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, among_others, check_dtype=False)


def test_the_draw_is_the_seeds_and_differs_between_prompts():
    table = corpus([*range(0, 100, 10)], [*range(0, 100, 10)])

    def drawn(seed):
        pairs = make_pairs(table, seed=seed)
        return [set(zip(g["chosen_score"], g["rejected_score"], strict=True)) for _, g in pairs.groupby("prompt_id")]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    assert drawn(3)[0] != drawn(3)[1]


def listed_pairs(scores, gap, rng):
    """The rule of `draw_rows` by its words: all pairs in one random order, gone through twice."""
    order = rng.permutation(list(combinations(range(len(scores)), 2))).tolist()
    used, pairs = set(), []
    for least in (gap, 0):
        for i, j in order:
            difference = abs(scores[i] - scores[j])
            if difference >= least and difference > 0 and not used & {i, j}:
                used |= {i, j}
                pairs.append((i, j) if scores[i] > scores[j] else (j, i))
    return pairs


@pytest.mark.parametrize(
    ("scores", "gap"),
    [
        ([3, 1, 4, 1.5, 9], 0),
        ([0, 1, 5, 6, 6, 11], 5),
        ([7, 0, 0, 0, 2, math.nan], 5),
        ([0, 0, 1, 1, 2, 2], 1),
        ([0.1, 0.3, 0.5, 0.7, 0.9], 0.2),  # 0.3 - 0.1 is 0.2 or less in floats, and 0.7 - 0.5 is less
        ([1, 2, 3, 4], 100),
        ([-8, 0, 0.5, 1, 1.5, 9, 20], 8),
    ],
)
def test_each_set_of_pairs_is_as_likely_as_by_the_rule(scores, gap):
    """The distance of the two counts, by sets of pairs and by the pair that comes first, against that by chance."""
    draws, scores, rng = 3000, np.array(scores, dtype=float), np.random.default_rng(0)
    ours = [list(zip(*draw_rows(scores, gap, rng), strict=True)) for _ in range(draws)]
    theirs = [listed_pairs(scores, gap, rng) for _ in range(draws)]
    for kind in (frozenset, tuple, lambda pairs: pairs[0]):
        one, other = (Counter(kind(pairs) for pairs in drawn) for drawn in (ours, theirs))
        cells = one.keys() | other.keys()
        # a chi-square of two counts of one distribution has a mean of cells - 1 and a variance of twice that, or less
        apart = sum((one[c] - other[c]) ** 2 / (one[c] + other[c]) for c in cells)
        assert apart < len(cells) + 4 * math.sqrt(2 * len(cells)) + 4


NEAR = st.sampled_from([k / 10 for k in range(-9, 10)] + [0.1 + 0.2, 1e-300, -1e-300, 1e16, 1e16 + 2, math.nan])


@settings(deadline=None, max_examples=300)
@given(st.lists(NEAR, max_size=12), st.sampled_from([-1, 0, 0.1, 0.2, 0.3, 0.7, 1.0]), st.integers(0, 9))
def test_a_difference_is_at_the_gap_if_its_float_is(scores, gap, seed):
    """Every pair of the first round is at the gap, no pair at the gap is left by it, and none that differs at all."""
    chosen, rejected = draw_rows(np.array(scores, dtype=float), gap, np.random.default_rng(seed))
    difference = np.array([scores[i] - scores[j] for i, j in zip(chosen, rejected, strict=True)])
    assert len({*chosen, *rejected}) == 2 * len(chosen)
    assert (difference > 0).all()
    first = int((difference >= gap).sum())
    assert (difference[:first] >= gap).all()
    for start, least in ((first, gap), (len(chosen), 0)):
        left = set(range(len(scores))) - {*chosen[:start], *rejected[:start]}
        assert not any(scores[i] - scores[j] >= least and scores[i] > scores[j] for i in left for j in left)


@pytest.mark.parametrize("scores", ["upwards", "long tail", "one far"])
def test_memory_is_linear_in_the_responses(scores):
    n, rng = 20_000, np.random.default_rng(0)
    values = {
        "upwards": np.arange(n, dtype=float),
        "long tail": np.floor(rng.pareto(0.7, size=n)),
        "one far": np.where(np.arange(n) == 7, 9.0, 0.0),
    }[scores]
    tracemalloc.start()
    try:
        chosen, rejected = draw_rows(values, 5, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500 * n
    left = np.delete(values, [*chosen, *rejected])
    assert len(left) == n - 2 * len(chosen)
    assert len(np.unique(left)) <= 1
    assert (values[chosen] > values[rejected]).all()


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (([None, None], [None]), "no response has a score"),
        (([3], [5], [None]), "every prompt has one response"),
        (([3, 3], [5, None]), "no prompt has two responses with different scores (3 of 4 responses have one)"),
    ],
    ids=["no scores", "one response a prompt", "no difference"],
)
def test_where_no_pair_can_be_made_the_error_says_why(groups, sentence):
    with pytest.raises(InputError) as error:
        make_pairs(corpus(*groups))
    assert sentence in str(error.value)
    assert "no training pair can be made" in str(error.value)
