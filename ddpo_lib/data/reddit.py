"""What Reddit leaves in a text: a table of patterns, each with its name and the reason for which it is there.

- `PLACEHOLDERS`: the whole text stands for one that is gone. Such a text is dropped from every corpus.
- `NOTICES`: written by a moderator, a bot or a program that overwrites comments. Dropped from Reddit's raw form.
- `CHANGES`: marks of Reddit's transport: HTML entities (Reddit escapes twice), escaped Markdown, zero-width spaces.
  Undone in Reddit's raw form.
- `TRAILERS`: an author's notes around a story, such as "EDIT: thanks for the gold". They are taken off only on request.

A corpus in another form keeps its texts as they are unless `reddit` is asked for, since an entity may be meant. Nothing
is dropped because of a word inside a story: a placeholder is the whole text, and a notice is recognised by a sentence
that only programs write, or by how a short text begins.
"""

import html
import re
from collections.abc import Callable
from typing import NamedTuple

SPACE = re.compile(r"\s+")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
ESCAPED = re.compile(r"\\([\[\](){}<>*_~^#.!+\-`|\"'\\/])")
ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]")  # not U+200C and U+200D, which Persian and emoji need
BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+(?=\n)")
AROUND = " \t\r\n*_~`>\"'“”.!-"  # Markdown and marks around a placeholder
START = 400  # characters at the beginning of a text in which a notice is looked for


class Pattern(NamedTuple):
    what: str
    why: str
    found: re.Pattern


_GONE = r"(?:removed|deleted|unavailable|redacted)"
_BY = r"(?:reddit|the user|user|the author|author|the moderators?|moderators?|mods?|admins?|anti-?evil operations|op)"
PLACEHOLDERS = (
    Pattern(
        "removed comments",
        "the comment's text is gone",
        re.compile(
            rf"[\[(<{{]\s*(?:(?:this |the )?(?:comment|post|submission|content)(?: was| has been)?\s)?{_GONE}"
            rf"(?:\s(?:by|from|in|on|for|due|at)\b[^\[\]]{{0,200}})?\s*[.!]?\s*[\])>}}]",
        ),
    ),
    Pattern(
        "removed comments",
        "the comment's text is gone",
        re.compile(
            rf"(?:sorry,? )?(?:(?:this |the )?(?:comment|post|submission)(?: was| has been)? {_GONE} by {_BY}"
            rf"|{_GONE} by {_BY}|removed|deleted)",
        ),
    ),
)
NOTICES = (
    Pattern(
        "moderation comments",
        "written by moderators, not a story",
        re.compile(
            r"\*\*welcome to the prompt!\*\*|\*\*off-topic discussion\*\*"
            r"|\b(?:this|your) (?:submission|post|comment|prompt|story) (?:has been|was) (?:automatically )?"
            r"(?:removed|locked|filtered)\b"
            r"|\breminder for writers (?:and|&) readers\b|\ball top-level comments must be (?:a )?(?:story|stories)\b"
            r"|\bthis (?:thread|post) has been locked\b",
        ),
    ),
    Pattern(
        "overwritten comments",
        "overwritten by a program that removes an account's texts",
        re.compile(
            r"\bcomment has been (?:overwritten|edited|removed|deleted) (?:by|with|using|in protest)\b"
            r"|\bcomment (?:was )?(?:edited|removed|deleted|overwritten) in protest\b"
            r"|\bmass deleted (?:and anonymized )?with \[?redact\b|\bpower delete suite\b|\bthis user's privacy\b",
        ),
    ),
    Pattern(
        "bot comments",
        "a bot's call",
        re.compile(
            r"\A\W*(?:!remindme|remindme!|i will be messaging you (?:in|on)|u/?\w+bot\b.{0,80}\Z|good bot\W*\Z)"
        ),
    ),
)
BOT = Pattern(
    "bot comments",
    "signed by a bot",
    re.compile(
        r"\bi am a bot, and this action was performed automatically\b"
        r"|\^*\(?i'?(?: a)?m a bot\b.{0,60}(?:contact|message|feedback|source|info|creator|beep|action)"
        r"|\bbeep\W{1,2}boop\b.{0,40}\bbot\b"
    ),
)
CHANGES = (
    Pattern("texts with HTML entities", "decoded, since Reddit's API escapes texts", ENTITY),
    Pattern("texts with zero-width spaces", "taken out", ZERO_WIDTH),
    Pattern("texts with escaped Markdown", "its backslashes are taken out", ESCAPED),
)
_NOTE = re.compile(r"\A[\s*_~^(\[>-]*(?:edit(?:ed)?|eta|update)\b[\s\d]*[)\]*_]*\s*(?:[:;,.–—-]|\()", re.I)
_THANKS = re.compile(
    r"\A\W*(?:(?:wow|omg|holy \w+|oh my)\b\W*)?(?:thank(?:s| you)\b.{0,60}\b(?:gold|silver|platinum|awards?|upvotes?|"
    r"stranger)|thank(?:s| you)(?: all| everyone)?(?: so much)? for reading)\b.{0,150}\Z",
    re.I | re.S,
)
_PLUG = re.compile(
    r"\A\W*(?:(?:if you (?:liked|enjoyed)|more (?:of my )?stories|read more|check out|subscribe|part \w+)\b.{0,200})?"
    r"(?:/?r/\w+|\[[^\]]*\]\([^)]*\)|https?://\S+)\W{0,5}\Z",
    re.I | re.S,
)


