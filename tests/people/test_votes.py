"""Win rates, agreement, side bias and chance of detection, by hand and from simulated studies of known truth."""

import json
import math
import re
from fractions import Fraction

import krippendorff
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from ddpo_lib.base.errors import InputError
from ddpo_lib.people.agreement import alpha, alpha_interval, majority
from ddpo_lib.people.simulated_votes import ALIKE, assign, simulate, simulate_choices
from ddpo_lib.people.two_way_intervals import Spread, crossed_ratio, detection_chance, needed_items, variance_shares
from ddpo_lib.people.vote_report import describe
from ddpo_lib.people.votes import analyse, exact
from ddpo_lib.runs.pipeline import open_run

SETTINGS = {"draws": 500, "confidence": 0.95, "seed": 0}
STUDIES = 4000
CODES = {"f": "first", "s": "second", "t": "tie"}


def answers(quality: dict[str, str], diversity: dict[str, str] | None = None, **columns) -> pd.DataFrame:
    """By annotator a letter an item: f first, s second, t tie, - no answer. The first arm stands left on even items."""
    rows = []
    for annotator, letters in quality.items():
        for i, letter in enumerate(letters):
            if letter == "-":
                continue
            votes = {"quality": CODES[letter], "diversity": CODES[(diversity or quality)[annotator][i]]}
            side = "left" if i % 2 == 0 else "right"
            other = {"left": "right", "right": "left"}[side]
            sides = {f"{q}_side": {"first": side, "second": other, "tie": "tie"}[vote] for q, vote in votes.items()}
            row = {"item": f"i{i:02d}", "prompt_id": f"p{i}", "annotator": annotator, "first_side": side}
            rows.append(row | votes | sides | {"story": 1, "seconds": math.nan, "attention": False, "passed": pd.NA})
    return pd.DataFrame(rows).assign(**columns)


# Intervals over items and annotators


def crossed(values: np.ndarray, wholes=1.0, items=None, annotators=None, confidence=0.95):
    numbers = np.arange(np.shape(values)[-1])
    items, annotators = (numbers if codes is None else codes for codes in (items, annotators))
    return crossed_ratio(values, wholes, items, annotators, confidence=confidence)


def test_labels_of_their_own_give_the_interval_of_a_share_with_the_unbiased_variance():
    values = np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 1.0])
    found = crossed(values)
    number = 0.21 / (values.var(ddof=1) / 10)  # 9: labels with that variance of the mean
    edge = 2.262157**2 / number
    half = math.sqrt(edge * (0.21 + edge / 4))
    assert [found.low, found.high] == pytest.approx(
        [(0.7 + edge / 2 + s * half) / (1 + edge) for s in (-1, 1)], abs=1e-6
    )


def test_labels_that_are_given_three_times_count_once():
    values = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1.0])
    items = np.repeat(np.arange(10), 3)
    once = crossed(values, annotators=np.arange(10))
    thrice = crossed(np.repeat(values, 3), items=items, annotators=np.arange(30))
    assert [float(x) for x in thrice] == pytest.approx([float(x) for x in once])
    by_annotator = crossed(np.repeat(values, 3), items=np.arange(30), annotators=items)
    assert [float(x) for x in by_annotator] == pytest.approx([float(x) for x in once])


def test_one_busy_annotator_does_not_pass_for_many():
    """Two annotators who label every item and five with 20 each, who differ."""
    annotators = np.repeat(np.arange(7), [100, 100, 20, 20, 20, 20, 20])
    items = np.tile(np.arange(100), 3)
    choices = simulate_choices(0.62, 0.26, items, annotators, spread=Spread(0.3, 0.1), studies=STUDIES, seed=1)
    found = crossed((1 + choices) / 2, items=items, annotators=annotators)
    assert 0.93 <= ((found.low <= 0.68) & (found.high >= 0.68)).mean() <= 0.97
    over_items = crossed((1 + choices) / 2, items=items, annotators=np.zeros(300))
    assert ((over_items.low <= 0.68) & (over_items.high >= 0.68)).mean() < 0.8


