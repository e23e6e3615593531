"""What deviation is in a corpus: worked numbers, laws of the estimators, and what real corpora can and cannot say."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights
from ddpo_lib.evaluation.findings import collect_findings
from ddpo_lib.evaluation.reliability import needed, split_half
from ddpo_lib.evaluation.within_prompts import agreement, correlate_within, rank_by_source
from ddpo_lib.evaluation.zero_weights import effective_share, scaled_weights, zero_share
from ddpo_lib.pairs.rules import draw_rows, make_pairs
from ddpo_lib.spaces.counted import stylometric_vectors

SETTINGS = {"draws": 400, "confidence": 0.95, "seed": 0}
LEVEL = {"confidence": 0.95}
DATA = Path(__file__).parents[3] / "shared" / "data"


def real(name: str, prompts: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The first prompts of a real corpus, in the stylometric space and in one that sees only how long a text is."""
    if not (DATA / name).exists():
        pytest.skip("shared/data is not beside the project")
    table = read_corpus(DATA / name)
    table = table[table["prompt_id"].isin(table["prompt_id"].unique()[:prompts])]
    angle = table["text"].str.len().to_numpy() / table["text"].str.len().max()
    return table, {"style": stylometric_vectors(table["text"].tolist()), "length": np.c_[np.cos(angle), np.sin(angle)]}


