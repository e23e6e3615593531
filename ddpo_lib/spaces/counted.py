"""Spaces made by counting, with no model: what a text's vector holds can be read off this page.

- stylometric: character n-grams of the text with each content word masked, blind to topic (text distortion, Stamatatos
  2017, doi:10.18653/v1/E17-1107)
- delta: how often each of 150 function words comes, blind to topic, marks and layout (Burrows's Delta in its cosine
  form, Evert et al. 2017, doi:10.1093/llc/fqx023)
- lexical: words and marks as tf-idf, blind to order (Salton and Buckley 1988, doi:10.1016/0306-4573(88)90021-0)

What is common and what is rare is taken from the package's own corpus, so that each space is fixed and a text's vector
depends on nothing but the text.

Short texts have noisier counts than long ones. Uncorrected, they lie further from all others, and style is partly
length (Eder 2015, doi:10.1093/llc/fqt066). The vectors are made so that the expected cosine distance between two texts
does not depend on how much text there is:

1. A text of N n-grams or words is described by y, what its counts say of it. Stylometric: p / sqrt(m), with p its rates
   and m those of the package's corpus; dividing by the root is the chi-square distance of correspondence analysis, and
   an n-gram that a text does not have stays 0. Delta: (p - m/2) / the rate's standard deviation. Lexical: tf-idf less
   half of the corpus's mean. A whole m would take this corpus's mean for that of all English; half serves others
   better.
2. Noise multiplies the cosine of two y by the reliability N / (N + amount) (attenuation, Spearman 1904,
   doi:10.2307/1412159). Two texts of a prompt then lie e(N) = 1 - likeness * N / (N + amount) apart.
3. The vector is (sqrt(s) * y over its length, sqrt(1 - s)): a share s of the text's own, and one coordinate that all
   texts have in common. The distance between two texts of N is then s times that of their y. s(N) is such that
   s(N) * e(N) is constant, and OWN where N is endless. What the counts cannot tell of a short text is filled with what
   texts have in common, as in the shrinkage of empirical Bayes.

Likeness and amount were fitted on 497 stories of HANNA, cut to random pieces of 12 to 400 words (lexical: 50 to 400).
So the correction is right on average for texts as alike as stories of a HANNA prompt, and leaves the order of distances
among texts of one length as it is. Of texts that are more alike, the short ones still lie somewhat further apart; of
texts less alike, somewhat nearer together. Distances lie in [0, 1]: within a prompt of HANNA about 0.13 in the
stylometric space, 0.18 in delta and 0.33 in the lexical one.
"""

import json
import re
from functools import cache
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, HashingVectorizer, TfidfTransformer

from ddpo_lib.data.corpus import PACKAGE_CORPUS

CONTRACTIONS = frozenset(
    "i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'll we're we've we'd we'll "
    "they're they've they'd they'll that's there's what's who's let's isn't aren't wasn't weren't don't doesn't didn't "
    "can't couldn't won't wouldn't shouldn't haven't hasn't hadn't".split()
)
FUNCTION_WORDS = ENGLISH_STOP_WORDS | CONTRACTIONS
DELTA_WORDS = 150
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|\s+|[^\w\s]|_")
STRAIGHT = str.maketrans("’‘“”", "''\"\"")


class Attenuation(NamedTuple):
    """Two stories of one prompt, cut to N each, are expected to have a cosine of likeness * N / (N + amount)."""

    likeness: float
    amount: float


STYLOMETRIC = Attenuation(0.747, 1080)  # n-grams: about 1,000 in 100 words
DELTA = Attenuation(0.645, 225)  # words and marks, as in the next
LEXICAL = Attenuation(0.33, 310)
OWN = 0.5  # of an endless text's squared length, what is its own


def stylometric_vectors(texts: list[str]) -> np.ndarray:
    """(n, 4097) float32 unit rows; every text that holds anything but white space has a direction."""
    counts = _ngram_counter().transform(map(distort, texts))
    totals = _totals(counts)
    return _level(counts.toarray() / totals[:, None] / _ngram_scale(), totals, STYLOMETRIC)