def test_p_is_small_where_the_interval_leaves_a_half_out_and_nowhere_else():
    items, annotators = assign(40, 3, 20, seed=0)
    choices = simulate_choices(0.55, 0.35, items, annotators, spread=Spread(0.3, 0.1), studies=500, seed=1)
    found = crossed((1 + choices) / 2, items=items, annotators=annotators)
    outside = (found.low > 0.5) | (found.high < 0.5)
    assert 0.05 < outside.mean() < 0.8
    assert ((found.p < 0.05) == outside).all()


def test_where_all_labels_are_alike_the_interval_is_that_of_so_many_items():
    items, annotators = assign(100, 3, 25, seed=0)
    found = crossed(np.ones(300), items=items, annotators=annotators)
    assert found.mean == 1
    assert found.high == pytest.approx(1)
    assert found.low == pytest.approx(1 / (1 + 2.200985**2 / 100), abs=1e-6)  # Student's t with 11 degrees of freedom
    assert found.p < 0.001


def test_one_item_gives_no_interval_and_one_annotator_gives_one_over_items():
    assert np.isnan(crossed(np.array([1, 0, 1.0]), items=np.zeros(3)).low)
    values = np.array([1, 1, 0, 1, 0, 1.0])
    assert crossed(values, annotators=np.zeros(6)).low == pytest.approx(crossed(values).low)


def test_ties_alone_and_items_that_are_all_alike_are_no_certainty():
    """An interval of no width would say that the next item is a tie too."""
    ties = crossed(np.full(30, 0.5), items=np.repeat(np.arange(10), 3), annotators=np.tile(np.arange(3), 10))
    both_orders = crossed(np.tile([1.0, 0.0], 10), items=np.repeat(np.arange(10), 2), annotators=np.zeros(20))
    edge = 2.262157**2 / 10  # Student's t with 9 degrees of freedom; ten items
    half = math.sqrt(edge * (0.25 + edge / 4)) / (1 + edge)
    assert (both_orders.high - both_orders.low) / 2 == pytest.approx(half, abs=1e-6)
    assert both_orders.p == ties.p == 1
    assert ties.low < 0.5 - half  # three annotators are fewer still
    assert ties.high == pytest.approx(1 - ties.low)


@pytest.mark.parametrize("spread", [ALIKE, Spread(0.3, 0.0), Spread(0.3, 0.1), Spread(0.3, 0.3)], ids=str)
@pytest.mark.parametrize("rates", [(0.62, 0.26), (0.45, 0.45), (0.3, 0.3)], ids=str)
def test_crossed_intervals_hold_the_truth_in_95_of_100_studies(rates, spread):
    """Studies of the paper's size."""
    items, annotators = assign(100, 3, 25, seed=2)
    choices = simulate_choices(*rates, items, annotators, spread=spread, studies=STUDIES, seed=3)
    first, second = rates
    codes = {"items": items, "annotators": annotators}
    for parts, wholes, truth in (
        (choices == 1, 1.0, first),
        (choices == -1, 1.0, second),
        ((1 + choices) / 2, 1.0, (1 + first - second) / 2),
        (choices == 1, choices != 0, first / (first + second)),
    ):
        found = crossed(parts, wholes, **codes)
        assert 0.93 <= ((found.low <= truth) & (truth <= found.high)).mean() <= 0.97


def test_labels_counted_as_independent_give_intervals_that_are_too_narrow():
    items, annotators = assign(100, 3, 25, seed=2)
    choices = simulate_choices(0.45, 0.45, items, annotators, spread=Spread(0.3, 0.1), studies=300, seed=3)
    found = [exact(int((c == 1).sum()), int((c == -1).sum()), 0, confidence=0.95) for c in choices]
    assert np.mean([one["low"] <= 0.5 <= one["high"] for one in found]) < 0.85


