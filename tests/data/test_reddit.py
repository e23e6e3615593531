"""Made-up posts: every placeholder goes, and no story does."""

import json

import pytest

from ddpo_lib.data import reddit
from ddpo_lib.data.corpus import read_corpus

GONE = [
    "[removed]",
    " [deleted]\n",
    "[ Removed by Reddit ]",
    "[ removed by reddit ]",
    "**[removed]**",
    "\\[removed\\]",
    "\\[deleted\\]",
    "&#91;removed&#93;",
    "[removed]\u200b",
    "> [deleted]",
    "[deleted by user]",
    "[Removed by moderator]",
    "[removed by the moderators]",
    "[unavailable]",
    "[ Removed by Reddit in response to a copyright notice. ]",
    "[ Removed by reddit on account of violating the content policy. ]",
    "[comment removed]",
    "[This comment has been deleted]",
    "Comment removed by moderator",
    "Comment deleted by user",
    "Sorry, this post has been removed by the moderators",
    "deleted by user",
    "[redacted]",
    "removed",
    "deleted",
    "_[removed]_",
]
STORIES = [
    "The word [removed] stood where his name had been.",
    '"[deleted]," said the screen. She typed her name again.',
    "[removed] and [deleted] met in a bar. Neither remembered why.",
    "Deleted",
    "Removed.",
    "Removed by Reddit, he became a monk, and never posted again.",
    "I am a bot, and I am afraid of the dark, said the toaster.",
    "The moderators removed the moon on a Tuesday.",
    "Beep boop, said the child, and the robot laughed until it rusted.",
    "A welcome to the prompt of the sea.",
    "[The door opens.]",
    "(empty streets)",
    "Your comment, the judge said, has been noted.",
    "Thank you for the gold, said the dragon, and ate him.",
    "Edit your life, the sign said.",
    "Good bot food is hard to find, said the goat.",
    "u/ was the last letter he wrote.",
    "R&D; a love story",
    "None",
    "null",
    "0",
]
NOTICES = {
    "moderation comments": [
        "**Welcome to the Prompt!** All top-level comments must be a story or poem.",
        "Hello! **Off-Topic Discussion**: reply here.",
        "Hi, your submission has been removed for the following reason:\n\n* Rule 2",
        "Your comment has been automatically removed because your account is new.",
        "This post has been locked by the moderators.",
        "Reminder for Writers & Readers: be kind.",
        "All top-level comments must be a story or poem. Reply here for other comments.",
    ],
    "bot comments": [
        "Thanks for posting!\n\n*I am a bot, and this action was performed automatically. Please "
        "[contact the moderators](/message/compose) if you have any questions.*",
        "RemindMe! 3 days",
        "!RemindMe 1 week",
        "I will be messaging you in 3 days on 2026-12-02 to remind you of this link.",
        "Here is the story as audio. ^(I'm a bot, message my creator with feedback)",
        "Good bot",
    ],
    "overwritten comments": [
        "This comment has been overwritten by an open source script to protect this user's privacy.",
        "Comment removed in protest of Reddit's API changes",
        "This post was mass deleted and anonymized with [Redact](https://redact.dev)",
    ],
}


@pytest.mark.parametrize("text", GONE)
def test_a_placeholder_is_one_in_every_spelling(text):
    assert reddit.is_placeholder(text)


@pytest.mark.parametrize("text", STORIES)
def test_a_story_is_neither_placeholder_nor_notice(text):
    assert not reddit.is_placeholder(text)
    assert reddit.notice(text) is None


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in NOTICES.items() for text in texts])
def test_what_programs_and_moderators_write_is_recognised(what, text):
    assert reddit.notice(text).what == what


def test_a_story_about_a_removed_post_stays_if_it_says_so_late():
    assert reddit.notice("The sea was calm. " * 60 + "Your post has been removed, said the letter.") is None


DECODED = {
    "a &amp; b": "a & b",
    "a &amp;amp; b": "a & b",
    "&lt;3 &gt; 2": "<3 > 2",
    "one&nbsp;two&#32;three": "one two three",
    "&amp;#x200B;\n\nOne": "One",
    "One\n\n&amp;#x200B;\n\nTwo": "One\n\nTwo",
    "O\u200bn\ufeffe": "One",
    "\\[WP\\] A \\*door\\*": "[WP] A *door*",
    "don&#39;t &quot;go&quot;": 'don\'t "go"',
    "caf&eacute; &mdash; &#128512;": "café — 😀",
    "AT&T; &nosuch; R&D & so on": "AT&T; &nosuch; R&D & so on",
    "می\u200cخواهم 👨\u200d👩": "می\u200cخواهم 👨\u200d👩",
    "C:\\new\\table": "C:\\new\\table",
    "Two  blanks\n\n\n\nand lines": "Two  blanks\n\n\n\nand lines",
}


