import math

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED, corpus
from hypothesis import given
from hypothesis import strategies as st

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.pairs.divpo import compare_use, diversity_by_words, weight_by_use, weights_within
from ddpo_lib.pairs.rules import make_divpo_pairs, make_pairs
from ddpo_lib.spaces.counted import stylometric_vectors

THRESHOLDS = pytest.mark.parametrize("threshold", ["count", "range"])
IDS = ["chosen_id", "rejected_id"]


def group_of(table: pd.DataFrame) -> np.ndarray:
    return table["prompt_id"].factorize()[0]


@st.composite
def cases(draw) -> tuple[pd.DataFrame, np.ndarray, dict]:
    """Up to five prompts with ties in score and diversity, the first with a pair for sure; and options."""
    scores = st.lists(st.none() | st.integers(-3, 9), max_size=14)
    table = corpus([0, 20], *draw(st.lists(scores, max_size=4)))
    diversity = draw(st.lists(st.integers(0, 4), min_size=len(table), max_size=len(table)))
    options = {
        "rho": draw(st.sampled_from([0.05, 0.25, 1 / 3, 0.5])),
        "max_pairs": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 9)),
        "threshold": draw(st.sampled_from(["count", "range"])),
    }
    return table, np.array(diversity, dtype=float), options


def pairs_of(pairs: pd.DataFrame) -> set[tuple[str, str]]:
    return set(pairs[IDS].itertuples(index=False, name=None))


def unit(angles: list[float]) -> np.ndarray:
    """Vectors in the plane, by their angle in degrees."""
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)


# as released


@pytest.mark.parametrize("seed", range(5))
def test_every_case_of_the_released_code(golden, seed):
    for case in golden["divpo"]:
        spaces = [np.array(case[f"{space}_vectors"]) for space in ("semantic", "style")]
        table, rho = corpus(case["scores"]), case["rho_percent"] / 100
        pairs = make_divpo_pairs(table, weights_within(spaces), rho, case["max_pairs"], seed)
        for side in ("chosen", "rejected"):
            assert sorted(int(name[3:]) for name in pairs[f"{side}_id"]) == case[side]


def test_who_meets_whom_is_the_draws(golden):
    """The one random part of the released rule: both pairings of 2 winners and 2 losers come up."""
    case = golden["divpo"][2]
    spaces = [np.array(case[f"{space}_vectors"]) for space in ("semantic", "style")]
    table = corpus(case["scores"])
    drawn = {frozenset(pairs_of(make_divpo_pairs(table, weights_within(spaces), seed=seed))) for seed in range(20)}
    assert drawn == {
        frozenset({("p0-05", "p0-01"), ("p0-23", "p0-03")}),
        frozenset({("p0-05", "p0-03"), ("p0-23", "p0-01")}),
    }


def test_weights_are_those_of_the_set_by_hand():
    """Of three best at 0, 10 and 30 degrees the last deviates most, though it is where all the others are too."""
    angles = [0, 10, 30, 31, 31, 31, 31, 31, 31, 31, 31, 31]
    table = corpus([12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    vectors = unit(angles)
    within = make_divpo_pairs(table, weights_within([vectors]), max_pairs=1)
    among_all = make_divpo_pairs(table, mean_distance(vectors, np.zeros(12, int)), max_pairs=1)
    assert within["chosen_id"].tolist() == ["p0-02"]
    assert among_all["chosen_id"].tolist() == ["p0-00"]


def move_apart(vectors: np.ndarray, length: float) -> np.ndarray:
    """Unit vectors, each with an axis of its own beside: distances d become (d + length^2) / (1 + length^2)."""
    return np.hstack([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), length * np.eye(len(vectors))])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1]), st.floats(0.1, 3))
def test_the_scale_and_the_origin_of_distances_do_not_matter_in_either_space(seed, space, length):
    """Where one space alone is rescaled in the set, those of the other decide who wins."""
    rng = np.random.default_rng(seed)
    spaces = [rng.normal(size=(6, 4)), rng.normal(size=(6, 3))]
    moved = [move_apart(vectors, length) if i == space else vectors for i, vectors in enumerate(spaces)]
    rows = np.arange(6)
    np.testing.assert_allclose(weights_within(moved)(rows), weights_within(spaces)(rows), atol=1e-4)


