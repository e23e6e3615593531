"""Measures of diversity: worked numbers, laws, real stories, and what the threshold of equivalence tells apart."""

import itertools
import json
import math
import warnings
from functools import partial
from inspect import signature

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rouge_score.rouge_scorer import RougeScorer
from scipy.sparse.csgraph import connected_components

from ddpo_lib.data.corpus import PACKAGE_CORPUS, read_corpus
from ddpo_lib.data.words import choose_tokenizer
from ddpo_lib.measures.diversity import (
    NEAR_COPY,
    distinct_k,
    effective_diversity,
    equivalent,
    pairwise_distance,
    utility_k,
    vendi,
)
from ddpo_lib.measures.lengths import matched_length, truncate
from ddpo_lib.measures.table import MEASURES, measure, measures_of, utilities
from ddpo_lib.measures.word_measures import (
    compression_ratio,
    count_vocabulary,
    distinct_n,
    ead,
    ngram_diversity,
    rouge_l,
    self_bleu,
)
from ddpo_lib.spaces.embed import embed

CATS = ["The cat sat.", "the cat ran!"]  # unigrams: the cat sat ran, of 6; bigrams: the cat, cat sat, cat ran, of 4
MATS = ["The cat sat on the mat.", "The dog sat on a mat.", "a mat"]
OF_TEXTS = {
    "distinct-1": lambda texts, groups: distinct_n(texts, groups, 1),
    "distinct-2": lambda texts, groups: distinct_n(texts, groups, 2),
    "ead-2": lambda texts, groups: ead(texts, groups, 2, 1000),
    "self-bleu": self_bleu,
    "rouge-l": rouge_l,
    "compression": compression_ratio,
    "n-gram": ngram_diversity,
}
every_text_measure = pytest.mark.parametrize("of", OF_TEXTS.values(), ids=OF_TEXTS)
vectors_away_from_zero = arrays(np.float64, (7, 3), elements=st.floats(-5, 5)).map(lambda v: v + np.array([20, 0, 0]))
SEVEN = np.array([4, 4, 4, 1, 1, 4, 1])  # groups of seven rows


def one(found: tuple[np.ndarray, np.ndarray]) -> float:
    """The value of the only group."""
    ids, values = found
    assert ids.tolist() == [0]
    assert values.dtype == np.float64
    return values.item()


def alone(texts_or_vectors) -> np.ndarray:
    """All rows in one group."""
    return np.zeros(len(texts_or_vectors), dtype=int)


def at(*degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


# Distances


def distance(vectors) -> float:
    return one(pairwise_distance(np.asarray(vectors, dtype=np.float32), alone(vectors)))


def test_pairwise_distance_of_worked_groups():
    assert distance([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) == pytest.approx(1)
    assert distance([[2, 1]] * 4) == pytest.approx(0, abs=1e-6)
    assert distance([[1, 0], [-1, 0]]) == pytest.approx(2)
    # right angle, and twice 45 degrees: (1 + 2 * (1 - 0.70710678)) / 3
    assert distance([[1, 0], [0, 1], [1, 1]]) == pytest.approx(0.5285955, abs=1e-6)


@given(vectors_away_from_zero, st.permutations(range(7)))
def test_pairwise_distance_is_the_mean_over_pairs_in_any_order(vectors, order):
    ids, found = pairwise_distance(vectors[order], SEVEN[order])
    assert ids.tolist() == [1, 4]
    for group, value in zip(ids, found, strict=True):
        pairs = itertools.combinations(vectors[group == SEVEN], 2)
        cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in pairs]
        assert value == pytest.approx(1 - np.mean(cosines), abs=1e-9)


def test_a_group_of_one_has_no_diversity():
    with pytest.warns(UserWarning, match="1 of 3 responses are alone"):
        _, found = pairwise_distance(np.eye(3), np.array([0, 0, 1]))
    assert found[0] == pytest.approx(1)
    assert math.isnan(found[1])


# The Vendi score


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (0, 2),
        (0.5, 1 + 2 * math.sqrt(2) / 3),  # (sqrt(2/3) + sqrt(1/3))^2
        (1, 3 / 2 ** (2 / 3)),  # exp(2/3 log 3/2 + 1/3 log 3)
        (2, 9 / 5),  # 1 / (4/9 + 1/9)
        (2000, 1.5 ** (2000 / 1999)),  # (2/3)^2000 is below every float; the other share adds nothing
        (math.inf, 1.5),
    ],
)
def test_vendi_of_two_alike_and_one_at_right_angles(order, expected):
    """Eigenvalues of K / 3: 2/3, 1/3 and 0."""
    assert one(vendi(np.array([[1, 0], [3, 0], [0, 2]]), alone(range(3)), order)) == pytest.approx(expected, rel=1e-9)


