"""Spaces made by counting, with no model: what a text's vector holds can be read off this page.

- stylometric: character n-grams of the text with each content word masked, blind to topic (text distortion, Stamatatos
  2017, doi:10.18653/v1/E17-1107)
- delta: how often each of 150 function words comes, blind to topic, marks and layout (Burrows's Delta in its cosine
  form, Evert et al. 2017, doi:10.1093/llc/fqx023)
- lexical: words and marks as tf-idf, blind to order (Salton and Buckley 1988, doi:10.1016/0306-4573(88)90021-0)

What is common and what is rare is taken from the package's own corpus, so that each space is fixed and a text's vector
depends on nothing but the text.
"""

import json
import re
from functools import cache

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer, HashingVectorizer, TfidfTransformer

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


def stylometric_vectors(texts: list[str]) -> np.ndarray:
    """(n, 4096) float32 unit rows; every text that holds anything but white space has a direction."""
    return _tfidf_vectors(_ngram_counter(), map(distort, texts), _ngram_rarity())


def lexical_vectors(texts: list[str]) -> np.ndarray:
    """(n, 8192) float32 unit rows; every text that holds anything but white space has a direction."""
    return _tfidf_vectors(_word_counter(), texts, _word_rarity())


def delta_vectors(texts: list[str]) -> np.ndarray:
    """(n, 150) float32 unit rows; texts without any function word share one direction."""
    words, mean, deviation = _delta_norms()
    score = (_function_word_rates(texts, words) - mean) / deviation
    return (score / np.linalg.norm(score, axis=1, keepdims=True)).astype(np.float32)


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


def _tfidf_vectors(counter: HashingVectorizer, texts, rarity: TfidfTransformer) -> np.ndarray:
    return rarity.transform(counter.transform(texts)).toarray().astype(np.float32)


def _ngram_counter() -> HashingVectorizer:
    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, n_features=4096, alternate_sign=False, norm=None
    )


def _word_counter() -> HashingVectorizer:
    return HashingVectorizer(analyzer=_words, n_features=8192, alternate_sign=False, norm=None)


@cache
def _ngram_rarity() -> TfidfTransformer:
    return TfidfTransformer(sublinear_tf=True).fit(_ngram_counter().transform(map(distort, _package_texts())))


@cache
def _word_rarity() -> TfidfTransformer:
    return TfidfTransformer(sublinear_tf=True).fit(_word_counter().transform(_package_texts()))


@cache
def _delta_norms() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The most frequent function words of the package's corpus, and each one's mean rate there and its spread."""
    words = tuple(sorted(FUNCTION_WORDS))
    rates = _function_word_rates(_package_texts(), words)
    often = np.sort(np.argsort(-rates.mean(axis=0), kind="stable")[:DELTA_WORDS])
    return tuple(words[i] for i in often), rates[:, often].mean(axis=0), rates[:, often].std(axis=0)


def _function_word_rates(texts: list[str], words: tuple[str, ...]) -> np.ndarray:
    """(texts, words) float64: the share of a text's words and marks that each word is."""
    counter = CountVectorizer(analyzer=_words, vocabulary=words)
    lengths = np.array([max(1, len(_words(text))) for text in texts])
    return counter.transform(texts).toarray() / lengths[:, None]


@cache
def _package_texts() -> tuple[str, ...]:
    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    return tuple(text for post in posts for text in post["comment_texts"])