def test_the_winner_is_another_where_one_space_alone_is_rescaled():
    """Distances in the set 0, 0.6, 1 of the range in one space and 0, 1, 0.5 in the other: products 0, 0.6, 0.5. With
    the second moved to 0.8 + 0.2 d and not rescaled, 0, 0.6 x 1, 1 x 0.9: the third would win."""
    first, second = np.array([0.3, 0.42, 0.5]), 0.8 + 0.2 * np.array([0.0, 1.0, 0.5])
    value = weights([first, second], np.zeros(3, int))
    np.testing.assert_allclose(value, 3 * np.sqrt([0, 0.6, 0.5]) / np.sqrt([0, 0.6, 0.5]).sum())
    assert value.argmax() == 1 and ((first - 0.3) / 0.2 * second).argmax() == 2


def test_a_product_of_zero_gives_equal_weights_and_a_pair_not_nan():
    """Each of two is lowest in one space; and all distances equal. Where the released code divides by zero."""
    square = unit([0, 90, 180, 270])
    assert weights_within([square])(np.arange(4)).tolist() == [1, 1, 1, 1]
    lowest_in_one = [np.array([0.1, 0.1, 0.9]), np.array([0.5, 0.5, 0.1])]
    assert weights(lowest_in_one, np.zeros(3, int)).tolist() == [1, 1, 1]
    table = corpus([12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    turned = unit([0, 120, 240] * 4)
    pairs = make_divpo_pairs(table, weights_within([turned]))
    assert len(pairs) == 2 and pairs["chosen_score"].min() >= 10 and pairs["rejected_score"].max() <= 3
    # equal weights: the higher scored win and the lower scored lose
    assert sorted(pairs["chosen_score"]) == [11, 12] and sorted(pairs["rejected_score"]) == [1, 2]


# the rule


@given(cases())
def test_winners_are_of_the_best_losers_of_the_worst_and_nobody_is_used_twice(case):
    table, diversity, options = case
    pairs = make_divpo_pairs(table, diversity, **options)
    used = pairs["chosen_id"].tolist() + pairs["rejected_id"].tolist()
    assert len(used) == len(set(used))
    by_id = table.set_index("response_id")
    for side in ("chosen", "rejected"):
        row = by_id.loc[pairs[f"{side}_id"]]
        for column, value in (("prompt_id", "prompt_id"), ("prompt", "prompt"), (side, "text")):
            assert pairs[column].tolist() == row[value].tolist()
        assert pairs[f"{side}_score"].tolist() == row["score"].tolist()
    for prompt_id, mine in pairs.groupby("prompt_id"):
        scores = table.loc[(table["prompt_id"] == prompt_id), "score"].dropna().to_numpy()
        assert len(mine) <= options["max_pairs"]
        assert mine["chosen_score"].min() > mine["rejected_score"].max()
        if options["threshold"] == "count":
            most = min(max(2, math.floor(options["rho"] * len(scores) + 1e-9)), len(scores) // 2)
            assert (scores > mine["chosen_score"].min()).sum() < most
            assert (scores < mine["rejected_score"].max()).sum() < most
        else:
            reach = options["rho"] * np.ptp(scores) + 1e-6
            assert mine["chosen_score"].min() >= scores.max() - reach
            assert mine["rejected_score"].max() <= scores.min() + reach


@THRESHOLDS
def test_of_the_best_the_most_diverse_win_and_of_the_worst_the_least_diverse_lose(threshold):
    """Twelve scores 1 to 12: a quarter is three, and so is a range of 0.25 x 11 = 2.75 from either end."""
    table = corpus(range(1, 13))
    diversity = np.array([5, 1, 3, 9, 9, 9, 0, 0, 0, 4, 6, 2], dtype=float)
    two = make_divpo_pairs(table, diversity, threshold=threshold)
    assert two["chosen_score"].tolist() == [11, 10] and sorted(two["rejected_score"]) == [2, 3]
    one = make_divpo_pairs(table, diversity, max_pairs=1, threshold=threshold)
    assert pairs_of(one) == {("p0-10", "p0-01")}


def test_the_two_thresholds_differ_where_scores_are_uneven():
    """0, 1, 2, 3, 4, 5, 90, 100: a quarter of eight is two; within 25 of 100 are two, within 25 of 0 six."""
    table = corpus([0, 1, 2, 3, 4, 5, 90, 100])
    diversity = np.array([3, 3, 3, 3, 1, 2, 1, 2], dtype=float)
    losers = {
        threshold: sorted(make_divpo_pairs(table, diversity, threshold=threshold)["rejected_score"])
        for threshold in ("count", "range")
    }
    assert losers == {"count": [0, 1], "range": [4, 5]}


@pytest.mark.parametrize("diversity", [1.0, -1.0])
def test_the_middle_of_the_range_is_neither_good_nor_bad(diversity):
    pairs = make_divpo_pairs(corpus([0, 5, 10]), np.array([0, diversity, 0]), 0.5, threshold="range")
    assert pairs_of(pairs) == {("p0-02", "p0-00")}


def test_a_larger_rho_reaches_for_diversity_at_the_price_of_the_score():
    table, diversity = corpus(range(1, 17)), np.array([*range(8, 0, -1), *range(16, 8, -1)], dtype=float)
    chosen = [make_divpo_pairs(table, diversity, rho, 1)["chosen_score"].item() for rho in (0.125, 0.25, 0.5)]
    assert chosen == [15, 13, 9]


@given(cases(), st.randoms(use_true_random=False))
def test_a_prompts_pairs_depend_neither_on_the_other_prompts_nor_on_the_order_of_rows(case, random):
    table, diversity, options = case
    pairs = make_divpo_pairs(table, diversity, **options)
    order = list(range(len(table)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(make_divpo_pairs(table.iloc[order], diversity[order], **options), pairs)
    for prompt_id, mine in pairs.groupby("prompt_id"):
        rows = (table["prompt_id"] == prompt_id).to_numpy()
        alone = make_divpo_pairs(table[rows], diversity[rows], **options)
        pd.testing.assert_frame_equal(alone, mine.reset_index(drop=True))


@given(cases(), st.sampled_from([-1000, -0.5, 7, 1e6]))
def test_a_constant_on_all_scores_changes_nothing(case, shift):
    table, diversity, options = case
    moved = table.assign(score=table["score"] + shift)
    assert pairs_of(make_divpo_pairs(moved, diversity, **options)) == pairs_of(
        make_divpo_pairs(table, diversity, **options)
    )


def test_the_function_is_asked_about_places_in_the_table_given_and_only_where_it_decides():
    """A part of a corpus keeps its old index; four responses have two best and two worst, and nothing to decide."""
    table = corpus([1, 2, 3, 4], range(12)).iloc[2:]
    asked = []

    def diversity(rows):
        asked.append(table["score"].to_numpy()[rows].tolist())
        return np.arange(len(rows))

    make_divpo_pairs(table, diversity)
    assert asked == [[11, 10, 9], [0, 1, 2]]


@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter_to_weights_within_the_set(seed):
    """Copies among the vectors too: rounding, which hangs on the order of a sum, decides nothing."""
    rng = np.random.default_rng(seed)
    table = corpus(rng.integers(0, 30, 20).tolist(), rng.integers(0, 30, 20).tolist())
    spaces = [rng.normal(size=(6, 3))[rng.integers(0, 6, 40)] for _ in range(2)]
    order = rng.permutation(40)
    moved = make_divpo_pairs(table.iloc[order], weights_within([vectors[order] for vectors in spaces]), seed=seed)
    pd.testing.assert_frame_equal(moved, make_divpo_pairs(table, weights_within(spaces), seed=seed))


# small and even groups


def test_prompts_with_fewer_pairs_are_kept_and_counted_with_those_that_have_none():
    table = corpus([9, 1], [9, 5, 1], [9, 8, 2, 1], [4], [None, 3], [None], [7, 7, 7, 7], [5, 3, 3, 3], [3, 3, 3, 1])
    pairs = make_divpo_pairs(table, diversity_by_words(table["text"].tolist(), group_of(table)))  # NaN for p3 and p5
    assert pairs.groupby("prompt_id").size().to_dict() == {"p0": 1, "p1": 1, "p2": 2, "p7": 1, "p8": 1}
    assert {(d["what"], d["count"], d["why"]) for d in pairs.attrs["dropped"]} == {
        ("prompts", 3, "fewer than two scored responses"),
        ("prompts", 1, "all scores are equal"),
        ("prompts with fewer than 2 pairs", 4, "kept; too few responses are best or worst"),
    }


def test_equal_scores_at_the_edge_leave_only_those_that_are_better():
    """Two positive scores and ten zeros: a quarter is three, but a third winner would be no better than its loser."""
    table = corpus([0] * 10 + [5, 8])
    pairs = make_divpo_pairs(table, np.arange(12.0), max_pairs=4)
    assert sorted(pairs["chosen_score"]) == [5, 8] and pairs["rejected_score"].tolist() == [0, 0]


def test_the_draw_decides_among_identical_responses():
    """As documented: every one of the best may win, and the same seed draws the same."""
    table, same = corpus([8] * 6 + [1] * 6), weights_within([np.ones((12, 3))])
    drawn = [make_divpo_pairs(table, same, max_pairs=1, rho=0.5, seed=seed) for seed in range(60)]
    assert {pairs["chosen_id"].item() for pairs in drawn} == {f"p0-{j:02d}" for j in range(6)}
    assert {pairs["rejected_id"].item() for pairs in drawn} == {f"p0-{j:02d}" for j in range(6, 12)}
    pd.testing.assert_frame_equal(drawn[3], make_divpo_pairs(table, same, max_pairs=1, rho=0.5, seed=3))


# bad input


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rho": 0}, r"rho: expected a share in \(0, 0.5\]"),
        ({"rho": 0.51}, r"rho: .* got 0.51"),
        ({"rho": math.nan}, r"rho: .* got nan"),
        ({"max_pairs": 0}, "max_pairs: expected 1 or more, got 0"),
        ({"threshold": "best"}, 'threshold: expected "count" or "range", got \'best\''),
        ({"weights": np.ones(3)}, r"weights: expected 12 numbers, one per row of the corpus, got \(3,\)"),
        ({"weights": np.array([1.0] * 10 + [np.nan, 1])}, "weights: response p0-10 has nan"),
        ({"weights": lambda rows: np.ones(2)}, "weights: expected 3 numbers for 3 rows"),
    ],
)
def test_bad_arguments_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_divpo_pairs(**{"corpus": corpus(range(12)), "weights": np.ones(12), **options})


@THRESHOLDS
@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (([None, None], [None]), "no response has a score"),
        (([3], [5], [None]), "every prompt has one response"),
        (([3, 3], [5, None]), "no prompt has two responses with different scores (3 of 4 responses have one)"),
    ],
    ids=["no scores", "one response a prompt", "all scores equal"],
)
def test_where_no_pair_can_be_made_the_error_says_why(groups, sentence, threshold):
    table = corpus(*groups)
    with pytest.raises(InputError) as error:
        make_divpo_pairs(table, np.ones(len(table)), threshold=threshold)
    assert sentence in str(error.value)


# words


def test_rarity_of_words_by_hand():
    """Three responses; `the` is in all, `cat` in two, the other words in one: shares of the two others without them."""
    texts = ["The cat sat, sat, SAT.", "the cat", "the dog", "alone here", "", "the cat ..."]
    groups = np.array([7, 7, 7, 2, 4, 4])
    expected = [(0 + 0.5 + 1) / 3, 0.25, 0.5, np.nan, 0, 1]
    np.testing.assert_allclose(diversity_by_words(texts, groups), expected)


def test_identical_responses_share_all_their_words():
    assert diversity_by_words(["one and the same"] * 4, np.zeros(4, int)).tolist() == [0, 0, 0, 0]


@given(st.integers(0, 2**32 - 1))
def test_order_case_and_copies_of_words_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list("abcdefg"), rng.integers(1, 9))) for _ in range(8)]
    groups = rng.permutation([0, 0, 0, 1, 1, 1, 1, 1])
    value, order = diversity_by_words(texts, groups), rng.permutation(8)
    assert ((value >= 0) & (value <= 1)).all()
    np.testing.assert_array_equal(diversity_by_words([texts[i] for i in order], groups[order]), value[order])
    again = [" ".join(rng.permutation(text.split() * 2)).upper() for text in texts]
    np.testing.assert_array_equal(diversity_by_words(again, groups), value)