@given(vectors_away_from_zero, st.permutations(range(7)))
def test_vendi_counts_from_one_to_n_and_falls_with_the_order(vectors, order):
    orders = [0, 0.3, 1 - 1e-5, 1, 1 + 1e-5, 2, 5, math.inf]
    scores = np.array([vendi(vectors[order], SEVEN[order], q)[1] for q in orders])
    assert (scores >= 1 - 1e-9).all()
    assert (scores <= [3 + 1e-9, 4 + 1e-9]).all()
    assert (np.diff(scores, axis=0) <= 1e-6).all()
    np.testing.assert_allclose(scores[3], vendi(vectors, SEVEN)[1], rtol=1e-6)


@pytest.mark.parametrize("order", [0, 0.5, 1, 2, math.inf])
def test_vendi_of_copies_is_what_it_was_of_one_each(order):
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    once = one(vendi(vectors, alone(vectors), order))
    assert one(vendi(np.tile(vectors, (3, 1)), np.zeros(12, dtype=int), order)) == pytest.approx(once, abs=1e-6)
    assert one(vendi(np.tile(vectors[:1], (5, 1)), np.zeros(5, dtype=int), order)) == pytest.approx(1, abs=1e-6)
    assert one(vendi(np.eye(6), np.zeros(6, dtype=int), order)) == pytest.approx(6)


# Equivalence, distinct-k, utility-k


def test_a_chain_of_near_pairs_is_one_class():
    """0, 30 and 60 degrees: the ends are 60 apart, and each is 30 from the middle; the cosine of 30 is 0.866."""
    vectors = at(0, 60, 30, 180)
    assert equivalent(vectors, alone(vectors), 0.866).tolist() == [0, 0, 0, 3]
    assert equivalent(vectors, alone(vectors), 0.867).tolist() == [0, 1, 2, 3]
    assert equivalent(vectors, alone(vectors), -1).tolist() == [0, 0, 0, 0]
    assert equivalent(vectors, np.arange(4), -1).tolist() == [0, 0, 0, 0]  # each the first of its own group


def test_equal_directions_are_equivalent_at_any_threshold():
    vectors = np.random.default_rng(0).normal(size=(1, 384)).astype(np.float32)
    copies = np.concatenate([vectors * scale for scale in np.float32([1, 0.3, 7])])
    assert equivalent(copies, alone(copies), 1.0).tolist() == [0, 0, 0]


