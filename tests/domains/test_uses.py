"""Uses of a thing: which answers are the same, and which say nothing."""

import pytest

from ddpo_lib.domains.uses import check


@pytest.mark.parametrize(
    "text", ["a doorstop", "Doorstop!", "use it as a doorstop", "a brick as a doorstop, a doorstop"]
)
def test_one_use_in_other_words_is_one_mode(text):
    assert check("brick", text) == (True, frozenset({"doorstop"}), "")


@pytest.mark.parametrize("text", ["", "...", "a brick", "use it as a brick"])
def test_an_answer_that_names_only_the_thing_is_none(text):
    assert check("brick", text) == (False, None, "says nothing besides the thing")


def test_other_uses_are_other_modes():
    one, same = check("brick", "paper weight"), check("light bulb", "weight of a light bulb in paper")
    assert one.mode == same.mode == {"paper", "weight"}
    assert check("brick", "a hammer").mode != check("brick", "a weapon").mode
