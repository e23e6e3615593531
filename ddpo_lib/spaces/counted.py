"""Spaces made by counting, without a model: this module defines every number in a text's vector.

- stylometric: character n-grams of the text with each content word masked, blind to topic (text distortion, Stamatatos
  2017, doi:10.18653/v1/E17-1107)
- delta: how often each of 150 function words occurs, blind to topic, marks and layout (Burrows's Delta in its cosine
  form, Evert et al. 2017, doi:10.1093/llc/fqx023)
- lexical: words and marks as tf-idf, blind to order (Salton and Buckley 1988, doi:10.1016/0306-4573(88)90021-0)

The package's own corpus decides what is common and what is rare. So each space is fixed, and a text's vector depends
only on the text.

Short texts have noisier counts than long ones. Without a correction they lie farther from all other texts, and style is
partly length (Eder 2015, doi:10.1093/llc/fqt066). The vectors are made so that the expected cosine distance between two
texts does not depend on how long the texts are:

1. A text of N n-grams or words is described by a vector y from its counts. Stylometric: p / sqrt(m), with the rates p
   of the text and m of the package's corpus. The division by the root gives the chi-square distance of correspondence
   analysis, and an n-gram that a text does not contain stays 0. Delta: (p - m/2) / the rate's standard deviation.
   Lexical: tf-idf minus half of the corpus's mean. Subtracting the whole mean would treat this corpus as all of
   English; half of it works better for other corpora.
2. Noise multiplies the cosine of two y by the reliability N / (N + amount) (attenuation, Spearman 1904,
   doi:10.2307/1412159). The expected distance between two texts of one prompt is then
   e(N) = 1 - likeness * N / (N + amount).
3. The vector is (sqrt(s) * y / length of y, sqrt(1 - s)): a share s that is the text's own, and one coordinate that
   all texts have in common. The distance between two texts of N is then s times the distance of their y. s(N) is chosen
   so that s(N) * e(N) is constant, and s is OWN for endless N. What the counts do not show about a short text is
   replaced by what all texts have in common, as in the shrinkage of empirical Bayes.

Likeness and amount were fitted on 497 stories of HANNA, cut to random pieces of 12 to 400 words (lexical: 50 to 400).
So the correction is right on average for texts that are as similar as the stories of a HANNA prompt. It does not change
the order of distances among texts of one length. Among texts that are more similar, short ones still lie somewhat
farther apart than long ones; among less similar texts, somewhat closer together. Distances lie in [0, 1]. Within a
prompt of HANNA they are about 0.13 in the stylometric space, 0.18 in delta and 0.33 in the lexical space.
"""

import json
import re
from functools import cache
from typing import NamedTuple

import numpy as np

from ddpo_lib.data.corpus import PACKAGE_CORPUS

CONTRACTIONS = frozenset(
    "i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'll we're we've we'd we'll "
    "they're they've they'd they'll that's there's what's who's let's isn't aren't wasn't weren't don't doesn't didn't "
    "can't couldn't won't wouldn't shouldn't haven't hasn't hadn't".split()
)
DELTA_WORDS = 150
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|\s+|[^\w\s]|_")
STRAIGHT = str.maketrans("’‘“”", "''\"\"")


class Attenuation(NamedTuple):
    """The expected cosine of two stories of one prompt, each cut to N n-grams or words: likeness * N / (N + amount)."""

    likeness: float
    amount: float


STYLOMETRIC = Attenuation(0.747, 1080)  # n-grams: about 1,000 in 100 words
DELTA = Attenuation(0.645, 225)  # words and marks, as in the next line
LEXICAL = Attenuation(0.33, 310)
OWN = 0.5  # share of an endless text's squared length that is its own


def stylometric_vectors(texts: list[str]) -> np.ndarray:
    """(n, 4097) float32 unit rows; every text that is not blank has a direction."""
    counts = _ngram_counter().transform(map(distort, texts))
    totals = _totals(counts)
    return _level(counts.toarray() / totals[:, None] / _ngram_scale(), totals, STYLOMETRIC)