@given(st.integers(0, 10_000), st.floats(-1, 1), st.permutations(range(30)))
@settings(deadline=None, max_examples=50)
def test_classes_are_connected_components_whatever_the_order(seed, threshold, order):
    rng = np.random.default_rng(seed)
    vectors, groups = rng.normal(size=(30, 3)), np.repeat([0, 1], [12, 18])
    classes = np.empty(30, dtype=int)
    classes[order] = equivalent(vectors[order], groups[order], threshold)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for rows in (slice(12), slice(12, 30)):
        _, expected = connected_components(unit[rows] @ unit[rows].T >= threshold - 1e-6)
        pairs = set(zip(classes[rows].tolist(), expected.tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_distinct_k_counts_classes():
    ids, found = distinct_k(np.array([0, 5, 0, 0, 7, 5]), np.array([3, 1, 3, 3, 3, 1]))
    assert ids.tolist() == [1, 3]
    assert found.tolist() == [1.0, 2.0]


def test_utility_k_of_worked_samples():
    """p = 1/2, k = 3: (1/2) / (7/8) = 4/7 of (1 + 0 / 2 + 0.5 / 4), since the second repeats the first."""
    classes, scores = np.array([0, 0, 2]), np.array([1.0, 0.6, 0.5])
    assert one(utility_k(classes, scores, alone(classes), patience=0.5)) == pytest.approx(4 / 7 * 1.125)
    assert one(utility_k(classes, scores, alone(classes), patience=0)) == 1.0  # the first sample alone
    assert one(utility_k(classes, scores, alone(classes), patience=1)) == pytest.approx(0.5)  # (1 + 0 + 0.5) / 3


def test_utility_k_goes_by_the_order_of_samples_and_of_nothing_else():
    """p = 0.8, k = 2, weights 5/9 and 4/9: the better first gives more, and a repetition gives nothing."""
    scores, apart = np.array([0.9, 0.45]), np.array([0, 1])
    assert one(utility_k(apart, scores, alone(apart))) == pytest.approx((5 * 0.9 + 4 * 0.45) / 9)
    assert one(utility_k(apart, scores[::-1], alone(apart))) == pytest.approx((5 * 0.45 + 4 * 0.9) / 9)
    assert one(utility_k(alone(apart), scores, alone(apart))) == pytest.approx(0.5)
    rows = [3, 0, 1, 2]  # another group between
    ids, found = utility_k(
        np.array([0, 1, 0, 0])[rows], np.array([0.9, 0.45, 0.2, 0.1])[rows], np.array([8, 8, 2, 2])[rows]
    )
    assert ids.tolist() == [2, 8]
    assert found == pytest.approx([5 / 9 * 0.1, 0.7])


# Effective diversity


def test_effective_diversity_of_worked_samples():
    """Distances 1, 2 and 1; with the second below the bar only the pair of the others, at 2, is left of three."""
    vectors, scores = at(0, 90, 180), np.array([0.9, 0.2, 0.5])
    assert one(effective_diversity(vectors, scores, alone(scores), bar=0.5)) == pytest.approx(2 / 3)
    assert one(effective_diversity(vectors, scores, alone(scores), bar=0.2)) == pytest.approx(4 / 3)
    assert one(effective_diversity(vectors, scores, alone(scores), bar=0.51)) == 0.0


@given(vectors_away_from_zero, arrays(np.float64, 7, elements=st.floats(-1, 1)), st.permutations(range(7)))
def test_effective_diversity_starts_from_pairwise_distance_and_falls_as_the_bar_rises(vectors, scores, order):
    bars = [-math.inf, -0.5, 0.0, 0.5, 2.0]
    found = np.array([effective_diversity(vectors[order], scores[order], SEVEN[order], bar)[1] for bar in bars])
    np.testing.assert_allclose(found[0], pairwise_distance(vectors, SEVEN)[1], atol=1e-9)
    assert (np.diff(found, axis=0) <= 1e-12).all()
    assert (found[-1] == 0).all()


# Words: worked examples


def test_distinct_n_of_worked_texts():
    assert one(distinct_n(CATS, alone(CATS), 1)) == pytest.approx(4 / 6)
    assert one(distinct_n(CATS, alone(CATS), 2)) == pytest.approx(3 / 4)
    assert one(distinct_n(CATS, alone(CATS), 3)) == 1.0
    assert one(distinct_n(CATS, alone(CATS), 4)) == 0.0  # there is none


def test_words_are_letters_and_digits_with_apostrophes_inside():
    texts = ["Don't — 'stop' at No_7!", "don’t stop AT no 7"]
    assert one(distinct_n(texts, alone(texts), 1)) == pytest.approx(5 / 10)
    assert one(distinct_n(["Čas běží", "čas stojí"], np.zeros(2, dtype=int), 1)) == pytest.approx(3 / 4)


def test_ead_of_worked_texts():
    """4 distinct words of 6, from 8: 8 * (1 - (7/8)^6) = 4.409637 are expected."""
    assert one(ead(CATS, alone(CATS), 1, 8)) == pytest.approx(4 / 4.409637, rel=1e-6)
    assert one(ead(CATS, alone(CATS), 1, 10**9)) == pytest.approx(4 / 6, rel=1e-6)  # none would be drawn twice
    assert one(ead(["hm", "Hm hm"], np.zeros(2, dtype=int), 1, 1)) == 1.0


def test_ngram_diversity_of_worked_texts():
    assert one(ngram_diversity(CATS, alone(CATS))) == pytest.approx(4 / 6 + 3 / 4 + 2 / 2 + 0)


def test_self_bleu_of_worked_texts():
    """3 of 4, 2 of 3, 1 of 2, and 0 of 1, which smoothing makes 1/2: the fourth root of 1/8, for either."""
    texts = ["a b c d", "a b c e"]
    assert one(self_bleu(texts, alone(texts))) == pytest.approx(8 ** (-1 / 4))
    # a b has two orders, 2/2 and 1/1, and is 2 words shorter than the nearest other text: exp(1 - 4/2)
    # the others find a b in it no better than in each other
    texts = [*texts, "a b"]
    assert one(self_bleu(texts, alone(texts))) == pytest.approx((2 * 8 ** (-1 / 4) + math.exp(-1)) / 3)


def test_rouge_l_of_worked_texts():
    """the sat on mat: 2 * 4 / 12; mat: 2 * 1 / 8; a mat: 2 * 2 / 8."""
    assert one(rouge_l(MATS, alone(MATS))) == pytest.approx((2 / 3 + 1 / 4 + 1 / 2) / 3)


def test_rouge_l_leaves_no_text_out():
    """Errata 7: the released code does. Of four one differs, wherever it stands: 3 of 6 pairs are alike."""
    for place in range(4):
        texts = ["one two three"] * 4
        texts[place] = "four five"
        assert one(rouge_l(texts, alone(texts))) == pytest.approx(1 / 2)


def test_compression_ratio_of_worked_texts():
    """ "ab ab" is 5 bytes. gzip: 10 of head, 8 of tail, and 3 + 5 * 8 + 7 bits, which are 7 bytes."""
    assert one(compression_ratio(["ab", "ab"], np.zeros(2, dtype=int))) == pytest.approx(5 / 25)
    # "äb ab" has one byte more, outside the 8-bit codes: ä is two bytes of 9 bits, 3 + 2 * 9 + 4 * 8 + 7 bits
    assert one(compression_ratio(["äb", "ab"], np.zeros(2, dtype=int))) == pytest.approx(6 / 26)


# Words: laws

short_texts = st.lists(st.text("abc dE.é'\n", max_size=20), min_size=6, max_size=6)


@every_text_measure
@given(short_texts, st.permutations(range(6)))
@settings(deadline=None, max_examples=40)
def test_the_order_of_texts_and_of_groups_changes_nothing(of, texts, order):
    groups = np.array([7, 7, 3, 7, 3, 3])
    if "tokenizer" in signature(of).parameters:  # else each call chooses one by its own texts
        of = partial(of, tokenizer=choose_tokenizer(texts))
    ids, found = of(texts, groups)
    assert ids.tolist() == [3, 7]
    again = of([texts[i] for i in order], groups[order])[1]
    np.testing.assert_allclose(again, found, rtol=1e-12)
    np.testing.assert_array_equal(of([texts[i] for i in (0, 1, 3)], np.zeros(3, dtype=int))[1], found[1])


def test_a_text_of_another_script_does_not_change_the_score_of_a_group_with_the_same_tokenizer():
    """Alone, "E" and "E'" are read by sacrebleu's tokenizer; beside "é", all texts are read by script."""
    texts, groups = ["", "E", "E'", "é"], np.array([0, 0, 0, 1])
    apart = {kind: self_bleu(texts[:3], groups[:3], tokenizer=kind)[1][0] for kind in ("published", "unicode")}
    assert apart == {"published": 0, "unicode": 0.5}
    assert [self_bleu(texts[:n], groups[:n])[1][0] for n in (3, 4)] == [0, 0.5]
    for kind, value in apart.items():
        assert self_bleu(texts, groups, tokenizer=kind)[1][0] == value


@given(st.text().filter(str.strip), st.integers(2, 4))
def test_identical_texts_overlap_in_full(text, times):
    texts = [text] * times
    assert one(rouge_l(texts, alone(texts))) == 1.0
    assert one(self_bleu(texts, alone(texts))) == pytest.approx(1.0)


def test_disjoint_texts_do_not_overlap():
    texts = ["one two three four five", "six seven eight nine ten", "Elf zwölf dreizehn vierzehn"]
    assert one(rouge_l(texts, alone(texts))) == one(self_bleu(texts, alone(texts))) == 0.0
    assert one(distinct_n(texts, alone(texts), 2)) == 1.0
    assert one(ngram_diversity(texts, alone(texts))) == 4.0


@given(short_texts)
def test_copies_of_all_texts_halve_the_share_of_distinct_ngrams(texts):
    groups = alone(texts)
    twice = [*texts, *texts], np.zeros(12, dtype=int)
    assert one(distinct_n(*twice, 1)) == pytest.approx(one(distinct_n(texts, groups, 1)) / 2)
    assert one(ngram_diversity(*twice)) == pytest.approx(one(ngram_diversity(texts, groups)) / 2)


@pytest.fixture(scope="module")
def scorer() -> RougeScorer:
    return RougeScorer(["rougeL"])


@given(one=st.text("ab c1.", min_size=1), two=st.text("ab c1.", min_size=1))
def test_rouge_l_is_rouge_scores(scorer, one, two):
    _, found = rouge_l([one, two], np.zeros(2, dtype=int))
    if scorer._tokenizer.tokenize(one) or scorer._tokenizer.tokenize(two):
        assert found == scorer.score(one, two)["rougeL"].fmeasure
    else:
        assert found == (one.strip() == two.strip())


def test_ead_corrects_length_where_words_are_equally_likely():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(1000, size=size)) for size in (50, 50, 2000, 2000)]
    groups = np.array([0, 0, 1, 1])
    short, long = distinct_n(texts, groups, 1)[1]
    assert short > 0.9 > 0.3 > long
    np.testing.assert_allclose(ead(texts, groups, 1, 1000)[1], 1, atol=0.03)