def test_exact_intervals_of_independent_labels_hold_the_truth_at_least_as_often_as_they_say():
    wins = np.random.default_rng(4).binomial(60, 0.62, STUDIES)
    found = {k: exact(int(k), 60 - int(k), 0, confidence=0.95) for k in np.unique(wins)}
    assert np.mean([found[k]["low"] <= 0.62 <= found[k]["high"] for k in wins]) >= 0.95


# Variance shares and chance of detection


def test_variance_shares_find_what_was_put_in():
    items, annotators = assign(10_000, 3, 25, seed=0)
    rng = np.random.default_rng(5)
    parts = [rng.standard_normal(codes.max() + 1)[codes] for codes in (items, annotators)]
    values = math.sqrt(0.3) * parts[0] + math.sqrt(0.1) * parts[1] + math.sqrt(0.6) * rng.standard_normal(len(items))
    assert variance_shares(values, items, annotators) == pytest.approx((0.3, 0.1), abs=0.03)
    assert variance_shares(rng.standard_normal(len(items)), items, annotators) == pytest.approx((0, 0), abs=0.03)


def test_variance_shares_are_right_on_average_where_there_are_few_annotators():
    items, annotators = assign(60, 3, 20, seed=0)
    rng = np.random.default_rng(6)
    found = []
    for _ in range(400):
        parts = [rng.standard_normal(codes.max() + 1)[codes] for codes in (items, annotators)]
        values = math.sqrt(0.4) * parts[0] + math.sqrt(0.3) * parts[1] + math.sqrt(0.3) * rng.standard_normal(180)
        found.append(variance_shares(values, items, annotators))
    assert np.mean(found, axis=0) == pytest.approx((0.4, 0.3), abs=0.05)


@pytest.mark.parametrize(
    ("rates", "design", "spread"),
    [
        ((0.55, 0.35), (100, 3, 25), Spread(0.3, 0.1)),
        ((0.5, 0.3), (60, 1, 10), Spread(0.2, 0.1)),
        ((0.62, 0.26), (40, 5, 20), Spread(0.4, 0.05)),
        ((0.5, 0.5), (100, 3, 25), Spread(0.3, 0.1)),
    ],
    ids=str,
)
def test_the_chance_of_detection_is_the_share_of_simulated_studies_that_tell_the_arms_apart(rates, design, spread):
    items, annotators = assign(*design, seed=0)
    choices = simulate_choices(*rates, items, annotators, spread=spread, studies=2000, seed=7)
    scores = (1 + choices) / 2
    seen = (crossed(scores, items=items, annotators=annotators).p < 0.05).mean()
    # the shares of a score that is cut in three are below those of what is latent: measured on one large study
    large = assign(4000, *design[1:], seed=1)
    (many,) = simulate_choices(*rates, *large, spread=spread, seed=8)
    shares = variance_shares((1 + many) / 2, *large)
    number, labels, load = design
    planned = detection_chance(*rates, shares, items=number, labels=labels, per_annotator=load, confidence=0.95)
    assert planned == pytest.approx(seen, abs=0.06)


def test_needed_items_are_the_fewest_with_a_chance_of_80_percent():
    design = {"labels": 3, "per_annotator": 25, "confidence": 0.95}
    spread = Spread(0.2, 0.05)
    needed = needed_items(0.55, 0.35, spread, **design)
    at = [detection_chance(0.55, 0.35, spread, items=number, **design) for number in (needed - 1, needed)]
    assert at[0] < 0.8 <= at[1]
    more = needed_items(0.55, 0.35, Spread(0.5, 0.05), **design)
    assert more > needed
    assert needed_items(0.4, 0.4, spread, **design) is None


