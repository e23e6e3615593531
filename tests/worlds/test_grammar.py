"""The grammar of the worlds with known modes: what it writes can be read back exactly, also from its tokens."""

from itertools import product

import numpy as np
import pytest
from transformers import AutoTokenizer

from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.worlds import grammar
from ddpo_lib.worlds.grammar import FLAWS, HEROES, OBJECTS, PLACES, PLOTS, VOICES, Mode, read_mode, wordings
from ddpo_lib.worlds.modeworld import World, write_corpus

MODES = [Mode(*mode) for mode in product(range(len(PLOTS)), range(len(VOICES)), (False, True))]


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Four that name four different people, places and things."""
    table = write_corpus(World(responses=1, prompts=16, held_out=0, seed=3))
    return table["prompt"].tolist()[:4]


@pytest.fixture(scope="module")
def stories(prompts) -> list[tuple[Mode, str]]:
    """Every text that the grammar can write for those prompts, with the mode that it was written in."""
    return [(mode, text) for prompt in prompts for mode in MODES for text in wordings(prompt, mode)]


# Reading


def test_every_text_of_the_grammar_is_read_as_the_mode_it_was_written_in(stories):
    assert len(stories) == 4 * len(PLOTS) * len(VOICES) * (2 * 54 + (15 + 3) * 54)  # good, flawed
    assert all(read_mode(text) == mode for mode, text in stories)


def test_no_text_is_written_twice_so_none_has_two_modes(stories):
    assert len({text for _, text in stories}) == len(stories)


def test_every_text_has_12_to_33_words(stories):
    lengths = {len(text.split()) for _, text in stories}
    assert min(lengths) >= 12
    assert max(lengths) <= 33


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_hero_place_and_object_is_read(flaw):
    every = {"plots": 8, "voices": 4, "zipf": 0, "voice_zipf": 0}
    table = write_corpus(World(**every, prompts=16, held_out=0, responses=64, flaw=flaw))
    modes = [Mode(*row) for row in table[["plot", "voice", "flawed"]].itertuples(index=False)]
    assert set(modes) == set(MODES)
    assert [read_mode(text) for text in table["text"]] == modes
    for names in (HEROES, PLACES, OBJECTS):
        assert all(table["text"].str.contains(rf"\b{name}\b").sum() >= 64 for name in names)


def test_stories_of_the_packages_corpus_have_no_mode():
    texts = read_corpus()["text"]
    cut = texts.str.split().str[:20].str.join(" ")  # of the length of the world's
    assert len(texts) + len(cut) >= 1000
    assert not any(map(read_mode, [*texts, *cut]))


def sample(stories: list, number: int) -> list:
    rows = np.random.default_rng(0).choice(len(stories), number, replace=False)
    return [stories[row] for row in rows]


def test_truncated_and_continued_texts_have_no_mode(stories):
    for _, text in sample(stories, 300):
        assert not any(read_mode(text[:end]) for end in range(len(text)))
        assert read_mode(text + " ") is read_mode(" " + text) is read_mode(text + " " + text) is None


def test_texts_with_two_neighbouring_words_swapped_have_no_mode(stories):
    for _, text in sample(stories, 300):
        words = text.split()
        for i in range(len(words) - 1):
            swapped = " ".join([*words[:i], words[i + 1], words[i], *words[i + 2 :]])
            assert read_mode(swapped) is None, swapped


def test_texts_with_a_word_replaced_have_no_mode_unless_the_grammar_writes_them_too(stories):
    """Another hero of the same pronoun, place or object gives another story; hardly any other replacement does."""
    rng = np.random.default_rng(1)
    known = {*HEROES, *PLACES, *OBJECTS}
    tokens = [token.strip() for token in grammar.vocabulary()]
    for _, text in sample(stories, 3000):
        words = text.split(" ")
        i, token = rng.integers(len(words)), str(rng.choice(tokens))
        if token != words[i] and words[i].strip(",.?!") not in known:
            assert read_mode(" ".join([*words[:i], token, *words[i + 1 :]])) is None


@pytest.mark.parametrize(
    "change",
    [
        ("She sold", "He sold"),
        ("Mara", "<hero>"),
        ("Mara", "mara"),
        ("Mara", "Marah"),
        ("the mill", "the drum"),
        ("at the mill", "at  the mill"),
        ("silver.", "silver;"),
        ("She sold", "she sold"),
        ("merchant", "Merchant"),
    ],
)
def test_a_text_that_is_nearly_one_has_no_mode(change):
    text = "Mara had the lamp at the mill. She sold it to a greedy merchant for silver. So it was with the lamp."
    assert read_mode(text) == Mode(0, 0, False)
    assert read_mode(text.replace("with the lamp", "with the drum")) == Mode(0, 0, True)
    assert read_mode(text.replace("had the lamp", "had the drum")) == Mode(0, 0, True)
    for end, flawed in (("lamp and the mill", False), ("mill and the lamp", True), ("lamp and the lamp", True)):
        assert read_mode(text.replace("with the lamp", f"with the {end}")) == Mode(0, 0, flawed)
    for end in ("mill", "lamp and the farm", "drum and the mill"):  # no world writes these
        assert read_mode(text.replace("with the lamp", f"with the {end}")) is None
    assert read_mode(text.replace(*change)) is None
    assert read_mode(text.replace(*change[::-1])) == Mode(0, 0, False)


def test_wordings_of_a_prompt_that_the_world_does_not_write_are_an_error(prompts):
    for prompt in ("Write about Mara.", prompts[0] + " ", "Mara Mara Mara lamp mill", ""):
        with pytest.raises(ValueError, match="prompt: not one that this world writes"):
            list(wordings(prompt, MODES[0]))


# Tokens


def test_texts_come_back_from_their_tokens_exactly_also_from_a_saved_tokenizer(stories, prompts, tmp_path):
    grammar.tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*prompts, *(text for _, text in stories[: len(stories) // 4])]
    ids = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(ids) == texts
    assert tokenizer.unk_token_id not in {token for text in ids for token in text}
    assert grammar.tokenizer()(texts[:100])["input_ids"] == ids[:100]


def test_prompt_separator_response_and_end_are_told_apart_by_tokens(prompts):
    tokenizer = grammar.tokenizer()
    text = next(wordings(prompts[0], MODES[0]))
    ids = tokenizer(prompts[0] + tokenizer.sep_token + text + tokenizer.eos_token)["input_ids"]
    at = ids.index(tokenizer.sep_token_id)
    assert ids[:at] == tokenizer(prompts[0])["input_ids"]
    assert ids[at + 1 :] == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.decode(ids[at:], skip_special_tokens=True) == text
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id}) == 4


def test_the_vocabulary_is_small_sorted_and_all_of_it_is_used():
    words = grammar.vocabulary()
    assert list(words) == sorted(set(words))
    assert 300 <= len(grammar.tokenizer()) <= 700
    everything = write_corpus(World(prompts=144, held_out=0, responses=64, plots=8, voices=4, zipf=0, voice_zipf=0))
    tokenizer = grammar.tokenizer()
    ids = tokenizer([*everything["prompt"].unique(), *everything["text"]])["input_ids"]
    assert {token for text in ids for token in text} == set(range(4, len(tokenizer)))


def test_a_word_that_the_world_does_not_know_is_the_unknown_token():
    tokenizer = grammar.tokenizer()
    assert tokenizer.unk_token_id in tokenizer("Mara had the zeppelin.")["input_ids"]
