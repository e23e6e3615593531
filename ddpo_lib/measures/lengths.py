"""Texts of several arms -> cut to one length, since most measures depend on the length of a text."""

import itertools
import re

import numpy as np

from ddpo_lib.data.words import WORD, Tokenizer, choose_tokenizer
from ddpo_lib.measures.word_measures import check_texts

RUN = re.compile(r"\S+")


def truncate(texts: list[str], words: int, tokenizer: Tokenizer | None = None) -> list[str]:
    """The first `words` words of each text, with the white space between them unchanged.

    Args:
        texts: n texts; a text with no more words is returned unchanged.
        words: how many to keep, 1 or more.
        tokenizer: "published": white space separates words; "unicode": words in any script, and a mark after the last
            word is cut. None chooses by these texts (`words.choose_tokenizer`).

    Raises:
        TypeError, ValueError: a text that is not a string (names the row); words below 1.
    """
    check_texts(texts)
    if words < 1:
        raise ValueError(f"words: expected 1 or more, got {words}")
    word = _word_pattern(texts, tokenizer)

    def cut(text: str) -> str:
        last = list(itertools.islice(word.finditer(text), words - 1, words + 1))
        return text[: last[0].end()] if len(last) == 2 or (last and word is RUN) else text

    return [cut(text) for text in texts]


def matched_length(texts_by_arm: dict[str, list[str]], tokenizer: Tokenizer | None = None) -> int:
    """The number of words to which all arms are to be cut by `truncate`: the smallest of the arms' median lengths.

    Blank texts are skipped, and the median is rounded down, but to no less than 1.

    Args:
        texts_by_arm: by arm, its texts.
        tokenizer: as in `truncate`; None chooses by the texts of all arms.

    Raises:
        TypeError: a text is not a string (names the row).
        ValueError: there is no arm, or an arm has only blank texts (names it).
    """
    if not texts_by_arm:
        raise ValueError("texts_by_arm: no arm")
    for texts in texts_by_arm.values():
        check_texts(texts)
    word = _word_pattern(list(itertools.chain.from_iterable(texts_by_arm.values())), tokenizer)
    medians = []
    for arm, texts in texts_by_arm.items():
        lengths = [sum(1 for _ in word.finditer(text)) for text in texts if text.strip()]
        if not lengths:
            raise ValueError(f"texts_by_arm: {arm} has no text that is not blank")
        medians.append(int(np.median(lengths)))
    return max(1, min(medians))


def _word_pattern(texts: list[str], tokenizer: Tokenizer | None):
    return WORD if (tokenizer or choose_tokenizer(texts)) == "unicode" else RUN