@pytest.mark.parametrize("people", [1, 2, 12])
def test_labels_that_are_all_alike_are_detected_where_the_test_finds_them_and_nowhere_else(people):
    for number in (2, 5, 6, 7, 50, 100):
        annotators = np.arange(3 * number) % people
        found = crossed(np.ones(3 * number), items=np.repeat(np.arange(number), 3), annotators=annotators)
        load = np.inf if people == 1 else 3 * number / people
        had = detection_chance(1.0, 0.0, Spread(0, 0), items=number, labels=3, per_annotator=load, confidence=0.95)
        assert bool(had) == bool(found.p < 0.05), number
    assert detection_chance(0.0, 0.0, Spread(0, 0), items=10**4, labels=3, per_annotator=25, confidence=0.95) == 0


# Agreement


def test_alpha_of_krippendorffs_own_example():
    """Krippendorff (2011): four observers, twelve units, some missing; nominal alpha 0.743."""
    labels = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    counts = np.array([[unit.count(kind) for kind in "12345"] for unit in labels])
    assert alpha(counts) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_that_of_the_package_krippendorff(seed):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(3, [0.5, 0.3, 0.2], 40) * (rng.random((40, 1)) < 0.9) + rng.integers(0, 2, (40, 3))
    expected = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert alpha(counts) == pytest.approx(expected)


def test_alpha_worked_by_hand_and_at_its_ends():
    # two items, two labels each: aa, ab. Observed: (0 + 2) of 4; expected: 2 * 3 * 1 / (4 * 3)
    assert alpha(np.array([[2, 0], [1, 1]])) == pytest.approx(1 - 0.5 / 0.5)
    assert alpha(np.array([[3, 0], [0, 3]])) == 1
    assert alpha(np.array([[2, 2]] * 500)) == pytest.approx(-1 / 3, abs=0.002)
    assert math.isnan(alpha(np.array([[3, 0], [3, 0]])))
    assert math.isnan(alpha(np.array([[1, 0], [0, 1]])))


def test_the_interval_of_alpha_narrows_with_items_and_holds_the_estimate():
    rng = np.random.default_rng(0)
    counts = np.where(rng.random((400, 1)) < 0.5, [[2, 1, 0]], [[0, 1, 2]])
    wide, narrow = (alpha_interval(counts[:n], draws=500, confidence=0.95, seed=0) for n in (30, 400))
    for found in (wide, narrow):
        assert found["low"] < found["mean"] < found["high"]
    assert narrow["high"] - narrow["low"] < 0.5 * (wide["high"] - wide["low"])
    assert math.isnan(alpha_interval(counts[:1], draws=500, confidence=0.95, seed=0)["low"])


def test_a_majority_is_more_than_half_of_all_labels():
    table = answers({"a": "fffst-", "b": "ffstts", "c": "fst---"})
    assert majority(table, "quality").tolist() == [1, 1, 0, 0, 0, -1]
    assert majority(answers({"a": "t", "b": "t", "c": "f"}), "quality").tolist() == [0]


# The analysis


def test_exact_tests_worked_by_hand():
    found = exact(8, 1, 1, confidence=0.95)
    assert found["mean"] == pytest.approx(8 / 9)
    assert found["p"] == pytest.approx(2 * (1 + 9) / 2**9)
    assert found["p_half"] == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # 8.5 of 10 is taken as 8
    assert exact(0, 0, 4, confidence=0.95)["mean"] is None
    assert exact(0, 0, 4, confidence=0.95)["p_half"] == 1
    assert exact(10, 0, 0, confidence=0.95)["low"] == pytest.approx(0.025 ** (1 / 10))


