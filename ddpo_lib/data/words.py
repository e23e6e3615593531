"""A text -> its words."""

import re

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")  # letters and digits, apostrophes inside


def words(text: str) -> list[str]:
    """The words that n-grams are made of: runs of letters and digits in lower case, with apostrophes inside."""
    return WORD.findall(text.lower().replace("’", "'"))
