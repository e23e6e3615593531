"""Alternate uses of a thing: short answers that no program can call wrong, and which answers are the same.

An answer counts as right if it says something besides the thing itself; whether a use is sensible or creative is for
people to say. Whether people rate rare uses higher is measured with the profile `deviation` on rated answers, as for
any scored corpus (`findings.collect_findings`).
"""

import re

from ddpo_lib.domains.checked import Checked

WORD = re.compile(r"[^\W_]+")


def check(thing: str, text: str) -> Checked:
    """Whether a text says something besides the thing, and its mode: its content words, in any order and number.

    Function words (scikit-learn's English list) and the words of the thing do not count, nor do repetitions. If only
    those are there, the mode is None.

    Args:
        thing: such as "brick".
        text: an answer, such as "use it as a doorstop".
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = set(WORD.findall(text.lower())) - set(WORD.findall(thing.lower())) - {"use", "using", "used"}
    content = frozenset(words - ENGLISH_STOP_WORDS)
    return Checked(bool(content), content or None, "" if content else "says nothing besides the thing")