def lexical_vectors(texts: list[str]) -> np.ndarray:
    """(n, 8193) float32 unit rows; every text that holds anything but white space has a direction."""
    counts = _word_counter().transform(texts)
    rarity, mean = _word_norms()
    return _level(rarity.transform(counts).toarray() - mean / 2, _totals(counts), LEXICAL)


def delta_vectors(texts: list[str]) -> np.ndarray:
    """(n, 151) float32 unit rows; texts of one length without any function word share one direction."""
    words, mean, deviation = _delta_norms()
    rates, totals = _function_word_rates(texts, words)
    return _level((rates - mean / 2) / deviation, totals, DELTA)


def _level(own: np.ndarray, totals: np.ndarray, noise: Attenuation) -> np.ndarray:
    """Give each row as much of its own as makes the expected distance the same at any amount of text.

    Args:
        own: (n, d) float64, none of them zero; only the directions count. It is overwritten.
        totals: (n,) n-grams or words that each row was counted from.
        noise: what two of these rows are expected to have in common.

    Returns:
        (n, d + 1) float32 unit rows; the last coordinate is the one that all texts have in common.
    """
    expected = 1 - noise.likeness * totals / (totals + noise.amount)
    share = OWN * (1 - noise.likeness) / expected
    own *= (np.sqrt(share) / np.linalg.norm(own, axis=1))[:, None]
    return np.concatenate([own, np.sqrt(1 - share)[:, None]], axis=1, dtype=np.float32)


def distort(text: str) -> str:
    """The text with each content word masked: `*`, `^` when capitalised, `A` in capitals, `#` for a number."""
    return "".join(_mask(token) for token in TOKEN.findall(text.translate(STRAIGHT)))


def _mask(token: str) -> str:
    if token.isspace():
        return "\n" if "\n" in token else " "
    if token[0].isdigit():
        return "#"
    if not token[0].isalpha() or token.lower() in FUNCTION_WORDS:
        return token
    if token.isupper() and len(token) > 1:
        return "A"
    return "^" if token[0].isupper() else "*"


def _words(text: str) -> list[str]:
    return [token.lower() for token in TOKEN.findall(text.translate(STRAIGHT)) if not token.isspace()]


def _ngram_counter() -> HashingVectorizer:
    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, n_features=4096, alternate_sign=False, norm=None
    )


def _word_counter() -> HashingVectorizer:
    return HashingVectorizer(analyzer=_words, n_features=8192, alternate_sign=False, norm=None)


def _totals(counts) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


@cache
def _ngram_scale() -> np.ndarray:
    """The root of each n-gram's rate in the package's corpus, one more of each counted, so that none is zero."""
    of_ngram = np.asarray(_ngram_counter().transform(map(distort, _package_texts())).sum(axis=0)).ravel()
    return np.sqrt((of_ngram + 1) / (of_ngram.sum() + 1))


@cache
def _word_norms() -> tuple[TfidfTransformer, np.ndarray]:
    """The rarity of each word, and the mean tf-idf vector of the package's corpus."""
    counts = _word_counter().transform(_package_texts())
    rarity = TfidfTransformer(sublinear_tf=True).fit(counts)
    return rarity, np.asarray(rarity.transform(counts).mean(axis=0)).ravel()


@cache
def _delta_norms() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The most frequent function words of the package's corpus, and each one's mean rate there and its spread."""
    words = tuple(sorted(FUNCTION_WORDS))
    rates, _ = _function_word_rates(_package_texts(), words)
    often = np.sort(np.argsort(-rates.mean(axis=0), kind="stable")[:DELTA_WORDS])
    return tuple(words[i] for i in often), rates[:, often].mean(axis=0), rates[:, often].std(axis=0)


def _function_word_rates(texts: list[str], words: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(texts, words) the share of a text's words and marks that each word is, and (texts,) how many it has of both."""
    tokens = [_words(text) for text in texts]
    totals = np.array([len(of_text) for of_text in tokens])
    counts = CountVectorizer(analyzer=list, vocabulary=words).transform(tokens)
    return counts.toarray() / totals[:, None], totals


@cache
def _package_texts() -> tuple[str, ...]:
    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    return tuple(text for post in posts for text in post["comment_texts"])