def test_the_vocabulary_is_of_all_texts_and_bounds_every_group():
    assert count_vocabulary([*CATS, *MATS], 1) == 8  # the cat sat ran on mat dog a
    assert count_vocabulary(CATS, 2) == 3
    assert count_vocabulary(["", "!"], 2) == count_vocabulary([], 1) == 1
    with pytest.raises(ValueError, match="vocabulary: got 2, but a group holds 3 distinct 2-grams"):
        ead(CATS, alone(CATS), 2, 2)


# Bad and empty input


def test_blank_texts_have_the_values_that_are_stated():
    blank, some = ["", " \n"], ["", "The cat sat."]
    expected = {"distinct-1": 0, "distinct-2": 0, "ead-2": 0, "self-bleu": 1, "rouge-l": 1, "n-gram": 0}
    for name, value in expected.items():
        assert one(OF_TEXTS[name](blank, alone(blank))) == value, name
    assert math.isnan(one(compression_ratio(blank, alone(blank))))
    assert one(self_bleu(some, alone(some))) == one(rouge_l(some, alone(some))) == 0.0
    assert one(distinct_n(some, alone(some), 1)) == 1.0


def test_texts_without_latin_letters_are_alike_to_rouge_l_if_they_are_the_same():
    assert one(rouge_l(["猫。", " 猫。"], np.zeros(2, dtype=int))) == 1.0
    assert one(rouge_l(["猫。", "犬。"], np.zeros(2, dtype=int))) == 0.0