def lexical_vectors(texts: list[str]) -> np.ndarray:
    """(n, 8193) float32 unit rows; every text that is not blank has a direction."""
    counts = _word_counter().transform(texts)
    rarity, mean = _word_norms()
    return _level(rarity.transform(counts).toarray() - mean / 2, _totals(counts), LEXICAL)


def delta_vectors(texts: list[str]) -> np.ndarray:
    """(n, 151) float32 unit rows; texts of one length without any function word have the same vector."""
    words, mean, deviation = _delta_norms()
    rates, totals = _function_word_rates(texts, words)
    return _level((rates - mean / 2) / deviation, totals, DELTA)


def _level(own: np.ndarray, totals: np.ndarray, noise: Attenuation) -> np.ndarray:
    """Scale each row and add a common coordinate, so that the expected distance is the same for any length of text.

    Args:
        own: (n, d) float64, no row of zeros; only the directions count. It is overwritten.
        totals: (n,) number of n-grams or words that each row was counted from.
        noise: the expected cosine of two of these rows, by length.

    Returns:
        (n, d + 1) float32 unit rows; the last coordinate is the one that all texts have in common.
    """
    expected = 1 - noise.likeness * totals / (totals + noise.amount)
    share = OWN * (1 - noise.likeness) / expected
    own *= (np.sqrt(share) / np.linalg.norm(own, axis=1))[:, None]
    return np.concatenate([own, np.sqrt(1 - share)[:, None]], axis=1, dtype=np.float32)


def distort(text: str) -> str:
    """The text with each content word masked: `*`, `^` if capitalised, `A` if in capitals, and `#` for a number."""
    return "".join(_mask(token) for token in TOKEN.findall(text.translate(STRAIGHT)))


def _mask(token: str) -> str:
    if token.isspace():
        return "\n" if "\n" in token else " "
    if token[0].isdigit():
        return "#"
    if not token[0].isalpha() or token.lower() in _function_words():
        return token
    if token.isupper() and len(token) > 1:
        return "A"
    return "^" if token[0].isupper() else "*"


def _words(text: str) -> list[str]:
    return [token.lower() for token in TOKEN.findall(text.translate(STRAIGHT)) if not token.isspace()]


@cache
def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS | CONTRACTIONS


def _ngram_counter():
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, n_features=4096, alternate_sign=False, norm=None
    )


def _word_counter():
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer=_words, n_features=8192, alternate_sign=False, norm=None)


def _totals(counts) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


@cache
def _ngram_scale() -> np.ndarray:
    """The square root of each n-gram's rate in the package's corpus; 1 is added to each count so that none is zero."""
    of_ngram = np.asarray(_ngram_counter().transform(map(distort, _package_texts())).sum(axis=0)).ravel()
    return np.sqrt((of_ngram + 1) / (of_ngram.sum() + 1))


@cache
def _word_norms() -> tuple:
    """The rarity of each word, a fitted `TfidfTransformer`, and the mean tf-idf vector of the package's corpus."""
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = _word_counter().transform(_package_texts())
    rarity = TfidfTransformer(sublinear_tf=True).fit(counts)
    return rarity, np.asarray(rarity.transform(counts).mean(axis=0)).ravel()


@cache
def _delta_norms() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The most frequent function words of the package's corpus, with the mean and standard deviation of their rates."""
    words = tuple(sorted(_function_words()))
    rates, _ = _function_word_rates(_package_texts(), words)
    often = np.sort(np.argsort(-rates.mean(axis=0), kind="stable")[:DELTA_WORDS])
    return tuple(words[i] for i in often), rates[:, often].mean(axis=0), rates[:, often].std(axis=0)


def _function_word_rates(texts: list[str], words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(texts, words) share of each word among a text's words and marks, and (texts,) the number of words and marks."""
    from sklearn.feature_extraction.text import CountVectorizer

    tokens = [_words(text) for text in texts]
    totals = np.array([len(of_text) for of_text in tokens])
    counts = CountVectorizer(analyzer=list, vocabulary=words).transform(tokens)
    return counts.toarray() / totals[:, None], totals


@cache
def _package_texts() -> tuple[str, ...]:
    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    return tuple(text for post in posts for text in post["comment_texts"])