@pytest.mark.parametrize(("text", "expected"), DECODED.items())
def test_marks_of_the_transport_are_undone_and_nothing_else(text, expected):
    counted = []
    assert reddit.decode(text, lambda what, why: counted.append(what)) == expected
    assert bool(counted) or text == expected
    assert len(counted) == len(set(counted))


TRAILERS = {
    "A story.\n\nEDIT: wow, thanks for the gold!": "A story.",
    "A story.\n\n**Edit 2:** typos.\n\nEdit: part two is below": "A story.",
    "A story.\n\nThank you, kind stranger, for the award!": "A story.",
    "A story.\n\nThanks for reading! More at r/mystories.": "A story.",
    "A story.\n\n/r/mystories": "A story.",
    "A story.\n\n[More of my stories](https://example.org)": "A story.",
    "> A door opens.\n\nIt was me.": "It was me.",
    "> Another quotation.\n\nIt was me.": "> Another quotation.\n\nIt was me.",
    "EDIT: the whole text": "EDIT: the whole text",
    "He said:\n\nEdit the will.\n\nThey did.": "He said:\n\nEdit the will.\n\nThey did.",
    "A story.\n\nThank you, she said, and closed the door.": "A story.\n\nThank you, she said, and closed the door.",
}


@pytest.mark.parametrize(("text", "expected"), TRAILERS.items())
def test_notes_around_a_story_are_taken_off(text, expected):
    counted = []
    assert reddit.without_trailers(text, "A door opens.", lambda what, why: counted.append(what)) == expected
    assert bool(counted) == (text != expected)


def raw_post(texts: list[str], **fields) -> dict:
    title = {"post_title": "\\[WP\\] A door &amp; a key.", "post_text": "&amp;#x200B;"}
    return title | {"comment_texts": texts, "comment_scores": list(range(len(texts), 0, -1))} | fields


def test_a_raw_post_keeps_its_stories_and_counts_the_rest(tmp_path):
    notices = [text for texts in NOTICES.values() for text in texts]
    path = tmp_path / "raw.jsonl"
    gone = raw_post(["Lost."], post_title="[deleted by user]", post_text="[removed]")
    path.write_text("\n".join(map(json.dumps, [raw_post([*GONE, *notices, "\u200b", *STORIES]), gone])))
    table = read_corpus(path, held_out=0.0)
    assert table["prompt"].unique().tolist() == ["A door & a key."]
    assert table["text"].tolist() == STORIES
    assert table["score"].tolist() == list(range(len(STORIES), 0, -1))
    expected = {what: len(texts) for what, texts in NOTICES.items()}
    expected |= {"removed comments": len(GONE), "blank comments": 1, "removed posts": 1}
    assert {d["what"]: d["count"] for d in table.attrs["dropped"]} == expected
    left_out = sum(d["count"] for d in table.attrs["dropped"])
    assert len(table) + left_out == table.attrs["read"]["responses"]


def test_a_corpus_of_another_form_is_not_changed_unless_it_is_asked_for(tmp_path):
    texts = ["a &amp; b", "RemindMe! 3 days", "[removed]", "\\*stars\\*", "Story.\n\nEDIT: thanks for the gold"]
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "p", "responses": [{"text": text} for text in texts]}))
    table = read_corpus(path, held_out=0.0)
    assert table["text"].tolist() == [text for text in texts if text != "[removed]"]
    assert [(d["what"], d["count"]) for d in table.attrs["changed"]] == [("texts with marks such as &amp;", 1)]
    asked = read_corpus(path, held_out=0.0, reddit=True)
    assert asked["text"].tolist() == ["a & b", "*stars*", "Story."]
    assert {d["what"]: d["count"] for d in asked.attrs["changed"]} == {
        "texts with HTML entities": 1,
        "texts with escaped Markdown": 1,
        "notes after a story": 1,
    }


def test_what_was_left_out_is_said(tmp_path, caplog):
    path = tmp_path / "raw.jsonl"
    path.write_text(json.dumps(raw_post(["[removed]", "Story.", "&amp; so on"])))
    caplog.set_level("INFO")
    read_corpus(path, held_out=0.0)
    said = caplog.text
    assert "left out: 1 removed comments (the comment's text is gone)" in said
    assert "3 texts with HTML entities (decoded, since Reddit's API escapes texts)" in said