@pytest.mark.parametrize(("first", "second", "ties"), [(68, 24, 8), (62, 26, 12), (100, 0, 0), (0, 7, 1)])
def test_the_papers_counts_by_the_definitions(first, second, ties):
    """p: twice the larger tail, which the coin makes exact; ends: where either tail has 2.5%."""
    found, n = exact(first, second, ties, confidence=0.95), first + second

    def tail(most: int, number: int) -> Fraction:
        return Fraction(sum(math.comb(number, k) for k in range(most, number + 1)), 2**number)

    half = max(first, second) + ties // 2
    assert found["p"] == pytest.approx(float(min(1, 2 * tail(max(first, second), n))))
    assert found["p_half"] == pytest.approx(float(min(1, 2 * tail(half, n + ties))))

    def at_least(k: int, rate: float) -> float:
        return sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k, n + 1))

    assert found["mean"] == first / n
    assert at_least(first, found["low"]) == pytest.approx(0.025 if first else 1)
    assert at_least(first + 1, found["high"]) == pytest.approx(0.975 if second else 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "quality",
    [
        {"a": "f"},
        {"a": "t"},
        {"a": "f", "b": "s", "c": "t"},
        {"a": "fffff"},
        {"a": "tttt", "b": "tttt"},
        {"a": "ffff", "b": "ffff", "c": "ffff"},
        {"a": "ssss", "b": "ssss"},
        {"a": "fs--", "b": "--ft"},
        {"a": "f-", "b": "-s"},
    ],
    ids=str,
)
def test_the_smallest_and_the_plainest_studies_are_analysed_and_told(quality):
    found = analyse(answers(quality), **SETTINGS)
    json.dumps(found, allow_nan=False)
    said = describe(found)
    assert not re.search(r"\b(nan|None|inf)\b", said)
    assert "attention checks: 0 of 0 failed" in said
    assert "time:" not in said
    for question in ("quality", "diversity"):
        score = found[question]["score"]
        assert score["low"] is None or score["low"] < score["high"]
        assert score["p"] is None or (score["p"] < 0.05) == (not score["low"] <= 0.5 <= score["high"])


def test_the_analysis_of_a_small_study():
    table = answers(
        {"a": "ffffffffst", "b": "ffffffsfst", "c": "fffffsffst"}, {"a": "f" * 10, "b": "f" * 10, "c": "s" * 10}
    )
    found = analyse(table, **SETTINGS)
    quality = found["quality"]
    assert (found["answers"], len(found["items"]), found["prompts"]) == (30, 10, 10)
    assert {kind: quality[kind]["mean"] * 30 for kind in CODES.values()} == pytest.approx(
        {"first": 22, "second": 5, "tie": 3}
    )
    assert quality["score"]["mean"] == pytest.approx(23.5 / 30)
    assert (quality["labels"]["first"], quality["labels"]["second"], quality["labels"]["ties"]) == (22, 5, 3)
    assert quality["labels"]["p"] == pytest.approx(binomtest(22, 27).pvalue)
    assert quality["labels"]["p_half"] == pytest.approx(binomtest(23, 30).pvalue)
    assert (quality["items"]["first"], quality["items"]["second"], quality["items"]["ties"]) == (8, 1, 1)
    assert quality["agreement"]["unanimous"] == 8
    assert quality["agreement"]["majority"] == 2
    assert quality["agreement"]["pairs"] == pytest.approx((8 + 2 / 3) / 10)
    assert found["diversity"]["agreement"]["alpha"]["mean"] < 0
    by_name = {one["annotator"]: one for one in found["annotators"]}
    assert by_name["a"]["quality"] == {"first": 8, "second": 1, "ties": 1}
    assert by_name["c"]["without"]["diversity"] == 1
    assert found["items"][6]["quality"] == {"first": 2, "second": 1, "ties": 0, "agreement": pytest.approx(1 / 3)}
    assert found["time"]["median"] is None
    assert found["attentive"] is None
    json.dumps(found, allow_nan=False)


