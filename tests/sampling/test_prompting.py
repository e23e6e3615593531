"""What models say when asked for several answers, well formed and not."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpo_lib.sampling.prompting import AGAIN, conversation, parse_answers

NAN = float("nan")


def same(found, expected) -> bool:
    def plain(answers):
        return [(text, None if math.isnan(p) else pytest.approx(p)) for text, p in answers]

    return plain(found) == plain(expected)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", []),
        ("Once upon a time there was a king.", []),
        (
            "<answer><probability>0.3</probability><text>One.</text></answer>\n"
            "<answer><probability>0.05</probability><text>Two\nlines.</text></answer>",
            [("One.", 0.3), ("Two\nlines.", 0.05)],
        ),
        ("<answer><text>Late.</text><probability>0.2</probability></answer>", [("Late.", 0.2)]),
        ("Sure!\n<ANSWER> <Probability> 20% </Probability> <text> Loud. </text> </ANSWER> Bye.", [("Loud.", 0.2)]),
        ("<answer><probability>0.1</probability><text>Cut in the mid", [("Cut in the mid", 0.1)]),
        ("<answer><probability>0.1</probability>No text tags.</answer>", [("No text tags.", 0.1)]),
        ("<answer><text>No number.</text></answer>", [("No number.", NAN)]),
        ("<answer><probability>high</probability><text>Words.</text></answer>", [("Words.", NAN)]),
        ("<answer><probability>7</probability><text>Above one.</text></answer>", [("Above one.", NAN)]),
        ("<answer><probability>-0.2</probability><text>Below.</text></answer>", [("Below.", NAN)]),
        ("<answer><probability>0.4</probability><text>  </text></answer>", []),
        ("<answer><probability>.4<text>Unclosed.</text></answer>", [("Unclosed.", 0.4)]),
        ("<answer>\n<text>x < y, and <b>bold</b>.</text></answer>", [("x < y, and <b>bold</b>.", NAN)]),
        (
            '```json\n{"responses": [{"text": "A", "probability": 0.5}, {"text": "B", "probability": "10%"}]}\n```',
            [("A", 0.5), ("B", 0.1)],
        ),
        ('[{"answer": "A"}, {"story": "B", "probability": null}]', [("A", NAN), ("B", NAN)]),
        ('{"text": "A", "probability": 0.5}\n{"text": "B", "probability": 0.2', [("A", 0.5)]),
        ('[{"text": "A", "probability": 0.5}, {"text": "B"', [("A", 0.5)]),
        ('{"text": 3, "probability": true}', []),
        (
            "Here they are:\n1. The king. (Probability: 0.3)\n2) The queen.\nShe ran. p = 12%\n",
            [("The king.", 0.3), ("The queen.\nShe ran.", 0.12)],
        ),
        ("1. **Probability: 0.25** The fool.", [("The fool.", 0.25)]),
        ("1. The king.\n2. The queen.", []),  # a story may have numbers: without a probability it is no list of answers
        ("<answer><text>tags win</text></answer> 1. x (probability: 0.1)", [("tags win", NAN)]),
    ],
)
def test_answers_are_read_as_far_as_they_are_there(said, expected):
    assert same(parse_answers(said, 9), expected)


PIECES = st.sampled_from(
    '<answer> </answer> <text> </text> <probability> </probability> 0.5 50% nan 1e999 { } [ ] " : , \\ 1. 2) (p= '
    'probability: text \n <answer <text NaN Infinity ٣ ² - ** \x00 \ud800 𝛼 {"text":"a","probability":'.split(" ")
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map(" ".join)), st.integers(1, 5))
def test_nothing_that_a_model_says_breaks_the_parser(said, most):
    answers = parse_answers(said, most)
    assert len(answers) <= most
    for text, probability in answers:
        assert text.strip() == text != ""
        assert math.isnan(probability) or 0 <= probability <= 1


@pytest.mark.parametrize("said", ["[" * 100_000, '{"a":' * 50_000, "<answer>" * 20_000, "1. " * 50_000, "0" * 100_000])
def test_long_nonsense_is_no_answer(said):
    assert parse_answers(said, 4) == []


TEXT = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="<>"), min_size=1, max_size=30)
ANSWERS = st.lists(st.tuples(TEXT, st.integers(0, 100).map(lambda n: n / 100)), min_size=1, max_size=5)


@given(ANSWERS)
def test_what_is_said_in_the_form_asked_for_is_read_back(answers):
    tagged = "\n".join(f"<answer><probability>{p}</probability><text>{text}</text></answer>" for text, p in answers)
    listed = json.dumps([{"text": text, "probability": p} for text, p in answers])
    assert parse_answers(tagged, 9) == answers
    assert parse_answers(listed, 9) == answers
    assert parse_answers(tagged, 1) == answers[:1]


def test_a_conversation_shows_what_was_said_and_asks_for_something_else():
    assert conversation("plain", "Ask", [], 4) == [{"role": "user", "content": "Ask"}]
    talk = conversation("iter", "Ask", ["One", ""], 4)
    assert [m["content"] for m in talk] == ["Ask", "One", AGAIN, "(no answer)", AGAIN]
    assert [m["role"] for m in talk] == ["user", "assistant"] * 2 + ["user"]