@every_text_measure
def test_a_group_of_one_is_nan_and_no_group_at_all_is_no_row(of):
    ids, found = of(["a b c", "a b d", "e"], np.array([2, 2, 5]))
    assert ids.tolist() == [2, 5]
    assert np.isnan(found).tolist() == [False, True]
    assert [len(part) for part in of([], np.array([], dtype=int))] == [0, 0]


@every_text_measure
def test_what_is_no_text_is_named(of):
    with pytest.raises(TypeError, match="texts: row 2 is nan, not a string"):
        of(["a", "b", math.nan, None], np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="groups: expected 2 integers"):
        of(["a", "b"], np.zeros(3, dtype=int))


def test_numbers_without_a_meaning_are_named():
    vectors, groups = np.eye(4), np.zeros(4, dtype=int)
    scores = np.array([0.5, math.nan, 0.5, math.inf])
    with pytest.raises(ValueError, match="scores: 2 of 4 are NaN or infinite, the first in row 1"):
        effective_diversity(vectors, scores, groups, bar=0)
    with pytest.raises(ValueError, match="scores: 2 of 4 are NaN or infinite, the first in row 1"):
        utility_k(groups, scores, groups)
    with pytest.raises(ValueError, match=r"scores: row 2 is -0\.1; utilities are in \[0, 1\]"):
        utility_k(groups, np.array([0, 1, -0.1, 2]), groups)
    with pytest.raises(ValueError, match="bar: expected a number"):
        effective_diversity(vectors, np.ones(4), groups, bar=math.nan)
    for call in (vendi, equivalent, lambda v, g: effective_diversity(v, np.ones(4), g, bar=0)):
        with pytest.raises(ValueError, match="vectors: row 2 is zero, or holds NaN"):
            call(vectors * [[1], [1], [0], [1]], groups)
        with pytest.raises(ValueError, match=r"vectors: expected numbers of shape \(n, d\)"):
            call(np.ones(4), groups)
    with pytest.raises(ValueError, match="order: expected 0 or more"):
        vendi(vectors, groups, -1)
    with pytest.raises(ValueError, match="threshold: expected a cosine"):
        equivalent(vectors, groups, 1.5)
    with pytest.raises(ValueError, match="patience: expected a number"):
        utility_k(groups, np.ones(4), groups, patience=1.2)
    with pytest.raises(ValueError, match="n: expected 1 or more"):
        distinct_n(CATS, alone(CATS), 0)