def test_p_is_corrected_over_the_two_questions_for_each_test():
    found = analyse(simulate(items=60, seed=3), **SETTINGS)
    for part, p in (
        ("score", "p"),
        ("wins", "p"),
        ("labels", "p"),
        ("labels", "p_half"),
        ("items", "p"),
        ("items", "p_half"),
    ):
        raw = [found[question][part][p] for question in ("quality", "diversity")]
        corrected = [found[question][part][f"{p}_corrected"] for question in ("quality", "diversity")]
        assert min(corrected) == pytest.approx(min(1, 2 * min(raw)))
        assert max(corrected) == pytest.approx(max(max(raw), 2 * min(raw)))


def test_swapping_the_arms_swaps_the_results():
    table = simulate(items=50, seed=4)
    swapped = table.replace({q: {"first": "second", "second": "first"} for q in ("quality", "diversity")})
    swapped["first_side"] = swapped["first_side"].map({"left": "right", "right": "left"})
    one, other = (analyse(t, **SETTINGS) for t in (table, swapped))
    for question in ("quality", "diversity"):
        assert one[question]["first"] == pytest.approx(other[question]["second"])
        assert one[question]["score"]["low"] == pytest.approx(1 - other[question]["score"]["high"])
        assert one[question]["score"]["p"] == pytest.approx(other[question]["score"]["p"])
        assert one[question]["side"]["left"] == pytest.approx(other[question]["side"]["left"])
        assert one[question]["agreement"]["alpha"] == pytest.approx(other[question]["agreement"]["alpha"])


def test_neither_the_order_of_rows_nor_names_matter():
    table = simulate(items=40, seed=5)
    other = table.sample(frac=1, random_state=1)
    other["annotator"] = "x" + other["annotator"]
    one, shuffled = (analyse(t, **SETTINGS) for t in (table, other))
    for question in ("quality", "diversity"):
        for part in ("first", "score", "wins", "labels", "items"):
            assert one[question][part] == pytest.approx(shuffled[question][part])
        assert one[question]["agreement"]["alpha"] == pytest.approx(shuffled[question]["agreement"]["alpha"])


def test_a_side_is_found_where_there_is_a_bias_and_an_arm_that_always_wins_is_none():
    found = analyse(simulate(items=200, quality=(0.45, 0.45), diversity=(1.0, 0.0), side=0.5, seed=6), **SETTINGS)
    biased, lead = found["quality"]["side"], found["diversity"]["side"]
    assert biased["left"]["low"] > 0.5
    assert biased["left"]["p"] < 0.001
    assert biased["first_left"] > biased["first_right"] + 0.2
    assert lead["left"]["low"] < 0.5 < lead["left"]["high"]
    assert lead["first_left"] == lead["first_right"] == 1


def test_attention_checks_count_in_no_result_and_those_who_fail_are_left_out_once_more():
    table = answers({"a": "ffff", "b": "ffsf", "c": "ssss"})
    checks = answers({"a": "f", "b": "f", "c": "f"}, item="check", prompt_id="check", attention=True)
    checks["passed"] = pd.array([True, True, False], dtype="boolean")
    checks["quality"] = "tie"
    found = analyse(pd.concat([table, checks], ignore_index=True), **SETTINGS)
    assert (found["answers"], len(found["items"])) == (12, 4)
    assert found["attention"] == {"checks": 3, "failed": 1, "annotators": ["c"]}
    assert found["attentive"]["left_out"] == ["c"]
    assert found["quality"]["labels"]["second"] == 5
    assert found["attentive"]["quality"]["labels"]["second"] == 1
    assert found["attentive"]["quality"]["score"]["mean"] == pytest.approx(7 / 8)
    assert [one["failed"] for one in found["annotators"]] == [0, 0, 1]
    assert "without c" in describe(found)
    with pytest.raises(InputError, match="3 rows, and no complete answer to a real item"):
        analyse(checks, **SETTINGS)


