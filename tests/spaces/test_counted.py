"""Counted spaces: how far apart two texts lie does not depend on how much of them there is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.spaces.counted import OWN, Attenuation, _level
from ddpo_lib.spaces.embed import COUNTED

DATA = Path(__file__).parents[3] / "shared" / "data"


def words_of(text: str, count: int, start: int = 0) -> str:
    """Some of a text's words in a row, with the white space between them."""
    spans = [match.span() for match in re.finditer(r"\S+", text)][start : start + max(1, count)]
    return text[spans[0][0] : spans[-1][1]]


def first(text: str, share: float, rng: np.random.Generator) -> str:
    return words_of(text, int(len(text.split()) * share))


def anywhere(text: str, share: float, rng: np.random.Generator) -> str:
    words = len(text.split())
    count = int(words * share)
    return words_of(text, count, int(rng.integers(0, words - count + 1)))


def read_stories(name: str, least: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of at least so many words, and the prompt and source of each."""
    file = DATA / name
    if not file.exists():
        pytest.skip(f"{file} is not here")
    found = []
    for prompt, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        for response in json.loads(line)["responses"]:
            if len(response["text"].split()) >= least:
                found.append((response["text"], prompt, response["source"]))
    texts, prompts, sources = zip(*found, strict=True)
    return list(texts), np.array(prompts), np.array(sources)


@pytest.fixture(scope="module")
def hanna() -> tuple[list[str], np.ndarray, np.ndarray]:
    return read_stories("hanna.jsonl", 200)


@pytest.mark.parametrize("space", list(COUNTED))
def test_halves_and_quarters_of_real_stories_lie_as_far_apart_as_the_whole(hanna, space):
    texts, prompts, _ = hanna
    rng = np.random.default_rng(0)
    whole = mean_distance(COUNTED[space](texts), prompts).mean()
    for part in (first, anywhere):
        for share in (1 / 2, 1 / 4):
            cut = COUNTED[space]([part(text, share, rng) for text in texts])
            assert mean_distance(cut, prompts).mean() == pytest.approx(whole, abs=0.01), (part.__name__, share)


@pytest.mark.parametrize("space", list(COUNTED))
def test_in_a_prompt_of_whole_and_cut_stories_the_cut_ones_lie_no_further_out(hanna, space):
    texts, prompts, _ = hanna
    rng = np.random.default_rng(0)
    share = np.array([1, 1 / 2, 1 / 4])[rng.integers(0, 3, len(texts))]
    mixed = [anywhere(text, of, rng) for text, of in zip(texts, share, strict=True)]
    outward = mean_distance(COUNTED[space](mixed), prompts) - mean_distance(COUNTED[space](texts), prompts)
    assert outward[share == 1 / 4].mean() == pytest.approx(outward[share == 1].mean(), abs=0.005)
    assert outward.mean() == pytest.approx(0, abs=0.0125)


@pytest.mark.parametrize("space", list(COUNTED))
def test_what_is_left_of_the_correlation_with_length_is_there_at_equal_length_too(hanna, space):
    """Each prompt's stories cut to its shortest: the long ones' openings lie where the long ones did."""
    texts, prompts, _ = hanna
    words = np.array([len(text.split()) for text in texts])
    equal = [words_of(text, words[prompts == prompt].min()) for text, prompt in zip(texts, prompts, strict=True)]
    whole, cut = (rho_with(words, mean_distance(COUNTED[space](of), prompts), prompts) for of in (texts, equal))
    assert abs(whole - cut) < 0.1


def rho_with(words: np.ndarray, deviation: np.ndarray, prompts: np.ndarray) -> float:
    within = [(prompts == prompt).nonzero()[0] for prompt in np.unique(prompts)]
    return np.mean([spearmanr(words[rows], deviation[rows]).statistic for rows in within if len(rows) > 2])


@pytest.mark.parametrize("space", list(COUNTED))
def test_the_correction_holds_on_stories_that_it_was_not_fitted_on(space):
    texts, prompts, _ = read_stories("five_sentence_people_and_models.jsonl", 60)
    rng = np.random.default_rng(0)
    whole, half = (
        mean_distance(COUNTED[space]([anywhere(text, share, rng) for text in texts]), prompts).mean()
        for share in (1, 1 / 2)
    )
    assert half == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize(("space", "bound"), [("stylometric", 0.57), ("delta", 0.54), ("lexical", 0.58)])
def test_at_equal_length_stories_of_one_source_are_nearer_than_those_of_two(hanna, space, bound):
    """Pairs of stories to different prompts: how often one of the same source is nearer than one of another."""
    texts, prompts, sources = hanna
    vectors = COUNTED[space]([words_of(text, 200) for text in texts])
    one, two = np.triu_indices(len(texts), 1)
    apart = prompts[one] != prompts[two]
    same = (sources[one] == sources[two])[apart]
    assert area((vectors @ vectors.T)[one, two][apart], same) > bound


def test_at_equal_length_stories_to_one_prompt_are_nearer_in_words(hanna):
    texts, prompts, _ = hanna
    vectors = COUNTED["lexical"]([words_of(text, 200) for text in texts])
    one, two = np.triu_indices(len(texts), 1)
    assert area((vectors @ vectors.T)[one, two], prompts[one] == prompts[two]) > 0.85


def area(value: np.ndarray, label: np.ndarray) -> float:
    """Under the ROC curve: the chance that a labelled value is greater than one that is not."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(label, value)


# Without data of others


@pytest.mark.parametrize("space", list(COUNTED))
def test_halves_and_quarters_of_the_package_stories_lie_nearly_as_far_apart(space):
    """These stories are shorter and less alike than those that the correction was fitted on: 2% to 9% nearer."""
    table = read_corpus()
    table = table[table["text"].str.split().str.len() >= 40]
    prompts = table["prompt_id"].factorize()[0]
    keep = np.bincount(prompts)[prompts] > 1
    texts, prompts = table["text"][keep].tolist(), prompts[keep]
    whole = mean_distance(COUNTED[space](texts), prompts).mean()
    for share in (1 / 2, 1 / 4):
        cut = [first(text, share, None) for text in texts]
        assert mean_distance(COUNTED[space](cut), prompts).mean() == pytest.approx(whole, abs=0.02), share


@pytest.mark.parametrize("length", [25, 100, 400, 1600])
def test_texts_drawn_from_known_rates_lie_at_the_distance_of_their_rates_at_any_length(length):
    """Rates whose true cosine about the mean is `likeness`; `amount` is a draw's variance over that of the rates."""
    rng = np.random.default_rng(length)
    likeness, words, texts = 0.6, 100, 400
    common, own = rng.normal(size=(1, words)), rng.normal(size=(texts, words))
    common = (common - common.mean()) / common.std()
    rates = (1 + 0.25 * (np.sqrt(likeness) * common + np.sqrt(1 - likeness) * own)).clip(0)
    rates /= rates.sum(axis=1, keepdims=True)
    amount = (1 - 1 / words) / np.square(rates - 1 / words).sum(axis=1).mean()
    counted = rng.multinomial(length, rates) / length - 1 / words
    prompt = np.zeros(texts, dtype=int)
    plain = mean_distance(counted, prompt).mean()
    assert plain == pytest.approx(1 - likeness * length / (length + amount), abs=0.01)
    level = mean_distance(_level(counted, np.full(texts, length), Attenuation(likeness, amount)), prompt).mean()
    assert level == pytest.approx(OWN * (1 - likeness), abs=0.005)


@pytest.mark.parametrize("space", list(COUNTED))
def test_copies_are_at_distance_zero_and_near_copies_near(space):
    text = " ".join(read_corpus()["text"].iloc[:4])
    one, copy, near, other = COUNTED[space](
        [text, text, text.replace(" the ", " a ", 1), read_corpus()["text"].iloc[40]]
    )
    np.testing.assert_array_equal(one, copy)
    assert 0 < 1 - one @ near < 0.1 * (1 - one @ other)


@pytest.mark.parametrize("space", list(COUNTED))
@pytest.mark.parametrize("text", ["a", "²", "_", "\x1c.", "日本語", "the " * 50_000, "of"])
def test_the_shortest_and_strangest_texts_have_a_unit_vector(space, text):
    (vector,) = COUNTED[space]([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
