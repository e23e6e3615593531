"""A style space that is blind to topic: how a text is put together, not what it is about.

Every content word is masked (text distortion, Stamatatos 2017, doi:10.18653/v1/E17-1107): function words, punctuation,
case, digits and line breaks stay, the rest becomes a mark. What remains is counted as character n-grams, weighted
by their rarity in the package's own corpus, so that the space is fixed and a text's vector depends on nothing else.
"""

import json
import re
from functools import cache

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, HashingVectorizer, TfidfTransformer

from ddpo_lib.corpus import PACKAGE_CORPUS

DIMENSIONS = 4096
CONTRACTIONS = frozenset(
    "i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'll we're we've we'd we'll "
    "they're they've they'd they'll that's there's what's who's let's isn't aren't wasn't weren't don't doesn't didn't "
    "can't couldn't won't wouldn't shouldn't haven't hasn't hadn't".split()
)
FUNCTION_WORDS = ENGLISH_STOP_WORDS | CONTRACTIONS
TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|\s+|[^\w\s]|_")
STRAIGHT = str.maketrans("’‘“”", "''\"\"")


def distort(text: str) -> str:
    """The text with each content word masked: `*`, `^` when capitalised, `A` in capitals, `#` for a number."""
    return "".join(_mask(token) for token in TOKEN.findall(text.translate(STRAIGHT)))


def stylometric_vectors(texts: list[str]) -> np.ndarray:
    """(n, 4096) float32 unit rows; every text that holds anything but white space has a direction."""
    counts = _counter().transform(map(distort, texts))
    return _rarity().transform(counts).toarray().astype(np.float32)


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


def _counter() -> HashingVectorizer:
    return HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), lowercase=False, n_features=DIMENSIONS, alternate_sign=False, norm=None
    )


@cache
def _rarity() -> TfidfTransformer:
    posts = map(json.loads, PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines())
    texts = [text for post in posts for text in post["comment_texts"]]
    return TfidfTransformer(sublinear_tf=True).fit(_counter().transform(map(distort, texts)))