def test_vectors_of_any_length_and_kind_give_what_unit_vectors_give():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(12, 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    groups, scores = np.repeat([0, 1, 2], 4), rng.uniform(size=12)
    stretched = (unit * rng.uniform(0.01, 100, size=(12, 1))).astype(np.float32)
    for of in (pairwise_distance, vendi, lambda v, g: effective_diversity(v, scores, g, bar=0.3)):
        np.testing.assert_allclose(of(stretched, groups)[1], of(unit, groups)[1], rtol=1e-5)
    np.testing.assert_array_equal(equivalent(stretched, groups, 0.5), equivalent(unit, groups, 0.5))


# Length


def test_truncation_keeps_white_space_as_it_stood():
    texts = ["One  two\n\n three four", " one two", "", "one two three \n"]
    assert truncate(texts, 3) == ["One  two\n\n three", " one two", "", "one two three"]
    assert truncate(texts[:1], 1) == ["One"]
    with pytest.raises(ValueError, match="words: expected 1 or more"):
        truncate(texts, 0)


def test_the_matched_length_is_the_shortest_arms_median():
    arms = {"long": ["a b c d e"] * 3, "short": ["a", "a b", "a b c d", "a b c d e f", ""]}
    assert matched_length(arms) == 3  # half-way between 2 and 4; the blank text is passed over
    with pytest.raises(ValueError, match="texts_by_arm: empty has no text"):
        matched_length(arms | {"empty": ["", " "]})
    with pytest.raises(ValueError, match="no arm"):
        matched_length({})


# All of them


def random_samples(rng: np.random.Generator) -> tuple:
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 12))) for _ in range(12)]
    vectors = {space: rng.normal(size=(12, 3)) for space in ("semantic", "style", "delta")}
    return texts, np.repeat([5, 3, 9], 4), vectors, rng.uniform(-1.2, 1.2, 12)


def test_the_table_of_measures_has_a_column_each_and_each_is_its_function():
    texts, groups, vectors, scores = random_samples(np.random.default_rng(0))
    found = measure(texts, groups, vectors, scores, vocabulary=50, bar=0.1, threshold=0.5)
    assert list(found) == ["group", *measures_of(vectors)]
    assert found["group"].tolist() == [3, 5, 9]
    classes = equivalent(vectors["semantic"], groups, 0.5)
    expected = {
        "quality": pd.Series(scores).groupby(groups).mean(),
        "semantic": pairwise_distance(vectors["semantic"], groups)[1],
        "style": pairwise_distance(vectors["style"], groups)[1],
        "delta": pairwise_distance(vectors["delta"], groups)[1],
        "vendi": vendi(vectors["semantic"], groups)[1],
        "distinct-2": distinct_n(texts, groups, 2)[1],
        "ead-2": ead(texts, groups, 2, 50)[1],
        "self-bleu": self_bleu(texts, groups)[1],
        "rouge-l": rouge_l(texts, groups)[1],
        "compression": compression_ratio(texts, groups)[1],
        "n-gram": ngram_diversity(texts, groups)[1],
        "distinct-k": distinct_k(classes, groups)[1],
        "utility-k": utility_k(classes, np.clip((scores + 1) / 2, 0, 1), groups)[1],
        "effective": effective_diversity(vectors["semantic"], scores, groups, 0.1)[1],
    }
    assert list(expected) == list(found)[1:]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def test_only_utility_depends_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    texts, groups, vectors, scores = random_samples(rng)
    order = rng.permutation(12)
    settings = {"vocabulary": 50, "bar": 0.1, "threshold": 0.5}
    found = measure(texts, groups, vectors, scores, **settings)
    again = measure(
        [texts[i] for i in order], groups[order], {s: v[order] for s, v in vectors.items()}, scores[order], **settings
    )
    pd.testing.assert_frame_equal(found.drop(columns="utility-k"), again.drop(columns="utility-k"))
    assert (found["utility-k"] != again["utility-k"]).any()


