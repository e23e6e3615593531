"""Spaces made by counting, with no model: what a text's vector holds can be read off this page.

- stylometric: character n-grams of the text with each content word masked, blind to topic (text distortion, Stamatatos
  2017, doi:10.18653/v1/E17-1107)
- delta: how often each of 150 function words comes, blind to topic, marks and layout (Burrows's Delta in its cosine
  form, Evert et al. 2017, doi:10.1093/llc/fqx023)
- lexical: words and marks, blind to order

What is common and what is rare is taken from the package's own corpus, so that each space is fixed and a text's vector
depends on nothing but the text.

Short texts have noisier counts than long ones. Without a correction they lie further from all others, so that style
would partly be length (Eder 2015, "Does size matter?", doi:10.1093/llc/fqt066). The vectors are made so that the
expected cosine distance between two texts does not depend on how much text there is:

1. A text's rates p (counts over their sum N) are scaled by feature: y = (p - m/2) / scale, with m the mean rate of the
   package's corpus. Rates, unlike logarithms or square roots of counts, have the same expectation at any N. The scale
   of an n-gram or a word is sqrt(m), as in the chi-square distance of correspondence analysis; that of delta is the
   standard deviation of the rate. Half of m is left in y, because no other corpus has quite that mean.
2. Noise lowers the cosine of two such texts by their reliability N / (N + AMOUNT) (attenuation, Spearman 1904,
   doi:10.2307/1412159), so that two texts of a prompt lie 1 - LIKENESS * N / (N + AMOUNT) apart.
3. The vector is (sqrt(1 - s), sqrt(s) * y / |y|): one coordinate that all texts have in common and one share s(N) of
   their own. The distance of two texts of N is then s times that of their y. s is chosen to make the product of 2 and s
   constant; it is OWN for endless texts. So a short text is taken for a text like any other as far as its counts
   cannot tell: the shrinkage of empirical Bayes.

The correction is one of the mean: it is exact for texts that are as alike as two stories of a HANNA prompt, on which
LIKENESS and AMOUNT were fitted (497 stories cut to random pieces of 12 to 400 words). Of texts that are more alike, the
short ones still lie somewhat further apart; of texts less alike, somewhat nearer together. Distances are about half
as long as those of y, and in [0, 1]; order and ratios between texts of one length are those of y.
"""

import json
import re
from functools import cache
from typing import NamedTuple

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, HashingVectorizer

from ddpo_lib.corpus import PACKAGE_CORPUS

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
    """Two stories of one prompt, cut to N each, have a cosine of likeness * N / (N + amount)."""

    likeness: float
    amount: float


STYLOMETRIC = Attenuation(0.645, 1820)  # n-grams: about 1,000 in 100 words
DELTA = Attenuation(0.646, 225)  # words and marks, as in the next
LEXICAL = Attenuation(0.337, 458)
OWN = 0.5  # of an endless text's squared length, what is its own


def stylometric_vectors(texts: list[str]) -> np.ndarray:
    """(n, 4097) float32 unit rows; every text that holds anything but white space has a direction."""
    return _level(_ngram_counter().transform(map(distort, texts)), *_ngram_rarity(), STYLOMETRIC)


def lexical_vectors(texts: list[str]) -> np.ndarray:
    """(n, 8193) float32 unit rows; every text that holds anything but white space has a direction."""
    return _level(_word_counter().transform(texts), *_word_rarity(), LEXICAL)


def delta_vectors(texts: list[str]) -> np.ndarray:
    """(n, 151) float32 unit rows; texts of one length without any function word share one direction."""
    words, mean, deviation = _delta_norms()
    counts, lengths = _count_function_words(texts, words)
    return _level(counts, mean, deviation, DELTA, lengths)


def _level(counts, mean: np.ndarray, scale: np.ndarray, noise: Attenuation, totals=None) -> np.ndarray:
    """Counts -> unit vectors whose expected distance is the same for short and for long texts (see the top of the page).

    Args:
        counts: (n, d) sparse.
        mean, scale: (d,) what is subtracted from a rate, half of it, and what the rest is divided by.
        noise: how alike two texts are, and how fast that shows.
        totals: (n,) what a rate is a share of; the sum of a text's counts if not given.

    Returns:
        (n, d + 1) float32.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel() if totals is None else totals
    own = counts.toarray().astype(np.float64)
    own /= totals[:, None]
    own -= mean / 2
    own /= scale
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


@cache
def _ngram_rarity() -> tuple[np.ndarray, np.ndarray]:
    return _rarity(_ngram_counter().transform(map(distort, _package_texts())))


@cache
def _word_rarity() -> tuple[np.ndarray, np.ndarray]:
    return _rarity(_word_counter().transform(_package_texts()))


def _rarity(counts) -> tuple[np.ndarray, np.ndarray]:
    """(d,) each: the mean rate over texts, and the square root of the rate in all of them, one more of each counted."""
    totals = np.asarray(counts.sum(axis=1))
    mean = np.asarray(counts.multiply(1 / totals).mean(axis=0)).ravel()
    return mean, np.sqrt((np.asarray(counts.sum(axis=0)).ravel() + 1) / (totals.sum() + 1))


@cache
def _delta_norms() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The most frequent function words of the package's corpus, and each one's mean rate there and its spread."""
    words = tuple(sorted(FUNCTION_WORDS))
    counts, lengths = _count_function_words(_package_texts(), words)
    rates = counts.toarray() / lengths[:, None]
    often = np.sort(np.argsort(-rates.mean(axis=0), kind="stable")[:DELTA_WORDS])
    return tuple(words[i] for i in often), rates[:, often].mean(axis=0), rates[:, often].std(axis=0)


def _count_function_words(texts: list[str], words: tuple[str, ...]):
    """(texts, words) sparse counts, and (texts,) how many words and marks a text has."""
    tokens = [_words(text) for text in texts]
    counter = CountVectorizer(analyzer=list, vocabulary=words)
    return counter.transform(tokens), np.array([len(text) for text in tokens])


@cache
def _package_texts() -> tuple[str, ...]:
    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    return tuple(text for post in posts for text in post["comment_texts"])