def test_answers_under_a_third_of_the_median_time_are_counted_as_fast():
    table = answers({"a": "ffff", "b": "ffsf"}, seconds=[60.0, 60, 60, 60, 60, 80, 19, 21])
    found = analyse(table, **SETTINGS)
    assert found["time"] == {"median": 60, "low": 50.25, "high": 60, "known": 8, "fast": 1, "bar": 20}
    assert [one["fast"] for one in found["annotators"]] == [0, 1]


def test_a_judge_that_was_asked_twice_an_item_is_one_annotator():
    once = answers({"judge": "ffffsffstf"})
    found = analyse(pd.concat([once, once], ignore_index=True), **SETTINGS)
    single = analyse(once, **SETTINGS)
    assert found["quality"]["score"] == pytest.approx(single["quality"]["score"])
    assert found["quality"]["agreement"]["alpha"]["mean"] == 1
    assert single["quality"]["agreement"]["alpha"]["mean"] is None


# Simulated annotators


@pytest.mark.parametrize("design", [(100, 3, 25), (20, 3, 20), (30, 2, 13), (7, 5, 4)], ids=str)
def test_every_item_gets_its_labels_and_no_annotator_the_same_item_twice(design):
    items, annotators = assign(*design, seed=1)
    assert (np.bincount(items) == design[1]).all()
    assert (np.bincount(annotators)[:-1] == design[2]).all()
    assert len(set(zip(items.tolist(), annotators.tolist(), strict=True))) == len(items)


@pytest.mark.parametrize("side", [0.0, 0.6])
def test_simulated_labels_have_the_rates_and_the_spread_that_were_asked_for(side):
    items, annotators = assign(20_000, 2, 4, seed=0)
    left = (np.random.default_rng(1).random(20_000) < 0.5)[items]
    asked = {"spread": Spread(0.5, 0.2), "left": left, "side": side}
    (choices,) = simulate_choices(0.6, 0.3, items, annotators, **asked, seed=2)
    assert (choices == 1).mean() == pytest.approx(0.6, abs=0.015)
    assert (choices == -1).mean() == pytest.approx(0.3, abs=0.015)
    lead = (choices[left] == 1).mean() - (choices[~left] == 1).mean()
    assert (abs(lead) < 0.03) if side == 0 else (lead > 0.3)
    item, annotator = variance_shares(choices, items, annotators)
    assert 0.25 < item < 0.6
    assert 0.08 < annotator < 0.25


def test_a_simulated_table_is_consistent_in_itself():
    table = simulate(items=30, seed=7)
    for question in ("quality", "diversity"):
        decided = table[table[question] != "tie"]
        at_first = decided[f"{question}_side"] == decided["first_side"]
        assert (at_first == (decided[question] == "first")).all()
        assert ((table[question] == "tie") == (table[f"{question}_side"] == "tie")).all()
    assert (table["story"].isna() == (table["quality"] == "tie")).all()
    known = table.dropna(subset=["story"])
    assert ((known["story"] <= 4) == (known["quality_side"] == "left")).all()
    assert known["story"].between(1, 8).all()


# The chapter


def test_answers_that_arrive_in_a_run_make_the_chapter_on_people_stale_and_nothing_else_but_the_book(tmp_path):
    def keys() -> dict[str, str]:
        run = open_run("smoke", folder=tmp_path)
        return {name: run.key(name) for name in run.steps}

    before = keys()
    study = tmp_path / "smoke" / "annotations" / "pilot"
    study.mkdir(parents=True)
    (study / "key.json").write_text("{}")
    changed = {"chapter-05-human-eval", "book"}
    asked = keys()
    assert {name for name in before if before[name] != asked[name]} == changed
    for name in ("study/annotation_output/ann/user_state.json", "judge-reader.parquet"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("{}")
        then, asked = asked, keys()
        assert {step for step in then if then[step] != asked[step]} == changed, name
    for name in ("potato.log", "pages/a.html", "study/annotation_output/ann/annotation_history.jsonl", "judge-x.jsonl"):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("{}")
    assert keys() == asked  # what Potato writes as well