def cloud(prompts: int, n: int, mean: float, spread: float, dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a common direction: x along it, the rest of their length in a direction of its own."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(mean - spread, mean + spread, (prompts * n, 1))
    rest = rng.normal(size=(prompts * n, dims))
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    return np.hstack([x, np.sqrt(1 - x**2) * rest]), np.arange(prompts).repeat(n)


def reliability_of(mean: float, spread: float, dims: int, others: int) -> float:
    """Of deviation against so many others, for `cloud`.

    Given a panel, the distance of i is 1 - x_i mean(x_j) - rest_i . mean(rest_j). Over responses, what two panels
    share is var(x) E[x]^2; what they do not is, over the panel's size, var(x)^2 + E[1 - x^2]^2 / dims.
    """
    variance = spread**2 / 3
    noise = variance**2 + (1 - mean**2 - variance) ** 2 / dims
    return variance * mean**2 / (variance * mean**2 + noise / others)


# Correlation within prompts


def test_correlation_within_is_the_mean_of_spearmans_rho_over_prompts_that_have_one():
    table = pd.DataFrame(
        [
            *[("a", 1, 10), ("a", 2, 30), ("a", 3, 20)],  # rho 1/2
            *[("b", 9, 1), ("b", 5, 2), ("b", 1, 3), ("b", 4, math.nan)],  # rho -1 of the three complete rows
            *[("two", 1, 2), ("two", 2, 1)],
            *[("constant", 1, 1), ("constant", 2, 1), ("constant", 3, 1)],
            *[("incomplete", 1, math.nan), ("incomplete", 2, 1), ("incomplete", 3, 2)],
        ],
        columns=["prompt_id", "x", "y"],
    )
    rho = correlate_within(table, "x", "y", **LEVEL)
    assert (rho.mean, rho.prompts) == (-0.25, 2)
    assert rho.high - rho.mean == pytest.approx(12.7062 * 0.75, rel=1e-4)  # t at one degree of freedom
    assert correlate_within(table[table["prompt_id"].isin(["two", "constant"])], "x", "y", **LEVEL) is None


@given(st.integers(0, 2**32 - 1), st.integers(4, 9))
def test_partial_correlation_is_that_of_what_a_line_through_the_ranks_leaves(seed, n):
    rng = np.random.default_rng(seed)
    x, y, z = rng.normal(size=(3, n))
    table = pd.DataFrame({"prompt_id": "p", "x": x, "y": y, "z": z})
    ranks = {name: rankdata(table[name]) for name in "xyz"}
    left = {name: ranks[name] - np.polyval(np.polyfit(ranks["z"], ranks[name], 1), ranks["z"]) for name in "xy"}
    rho = correlate_within(table, "x", "y", given="z", **LEVEL)
    if min(np.ptp(left["x"]), np.ptp(left["y"])) < 1e-9:
        assert rho is None  # one of them ranks as z does: nothing is left
    else:
        assert rho.mean == pytest.approx(np.corrcoef(left["x"], left["y"])[0, 1], abs=1e-9)


def test_two_measures_that_share_only_length_are_tied_until_length_is_held_fixed():
    rng = np.random.default_rng(0)
    words = rng.normal(size=4000)
    table = pd.DataFrame({"prompt_id": np.arange(400).repeat(10), "words": words})
    table["x"], table["y"] = words + rng.normal(size=(2, 4000))
    assert correlate_within(table, "x", "y", **LEVEL).low > 0.4
    partial = correlate_within(table, "x", "y", given="words", **LEVEL)
    assert abs(partial.mean) < 4 / math.sqrt(400 * 7)  # a partial rho of 10 has a standard error of about 1/sqrt(7)


def test_three_rows_say_nothing_with_a_third_column_held_fixed():
    table = pd.DataFrame({"prompt_id": "p", "x": [1, 2, 3], "y": [1, 3, 2], "z": [2, 1, 3]})
    assert correlate_within(table, "x", "y", **LEVEL).mean == 0.5
    assert correlate_within(table, "x", "y", given="z", **LEVEL) is None


# Weights at zero


def test_one_space_leaves_one_in_n_at_zero_and_two_independent_ones_as_the_formula_says():
    rng = np.random.default_rng(0)
    vectors, groups = rng.normal(size=(2, 300 * 16, 8)), np.arange(300).repeat(16)
    one = zero_share(vectors[:1], groups, [2, 4, 8, 16, 32], **SETTINGS)
    assert one["n"].tolist() == [2, 4, 8, 16]  # no prompt has 32
    np.testing.assert_allclose(one["share"], [0, 1 / 4, 1 / 8, 1 / 16], atol=1e-12)
    np.testing.assert_allclose(one["formula"], [1 / 2, 1 / 4, 1 / 8, 1 / 16], atol=1e-12)
    both = zero_share(vectors, groups, [4, 8, 16], **SETTINGS)
    np.testing.assert_allclose(both["formula"], [7 / 16, 15 / 64, 31 / 256], atol=1e-12)
    # in a prompt the two lowest are one with chance 1/n; five cuts of a prompt are taken for one at worst
    error = np.sqrt((1 - 1 / both["n"]) / both["n"]) / both["n"] / math.sqrt(300)
    assert (abs(both["share"] - both["formula"]) < 4 * error).all()
    assert ((both["share_low"] < both["share"]) & (both["share"] < both["share_high"])).all()
    same = zero_share([vectors[0], vectors[0]], groups, [4, 8], **SETTINGS)
    np.testing.assert_allclose(same["share"], [1 / 4, 1 / 8], atol=1e-12)


def test_ratio_leaves_none_at_zero_and_identical_responses_neither():
    vectors, groups = np.random.default_rng(0).normal(size=(40, 5)), np.arange(5).repeat(8)
    assert zero_share([vectors], groups, [4, 8], scale="ratio", **SETTINGS)["share"].tolist() == [0, 0]
    assert zero_share([np.ones((40, 5))], groups, [4, 8], **SETTINGS)["share"].tolist() == [0, 0]


def test_winners_at_zero_worked_by_hand():
    """Three alike and one far: in each prompt all but the last are at zero, and scores make the last win or lose."""
    vectors, groups = np.array([[1.0, 0]] * 3 + [[0, 1]]), np.zeros(4, int)
    nothing = math.nan
    for scores, winners, share in (
        ([nothing, nothing, 1, 9], 1, 0),  # the far one wins the only pair
        ([nothing, nothing, 9, 1], 1, 1),
        ([2, 2, 2, 2], 0, nothing),
        ([nothing, nothing, nothing, 5], 0, nothing),
    ):
        row = zero_share([vectors], groups, [4], scores=np.array(scores), cuts=3, **SETTINGS).iloc[0]
        assert (row["share"], row["winners"]) == (0.75, 3 * winners)
        np.testing.assert_equal(row["winners_share"], float(share))
    uneven = zero_share(
        [np.concatenate([vectors] * 2)],
        np.arange(2).repeat(4),
        [4],
        scores=np.array([1.0, 2, nothing, nothing, 1, 2, 3, 4]),
        cuts=200,
        **SETTINGS,
    ).iloc[0]
    # one winner at zero in the first; in the second two winners, one at zero: the far one, best of all, wins its pair
    assert (uneven["winners"], uneven["winners_share"]) == (200 * 3, pytest.approx(2 / 3))


def test_drawing_rows_is_what_making_pairs_does():
    scores = np.array([3.0, math.nan, 9, 1, 1, 14, math.nan])
    table = pd.DataFrame({"prompt_id": "p", "prompt": "p", "response_id": range(7), "text": "t", "score": scores})
    rng = np.random.default_rng([0, *b"p"])
    kept = np.flatnonzero(np.isfinite(scores))
    chosen, rejected = draw_rows(scores[kept], 5, rng)
    pairs = make_pairs(table)
    assert (pairs["chosen_id"].tolist(), pairs["rejected_id"].tolist()) == ([*kept[chosen]], [*kept[rejected]])
    chosen, rejected = draw_rows(scores, 5, np.random.default_rng(0))
    assert set(chosen + rejected) <= set(kept)


# Sources


def test_places_of_sources_worked_by_hand():
    table = pd.DataFrame(
        {
            "prompt_id": ["a"] * 3 + ["b"] * 3 + ["c"] + ["d"] * 2,
            "source": ["x", "y", "y", "x", "y", "z", "x", "x", "y"],
            "d": [0.9, 0.1, 0.2, 0.8, 0.3, 0.3, 0.5, 0.4, np.nan],
        }
    )
    places = dict(rank_by_source(table, "d", **LEVEL))
    # in a: x 1, y the mean of 0 and 1/2; in b: x 1, y and z share 1/4; c, and d without its NaN, are alone
    assert {source: (place.mean, place.prompts) for source, place in places.items()} == {
        "x": (1, 2),
        "y": (0.25, 2),
        "z": (0.25, 1),
    }
    assert next(iter(places)) == "x"


def test_places_of_sources_that_differ_in_nothing_are_a_half():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"prompt_id": np.arange(300).repeat(6), "source": list("abcdef") * 300, "d": rng.random(1800)})
    for _, place in rank_by_source(table, "d", **LEVEL):
        assert abs(place.mean - 0.5) < 4 * math.sqrt(1 / 12 / 300) * 1.2