# what the methods learn from


def test_the_weight_on_what_divpo_drops_by_hand():
    """Winners of the gap rule weigh 0.5, 1.5 and 1; DivPO keeps the first, has the second lose, and drops the third."""
    table = corpus([1, 2, 3, 4, 5, 6, 7], [1, 2])
    gap = pd.DataFrame(
        {"chosen_id": ["p0-01", "p0-03", "p0-05", "p1-01"], "rejected_id": ["p0-00", "p0-02", "p0-04", "p1-00"]}
    )
    divpo = pd.DataFrame({"chosen_id": ["p0-01"], "rejected_id": ["p0-03"]})
    use = compare_use(table, {"dpo": gap, "divpo": divpo})
    assert use["dpo"].tolist() == ["rejected", "chosen"] * 3 + ["unused", "rejected", "chosen"]
    assert use["divpo"].tolist() == ["unused", "chosen", "unused", "rejected", *["unused"] * 5]
    weight = np.array([9, 0.5, 9, 1.5, 9, 1.0, 9, 1, 0])
    found = weight_by_use(use, weight, "dpo", "divpo")
    assert found.loc["p0"].tolist() == [0.5, 1.5, 1.0, pytest.approx(2.5 / 3)]
    assert found.loc["p1"].tolist()[:3] == [0, 0, 0] and math.isnan(found.loc["p1", "dropped"])
    assert weight_by_use(use, weight, "divpo", "divpo")["dropped"].tolist() == [0]
    with pytest.raises(ValueError, match="weight: expected 9 numbers"):
        weight_by_use(use, weight[:3], "dpo", "divpo")


