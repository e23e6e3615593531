"""A text -> its words, in any script, and the choice of a tokenizer for measures that are published with their own.

Scripts that put blanks between words (Latin, Arabic, Hebrew, Cyrillic, Devanagari, Hangul, ...) give runs of letters,
digits and combining marks. Scripts that do not (Chinese, Japanese, Thai, Lao, Khmer, Burmese) give one word per
character with its marks, and one per run of katakana, as Unicode's default word boundaries do (UAX 29). So copies share
long sequences of words in every script. On English this gives what a run of letters and digits gives.
"""

import unicodedata
from collections.abc import Iterable
from typing import Literal

import regex

Tokenizer = Literal["published", "unicode"]

# `Line_Break=SA` are the scripts of South East Asia that are written without blanks
_ALONE = r"\p{Han}\p{Hiragana}\p{Line_Break=SA}"
_KANA = r"\p{Katakana}ー"
_LETTERS = rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{_ALONE}{_KANA}]]"
WORD = regex.compile(rf"[{_ALONE}]\p{{M}}*|[{_KANA}]+\p{{M}}*|{_LETTERS}+(?:['’]{_LETTERS}+)*", regex.V1)
WORD_OR_MARK = regex.compile(rf"{WORD.pattern}|[^\s\x1c-\x1f\x85]", regex.V1)
PLAIN = regex.compile("[a-zA-Z]")
LETTER = regex.compile(r"\p{L}")
PLAIN_SHARE = 0.99  # of the letters; English with names such as Zoë has more, German and French have less


def words(text: str) -> list[str]:
    """The words that n-grams are made of: in lower case and Unicode's composed form, with apostrophes inside."""
    return WORD.findall(unicodedata.normalize("NFC", text.lower()).replace("’", "'"))


def words_and_marks(text: str) -> list[str]:
    """The words and marks of a text in order, in their own case."""
    return WORD_OR_MARK.findall(unicodedata.normalize("NFC", text))


def choose_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """The tokenizer for everything that is compared: "published" if nearly all letters are a to z, else "unicode".

    "published" gives the values of rouge-score and sacrebleu, whose tokenizers drop or do not divide most scripts:
    ROUGE's keeps only a to z and digits. "unicode" divides words as `words` does.
    """
    plain = other = 0
    for text in texts:
        found = len(PLAIN.findall(text))
        plain += found
        other += 0 if text.isascii() else len(LETTER.findall(text)) - found
    return "published" if plain >= PLAIN_SHARE * (plain + other) else "unicode"