def test_without_scores_the_measures_that_read_them_are_left_out():
    texts, groups, vectors, scores = random_samples(np.random.default_rng(2))
    found = measure(texts, groups, vectors, vocabulary=50)
    assert set(measures_of(vectors)) - set(found) == {"quality", "utility-k", "effective"}
    with pytest.raises(ValueError, match="bar: needed with scores, but missing"):
        measure(texts, groups, vectors, scores, vocabulary=50)
    with pytest.raises(ValueError, match='vectors: expected the space "semantic", got style'):
        measure(texts, groups, {"style": vectors["style"]}, vocabulary=50)


def test_groups_of_one_are_counted_in_one_warning_and_keep_their_quality():
    texts, _, vectors, scores = random_samples(np.random.default_rng(3))
    groups = np.array([0] * 10 + [1, 2])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = measure(texts, groups, vectors, scores, vocabulary=80, bar=0.0).set_index("group")
    assert [str(warning.message) for warning in said] == ["2 of 3 groups have one sample: no diversity"]
    assert found["quality"].tolist() == pytest.approx([scores[:10].mean(), scores[10], scores[11]])
    assert found.drop(columns="quality").loc[[1, 2]].isna().all(axis=None)
    assert found.loc[0].notna().all()


def test_a_reward_that_fails_is_named():
    texts, groups, vectors, scores = random_samples(np.random.default_rng(4))
    scores[[4, 7]] = math.nan
    with pytest.raises(ValueError, match="scores: 2 of 12 are NaN or infinite, the first in row 4"):
        measure(texts, groups, vectors, scores, vocabulary=50, bar=0.0)


def test_utilities_are_cut_where_a_reward_leaves_its_scale():
    assert utilities(np.array([-1.3, -1, 0, 0.5, 1, 1.2])).tolist() == [0, 0, 0.5, 0.75, 1, 1]


# Real stories


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def hanna() -> pd.DataFrame:
    """The first prompts of HANNA: a row a story, with its prompt, source and text."""
    path = SHARED / "data" / "hanna.jsonl"
    if not path.exists():
        pytest.skip("shared/data is not beside the project")
    posts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:8]]
    return pd.DataFrame([{"prompt": i, **story} for i, post in enumerate(posts) for story in post["responses"]])


def test_every_measure_finds_different_stories_more_diverse_than_copies_and_stays_in_range(hanna):
    """Four stories of each prompt against four copies of its first; the score of all is the same."""
    four = hanna.groupby("prompt").head(4)
    copies = four.groupby("prompt")["text"].transform("first")
    settings = {"vocabulary": count_vocabulary(four["text"].tolist(), 2), "bar": 0.0}
    found = {}
    for name, texts in (("different", four["text"].tolist()), ("copies", copies.tolist())):
        vectors = {"semantic": embed(texts, "minilm"), "style": embed(texts, "stylometric")}
        found[name] = measure(texts, four["prompt"].to_numpy(), vectors, np.full(len(texts), 0.5), **settings)
        for of in MEASURES.values():
            assert found[name][of.name].between(of.range[0] - 1e-9, of.range[1] + 1e-9).all(), of.name
    more = found["different"] - found["copies"]
    for name, of in MEASURES.items():
        if of.diverse is None:
            assert (more[name] == 0).all()
        else:
            assert (more[name] * (1 if of.diverse == "higher" else -1) > 0).all(), name