# real data


def real(name: str) -> pd.DataFrame:
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip("shared/data is not beside the project")
    return read_corpus(path, held_out=0)


@THRESHOLDS
def test_real_responses_win_where_they_are_good_and_say_what_others_do_not(threshold):
    table = real("newyorker_captions.jsonl")
    rarity = pd.Series(diversity_by_words(table["text"].tolist(), group_of(table)), table["response_id"])
    pairs = make_divpo_pairs(table, rarity.to_numpy(), threshold=threshold)
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()
    assert rarity[pairs["chosen_id"]].mean() > rarity[pairs["rejected_id"]].mean()
    fewer = sum(entry["count"] for entry in pairs.attrs["dropped"])
    assert pairs.groupby("prompt_id").size().value_counts().to_dict() == {
        2: table["prompt_id"].nunique() - fewer,
        1: fewer,
    }


def test_real_groups_of_three_leave_nothing_to_choose_by_diversity():
    """One best and one worst: the same pairs whatever the diversity, one a prompt."""
    table = real("creativity_triplets.jsonl")
    table = table[table.groupby("prompt_id")["score"].transform("nunique") == 3]
    table = table[table.groupby("prompt_id")["score"].transform("size") == 3]
    pairs = make_divpo_pairs(table, np.arange(len(table)))
    assert len(pairs) == table["prompt_id"].nunique() > 200
    assert pairs_of(pairs) == pairs_of(make_divpo_pairs(table, -np.arange(len(table)), seed=3))