# Scales of weights


def test_scaled_weights_and_their_effective_share_worked_by_hand():
    table = scaled_weights(np.array([0.2, 0.6, 1.0]), np.zeros(3, int))
    np.testing.assert_allclose(table["minmax"], [0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(table["ratio"], [1 / 3, 1, 5 / 3])
    np.testing.assert_allclose(table["floor"], [0.1, 2.9 / 3, 5.8 / 3])
    assert effective_share(table["minmax"]) == pytest.approx(9 / (3 * 5))
    assert effective_share(np.ones(7)) == 1
    assert effective_share(np.eye(8)[0]) == 1 / 8


@given(st.integers(0, 2**32 - 1))
def test_ratio_and_a_floor_keep_more_responses_at_work_than_minmax(seed):
    rng = np.random.default_rng(seed)
    table = scaled_weights(rng.uniform(0.5, 1, 40), np.arange(5).repeat(8))
    assert effective_share(table["ratio"]) > effective_share(table["floor"]) > effective_share(table["minmax"])


# Agreement of spaces


def test_agreement_worked_by_hand():
    groups = np.zeros(12, int)
    up = np.linspace(0.1, 1.2, 12)
    turned = up.copy()
    turned[[10, 0]] = turned[[0, 10]]  # of the two most deviating, one is least now
    row = agreement({"up": up, "turned": turned}, groups, np.array([0, 5, 10, 11]), **SETTINGS).iloc[0]
    assert (row["first"], row["second"], row["prompts"], row["winners"]) == ("up", "turned", 1, 4)
    assert row["rho"] == pytest.approx(spearmanr(up, turned).statistic)
    assert (row["top"], row["chance"]) == (0.5, 2 / 12)
    assert row["apart"] == 0.5  # rows 0 and 10 are at zero in one space and not in the other


def test_what_chance_sets_apart_worked_by_hand():
    distance = np.array([0.25, 0.5, 0.75])  # weights 0, 1 and 2
    row = agreement({"a": distance, "b": distance}, np.zeros(3, int), np.array([1, 2]), **SETTINGS).iloc[0]
    assert row["apart"] == 0
    assert row["apart_chance"] == pytest.approx(1 / 3)  # 1 and 2 are far from 0, and not from each other


def test_a_space_agrees_with_itself_and_ties_at_the_top_count_as_chance_would_have_it():
    rng = np.random.default_rng(0)
    groups = np.arange(6).repeat(20)
    distance = rng.uniform(size=120)
    winners = np.arange(0, 120, 3)
    row = agreement({"a": distance, "b": distance}, groups, winners, **SETTINGS).iloc[0]
    assert (row["rho"], row["top"], row["apart"]) == (1, 1, 0)
    flat = agreement({"a": distance, "flat": np.full(120, 0.4)}, groups, winners, **SETTINGS).iloc[0]
    assert math.isnan(flat["rho"])
    assert flat["prompts"] == 0
    assert flat["top"] == pytest.approx(flat["chance"]) == 0.1


def test_spaces_of_noise_agree_as_chance_does_and_are_the_same_exchanged():
    rng = np.random.default_rng(1)
    groups = np.arange(200).repeat(25)
    a, b = rng.uniform(size=(2, 5000))
    winners = rng.permutation(5000)[:1000]
    there = agreement({"a": a, "b": b}, groups, winners, **SETTINGS).iloc[0]
    back = agreement({"b": b, "a": a}, groups, winners, **SETTINGS).iloc[0]
    assert there.drop(["first", "second"]).tolist() == back.drop(["first", "second"]).tolist()
    assert there["chance"] == pytest.approx(3 / 25)
    assert abs(there["top"] - 3 / 25) < 4 * math.sqrt(3 * 0.12 * 0.88 / 200) / 3
    assert abs(there["rho"]) < 4 / math.sqrt(200 * 24)
    # of two uniform numbers the lesser is below half the greater half of the time
    assert abs(there["apart"] - 0.5) < 0.1
    assert abs(there["apart"] - there["apart_chance"]) < 4 * math.sqrt(0.25 / 1000)


def test_without_winners_agreement_says_nothing_of_them():
    groups = np.array([0, 0, 0, 1])
    distances = {"a": np.array([0.1, 0.2, 0.3, math.nan]), "b": np.array([0.1, 0.3, 0.2, math.nan])}
    row = agreement(distances, groups, np.array([], int), **SETTINGS).iloc[0]
    assert (row["rho"], row["winners"]) == (0.5, 0)
    assert math.isnan(row["apart"])


# Is deviation real?


def test_noise_alone_gives_no_reliability_and_no_bias():
    """The bound leaves no room for the -1/(2n) or so that panels with distances in common would give."""
    vectors, groups = cloud(prompts=4000, n=8, mean=0, spread=0, dims=30)
    row = split_half(vectors, groups, [8], splits=10, **SETTINGS).iloc[0]
    assert abs(row["r"]) < 0.25 / (2 * 8)
    assert row["r_low"] < 0 < row["r_high"]


@pytest.mark.parametrize("n", [4, 7, 25])
@pytest.mark.parametrize(("mean", "spread", "dims"), [(0.6, 0.3, 40), (0.3, 0.3, 20), (0.9, 0.05, 300)])
def test_known_variances_give_the_reliability_that_follows_from_them(n, mean, spread, dims):
    vectors, groups = cloud(2500, n, mean, spread, dims)
    row = split_half(vectors, groups, [n], splits=5, draws=4000, confidence=0.999, seed=0).iloc[0]
    assert row["r_low"] < reliability_of(mean, spread, dims, (n - 1) // 3) < row["r_high"]
    assert row["reliability_low"] < reliability_of(mean, spread, dims, n - 1) < row["reliability_high"]
    assert row["r_high"] - row["r_low"] < 0.12


def test_what_small_prompts_foretell_is_what_large_ones_show():
    vectors, groups = cloud(600, 31, mean=0.5, spread=0.3, dims=20)
    table = split_half(vectors, groups, [4, 7, 31], splits=10, **SETTINGS).set_index("n")
    small, large = table.loc[7], table.loc[31]
    k = 10 / 2  # a panel of 31 is five of 7
    assert k * small["r"] / (1 + (k - 1) * small["r"]) == pytest.approx(large["r"], abs=0.02)
    assert (table["reliability"].diff().dropna() > 0).all()


def test_the_interval_covers_the_true_reliability_as_often_as_it_says():
    truth = reliability_of(0.5, 0.3, 20, 2)
    rows = [
        split_half(*cloud(80, 7, 0.5, 0.3, 20, seed), [7], splits=3, draws=200, confidence=0.8, seed=0).iloc[0]
        for seed in range(100)
    ]
    covered = sum(row["r_low"] <= truth <= row["r_high"] for row in rows)
    assert abs(covered - 80) < 4 * math.sqrt(100 * 0.8 * 0.2)


def test_identical_responses_have_no_deviation_to_rely_on():
    groups = np.arange(3).repeat(6)
    alike = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32).repeat(6, axis=0)
    row = split_half(alike, groups, [6], **SETTINGS).iloc[0]
    assert row["prompts"] == 0
    assert math.isnan(row["r"])
    assert math.isnan(row["reliability"])
    vectors, real_groups = cloud(50, 6, 0.5, 0.3, 8)
    alone = split_half(vectors, real_groups, [6], **SETTINGS)
    beside = split_half(np.vstack([vectors, alike]), np.concatenate([real_groups, groups + 50]), [6], **SETTINGS)
    pd.testing.assert_frame_equal(alone, beside)


def test_one_response_far_from_all_others_is_found_by_any_panel():
    vectors = np.tile([[1.0, 0]] * 7 + [[0, 1]], (30, 1))
    row = split_half(vectors, np.arange(30).repeat(8), [8], splits=40, **SETTINGS).iloc[0]
    # measured, it is as far from the one panel as from the other; in a panel, it is as far from each that is measured
    assert row["r"] == pytest.approx(1)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_neither_the_order_of_rows_nor_other_prompts_change_what_is_drawn(seed):
    rng = np.random.default_rng(seed)
    vectors, groups = cloud(6, 9, 0.5, 0.3, 5, seed)
    groups = groups * 3 - 7
    scores = rng.integers(0, 12, len(groups)).astype(float)
    order = rng.permutation(len(groups))
    kinds = {
        "split_half": lambda v, g, _: split_half(v, g, [5, 9], **SETTINGS),
        "zero_share": lambda v, g, s: zero_share([v], g, [2, 5, 9], scores=s, **SETTINGS),
    }
    for measure in kinds.values():
        expected = measure(vectors, groups, scores)
        pd.testing.assert_frame_equal(measure(vectors[order], groups[order], scores[order]), expected)
    few = groups < 0
    lone = split_half(vectors[few], groups[few], [9], **SETTINGS).iloc[0]
    scaled = vectors * np.where(few, 1.0, 2.0)[:, None]  # length is nothing to a direction
    short = np.concatenate([np.flatnonzero(few), np.flatnonzero(~few)[:4]])  # a prompt too small to count
    assert split_half(scaled[short], groups[short], [9], **SETTINGS).iloc[0].equals(lone)


def test_sizes_that_cannot_be_had():
    vectors, groups = cloud(5, 6, 0.5, 0.3, 5)
    assert split_half(vectors, groups, [7, 50], **SETTINGS).empty
    with pytest.raises(ValueError, match="expected 4 or more, got 3"):
        split_half(vectors, groups, [3, 6], **SETTINGS)


def test_how_many_responses_are_needed_worked_by_hand():
    """r = 1/3 for a panel of one: deviation against k others has reliability k / (k + 2), 0.7 from k = 14/3 on."""
    row = {"n": 4, "r": 1 / 3, "r_low": 0.0, "r_high": 1.0}
    assert needed(row) == {"needed": 6, "needed_low": 3, "needed_high": math.inf}
    assert needed(row, target=0.5)["needed"] == 3
    # the same responses seen through a panel of five: r = 5/7
    assert needed({"n": 16, "r": 5 / 7, "r_low": 0.5, "r_high": 0.9})["needed"] == 6
    assert needed({"n": 4, "r": math.nan, "r_low": math.nan, "r_high": math.nan})["needed"] == math.inf


# Real corpora


def test_captions_summed_up():
    table, vectors = real("newyorker_captions.jsonl", 25)
    result = collect_findings(table, vectors, draws=200)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result == collect_findings(table, vectors, draws=200)
    assert (result["prompts"], result["responses"]) == (25, len(table))
    groups = np.unique(table["prompt_id"], return_inverse=True)[1]
    distances = {name: mean_distance(space, groups) for name, space in vectors.items()}
    by_hand = table.assign(**distances, words=table["text"].str.split().str.len()).groupby("prompt_id")
    rows = {(row["x"], row["y"], row["given"]): row for row in result["correlations"]}
    for space, y in (("style", "score"), ("length", "words")):
        rhos = [spearmanr(group[space], group[y]).statistic for _, group in by_hand]
        assert rows[space, y, None]["rho"] == pytest.approx(np.mean(rhos))
        assert rows[space, y, None]["prompts"] == 25
    (both,) = result["agreement"]
    assert both["winners"] <= len(table) / 2
    assert both["rho_low"] < both["rho"] < both["rho_high"]
    (lowest,) = [row for row in result["zero_share"] if row["spaces"] == ["style"] and row["n"] == 16]
    assert lowest["share"] == pytest.approx(1 / 16, abs=0.01)
    assert lowest["winners_share_low"] < lowest["winners_share"] < lowest["winners_share_high"]
    minmax = weights(distances["style"], groups)
    assert result["effective_share"]["style"]["minmax"] == pytest.approx(minmax.sum() / (minmax**2).sum())
    style = {row["n"]: row for row in result["reliability"] if row["space"] == "style"}
    assert style[8]["reliability"] < style[16]["reliability"] < style[32]["reliability"]
    assert style[32]["needed_low"] <= style[32]["needed"] <= style[32]["needed_high"]


def test_stories_of_which_one_a_prompt_has_a_score_say_nothing_of_scores():
    table, vectors = real("hanna.jsonl", 96)
    result = collect_findings(table, vectors, draws=200)
    assert (result["prompts"], result["responses"], result["scored"]) == (96, 672, 96)
    for row in result["correlations"]:
        assert (row["rho"] is None) == (row["y"] == "score"), row
        assert row["prompts"] == (0 if row["y"] == "score" else 96)
    assert all(row["winners"] == 0 and row["winners_share"] is None for row in result["zero_share"])
    assert {row["n"] for row in result["zero_share"]} == {2, 4, 7}
    assert [row["apart"] for row in result["agreement"]] == [None]
    assert all(row["r"] is not None for row in result["reliability"])


def test_a_response_alone_is_left_out_and_a_corpus_of_such_has_nothing_to_say():
    table = pd.DataFrame(
        {
            "prompt_id": ["a", "b", "b", "b", "c"],
            "text": ["one", "two", "three", "four five", "six"],
            "score": 1.0,
            "source": "",
        }
    )
    vectors = {"plane": np.array([[1.0, 0], [1, 0], [0, 1], [1, 1], [1, 2]])}
    assert collect_findings(table, vectors, draws=50)["responses"] == 3
    none = collect_findings(table.drop_duplicates("prompt_id"), {"plane": vectors["plane"][[0, 1, 4]]}, draws=50)
    assert (none["prompts"], none["zero_share"], none["reliability"]) == (0, [], [])