def is_placeholder(text: str) -> bool:
    """Whether a whole text stands for one that is gone, as "[removed]" does; Markdown and marks around it do not count.

    A word without brackets counts only as Reddit writes it, alone and in lower case or with who removed it.
    """
    plain = ZERO_WIDTH.sub("", _decoded(ESCAPED.sub(r"\1", text))) if len(text) < 2 * START else ""
    plain = SPACE.sub(" ", plain).strip(AROUND)
    if plain in ("Removed", "Deleted", "REMOVED", "DELETED"):
        return False  # a word with a capital may be somebody's answer
    return bool(plain) and any(pattern.found.fullmatch(plain.lower()) for pattern in PLACEHOLDERS)


def notice(text: str) -> Pattern | None:
    """The pattern of a text that a moderator, a bot or a program wrote; None for any other text."""
    start, end = (SPACE.sub(" ", part.strip()).lower().replace("’", "'") for part in (text[:START], text[-START:]))
    end = end.replace("^", "")
    found = next((pattern for pattern in NOTICES if pattern.found.search(start)), None)
    return found or (BOT if BOT.found.search(start) or BOT.found.search(end) else None)


def decode(text: str, count: Callable[[str, str], None]) -> str:
    """A text without the marks of Reddit's transport; `count` is called with what was changed, and why, once each."""
    before = text
    for pattern in CHANGES:
        if not pattern.found.search(text):
            continue
        count(pattern.what, pattern.why)
        if pattern.found is ENTITY:
            text = _decoded(text)
        else:
            text = pattern.found.sub(r"\1" if pattern.found is ESCAPED else "", text)
    return text if text == before else BLANK_LINES.sub("\n", text).strip()


def without_trailers(text: str, prompt: str, count: Callable[[str, str], None]) -> str:
    """A text without its author's notes: paragraphs at its end that begin with "EDIT:", thank for gold or only link to
    more, and a quotation of the prompt at its beginning. A text that is nothing else stays as it is."""
    parts = re.split(r"\n\s*\n", text)
    kept = len(parts)
    while kept > 1 and any(pattern.search(parts[kept - 1]) for pattern in (_NOTE, _THANKS, _PLUG)):
        kept -= 1
    first = 0
    quoted = [re.sub(r"^\s*>\s?", "", line) for line in parts[0].splitlines()]
    if kept > 1 and parts[0].lstrip().startswith(">") and _letters(" ".join(quoted)) in _letters(prompt):
        first = 1
        count("quoted prompts", "a quotation of the prompt before the story is taken off")
    if kept < len(parts):
        count("notes after a story", "EDIT:, thanks and links are taken off")
    return "\n\n".join(parts[first:kept]).strip()


def marked(text: str) -> bool:
    """Whether a text contains marks that `decode` would change in Reddit's raw form."""
    return any(pattern.found.search(text) for pattern in CHANGES[:2])


def _letters(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def _decoded(text: str) -> str:
    """Entities that end with a semicolon, twice, since Reddit's API escapes the entities that its editor wrote."""
    for _ in range(2):
        text = ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return text.replace("\xa0", " ")