def test_divpo_drops_most_of_the_weight_that_ddpo_learns_with_where_prompts_have_many_responses():
    """Captions, mostly 50 a prompt, weighted by style: a prompt has up to 25 winners by the gap rule, 2 by DivPO's."""
    table = real("newyorker_captions.jsonl")
    space = stylometric_vectors(table["text"].tolist())
    weight = weights(mean_distance(space, group_of(table)), group_of(table))
    divpo = make_divpo_pairs(table, weights_within([space]))
    use = compare_use(table, {"gap": make_pairs(table), "divpo": divpo})
    found = weight_by_use(use, weight, "gap", "divpo")
    mass = found[["chosen", "rejected", "unused"]].sum()
    assert mass.sum() == pytest.approx(weight[(use["gap"] == "chosen").to_numpy()].sum())
    assert mass["chosen"] == pytest.approx(
        weight[((use["gap"] == "chosen") & (use["divpo"] == "chosen")).to_numpy()].sum()
    )
    assert found["dropped"].mean() > 0.5


def test_stories_of_which_one_a_prompt_has_a_score_give_no_pair():
    table = real("hanna.jsonl")
    with pytest.raises(InputError, match=r"96 of \d+ responses have one"):
        make_divpo_pairs(table, np.ones(len(table)))
    rarity = pd.Series(diversity_by_words(table["text"].tolist(), group_of(table)))
    assert rarity.between(0, 1).all()