def test_rouge_l_is_rouge_scores_on_stories(hanna, scorer):
    three = hanna[hanna["prompt"] < 2].groupby("prompt").head(3)
    _, found = rouge_l(three["text"].tolist(), three["prompt"].to_numpy())
    for value, (_, texts) in zip(found, three.groupby("prompt")["text"], strict=True):
        pairs = [scorer.score(a, b)["rougeL"].fmeasure for a, b in itertools.combinations(texts, 2)]
        assert value == np.mean(pairs)


def test_measures_that_reward_short_texts_stop_doing_so_at_matched_length(hanna):
    """The same stories, whole and cut to 100 words: at matched length they are the same texts."""
    whole, short = hanna["text"].tolist(), truncate(hanna["text"].tolist(), 100)
    groups = hanna["prompt"].to_numpy()
    for of in (OF_TEXTS["distinct-2"], ngram_diversity):
        assert (of(short, groups)[1] > of(whole, groups)[1]).all()
    assert (compression_ratio(short, groups)[1] < compression_ratio(whole, groups)[1]).all()
    words = matched_length({"whole": whole, "short": short})
    assert words == 100
    assert truncate(whole, words) == short


# What the threshold of equivalence tells apart, in MiniLM


def without_every_fourth_word(text: str) -> str:
    return " ".join(word for i, word in enumerate(text.split()) if i % 4 != 3)


def sentences_backwards(text: str) -> str:
    return " ".join(part.strip(" .") + "." for part in reversed(text.rstrip(".").split(". ")))


@pytest.fixture(scope="module")
def package_stories() -> pd.DataFrame:
    """16 stories of each of 12 prompts, with the take that each was written for, and their vectors."""
    takes = {}
    for line in PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines():
        post = json.loads(line)
        takes.update(zip(map(str.strip, post["comment_texts"]), post["comment_takes"], strict=True))
    table = read_corpus()
    table = table[table["prompt_id"].isin(table["prompt_id"].unique()[:12])]
    return table.assign(take=table["text"].map(takes), vector=list(embed(table["text"].tolist(), "minilm")))


def cosines_of_pairs(stories: pd.DataFrame) -> pd.DataFrame:
    """A row a pair of stories to one prompt: its cosine, and whether both are of one take."""
    pairs = [pair for _, of in stories.groupby("prompt_id") for pair in itertools.combinations(of.itertuples(), 2)]
    rows = [(a.vector @ b.vector, a.take == b.take) for a, b in pairs]
    return pd.DataFrame(rows, columns=["cosine", "same_take"])


def test_no_two_stories_of_the_corpus_are_near_copies(package_stories):
    groups = pd.factorize(package_stories["prompt_id"])[0]
    classes = equivalent(np.stack(package_stories["vector"]), groups)
    assert (distinct_k(classes, groups)[1] == 16).all()


@pytest.mark.parametrize(("alter", "found"), [(without_every_fourth_word, 0.9), (sentences_backwards, 0.95)])
def test_altered_copies_of_a_story_are_found(package_stories, alter, found):
    some = package_stories[::3]
    altered = embed([alter(text) for text in some["text"]], "minilm")
    assert (np.vecdot(np.stack(some["vector"]), altered) >= NEAR_COPY).mean() >= found


def test_no_threshold_finds_two_tellings_of_one_take(package_stories):
    """MiniLM's cosine hardly knows them from two takes, so that distinct-k counts near copies, not ideas."""
    pairs = cosines_of_pairs(package_stories)
    same, other = (pairs.loc[pairs["same_take"] == kind, "cosine"].to_numpy() for kind in (True, False))
    assert len(same) > 200
    balanced = [((same >= at).mean() + (other < at).mean()) / 2 for at in np.linspace(0, 1, 101)]
    assert max(balanced) < 0.6
    assert (same >= NEAR_COPY).mean() == 0


def test_few_different_long_stories_to_one_prompt_are_taken_for_copies(hanna):
    vectors = embed(hanna["text"].tolist(), "minilm").astype(np.float64)
    pairs = [pair for rows in hanna.groupby("prompt").indices.values() for pair in itertools.combinations(rows, 2)]
    cosines = np.array([vectors[i] @ vectors[j] for i, j in pairs])
    assert (cosines >= NEAR_COPY).mean() < 0.06
