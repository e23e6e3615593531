"""The corpus and the held-out prompts that come with the package, and the style space as that corpus shows it."""

import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ddpo_lib.data.corpus import PACKAGE_CORPUS, PACKAGE_PROMPTS, read_corpus
from ddpo_lib.data.records import LEADING_TAG
from ddpo_lib.spaces.counted import stylometric_vectors
from ddpo_lib.spaces.embed import embed


@pytest.fixture(scope="module")
def posts() -> list[dict]:
    return [json.loads(line) for line in PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def stories(posts) -> pd.DataFrame:
    """The cleaned table, with the take and the voice that each story was written for."""
    labels = {}
    for post in posts:
        for text, take, voice in zip(post["comment_texts"], post["comment_takes"], post["comment_voices"], strict=True):
            if take is not None:
                assert labels.setdefault(text.strip(), (take, voice)) == (take, voice)
    table = read_corpus()
    table["take"], table["voice"] = zip(*(labels[text] for text in table["text"]), strict=True)
    table["words"] = table["text"].str.split().str.len()
    return table


# The stories


def test_there_are_enough_prompts_and_stories_of_the_right_length(stories):
    sizes = stories.groupby("prompt_id").size()
    assert len(sizes) >= 24
    assert (sizes == 16).all()
    assert stories["words"].between(30, 70).all()
    assert stories["text"].is_unique
    assert stories["prompt"].nunique() == len(sizes)


def test_each_prompt_has_a_common_take_rare_ones_and_many_voices(stories):
    for _, group in stories.groupby("prompt_id"):
        takes = sorted(Counter(group["take"]).values())
        assert takes[-1] >= 6
        assert takes[:3] == [1, 1, 1]
        assert group["voice"].nunique() >= 8
        common = group[group["take"] == group["take"].mode()[0]]
        assert common["voice"].nunique() >= 4


def test_what_cleaning_must_drop_is_in_the_file_and_gone_from_the_table(posts, stories):
    marks = ("**Welcome to the Prompt!**", "**Off-Topic Discussion**", "this submission has been removed")
    everything = [text for post in posts for text in post["comment_texts"]]
    for mark in marks:
        assert any(mark in text for text in everything), mark
        assert not stories["text"].str.contains(mark, case=False, regex=False).any(), mark
    assert any(text.strip() in ("[removed]", "[deleted]") for text in everything)
    assert any(post["post_text"] in ("[removed]", "[deleted]") for post in posts)
    assert any(len(set(post["comment_texts"])) < len(post["comment_texts"]) for post in posts)
    assert {entry["what"] for entry in stories.attrs["dropped"]} == {
        "moderation comments",
        "removed comments",
        "removed posts",
        "duplicate responses",
    }
    gone = sum(entry["count"] for entry in stories.attrs["dropped"])
    assert len(stories) + gone == len(everything)
    assert not stories["prompt"].str.contains(r"^\s*\[|\[removed\]|\[deleted\]").any()


def test_posts_have_the_raw_schema_with_a_tag_and_times_in_order(posts):
    for post in posts:
        assert re.match(r"\[[A-Z]{2}\] \S", post["post_title"])
        assert len(post["comment_texts"]) == len(post["comment_scores"]) == len(post["comment_times"])
        assert all(type(number) is int for name in ("comment_scores", "comment_times") for number in post[name])
        assert post["comment_times"] == sorted(post["comment_times"])


def test_scores_are_whole_with_a_long_tail_in_every_prompt(stories):
    assert (stories["score"] % 1 == 0).all()
    scores = stories.groupby("prompt_id")["score"]
    assert (scores.mean() > 3 * scores.median()).all()
    assert (scores.max() > 10 * scores.median()).all()
    assert (scores.nunique() >= 14).all()


def test_scores_depend_neither_on_length_nor_on_how_common_the_take_is(stories):
    """Rank correlation within each prompt, on the mean over prompts."""
    shared_by = stories.groupby(["prompt_id", "take"])["text"].transform("size")
    for name, other in (("length", stories["words"]), ("how common", shared_by)):
        rho = [spearmanr(group["score"], other[group.index]).statistic for _, group in stories.groupby("prompt_id")]
        assert abs(np.mean(rho)) < 0.15, (name, np.mean(rho))


def test_no_two_stories_share_eight_words_in_a_row(stories):
    first = {}
    for number, text in enumerate(stories["text"]):
        words = re.findall(r"\w+(?:['’]\w+)*", text.lower())
        for start in range(len(words) - 7):
            run = tuple(words[start : start + 8])
            assert first.setdefault(run, number) == number, " ".join(run)


# The held-out prompts


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Texts of the prompts without responses, which only serve to sample trained models."""
    records = [json.loads(line) for line in PACKAGE_PROMPTS.read_text(encoding="utf-8").splitlines()]
    assert all(record.keys() == {"prompt", "responses"} and record["responses"] == [] for record in records)
    return [record["prompt"] for record in records]


def test_there_are_160_prompts_in_clean_text(prompts):
    assert len(prompts) == 160
    for prompt in prompts:
        prompt.encode("utf-8")  # fails on a lone surrogate
        assert prompt == "\n".join(" ".join(line.split()) for line in prompt.split("\n")) != "", prompt
        assert prompt.count("\n") <= 1, prompt
        assert not LEADING_TAG.match(prompt), prompt
        assert prompt.endswith((".", '."')), prompt
        assert not set(prompt) & set("“”‘’—"), prompt  # the corpus's prompts have straight quotes and no long dash


def test_the_reader_takes_each_prompt_once_as_written(prompts, tmp_path):
    """A response is put under each prompt here, since the reader passes over prompts without one."""
    path = tmp_path / "answered.jsonl"
    answered = [{"prompt": prompt, "responses": [{"text": "A story.", "score": 1}]} for prompt in prompts]
    path.write_text("".join(json.dumps(record) + "\n" for record in answered), encoding="utf-8")
    table = read_corpus(path)
    assert table["prompt"].tolist() == prompts
    assert table.attrs["dropped"] == []


def test_prompts_are_as_long_and_as_mixed_in_length_as_those_of_the_corpus(prompts, stories):
    ours = np.array([len(prompt.split()) for prompt in prompts])
    theirs = np.array([len(prompt.split()) for prompt in stories["prompt"].unique()])
    assert theirs.min() - 3 <= ours.min() and ours.max() <= theirs.max() + 7
    assert abs(np.median(ours) - np.median(theirs)) <= 3
    assert abs(ours.std() - theirs.std()) <= 1.5
    broken = [np.mean(["\n" in prompt for prompt in texts]) for texts in (prompts, stories["prompt"].unique())]
    assert abs(broken[0] - broken[1]) <= 0.1


def test_no_prompt_repeats_another_or_one_of_the_corpus(prompts, stories):
    texts = prompts + stories["prompt"].unique().tolist()
    assert len({re.sub(r"\W+", " ", text.lower()).strip() for text in texts}) == len(texts)
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    for i, one in enumerate(words):
        for j, two in enumerate(words[:i]):
            assert len(one & two) / len(one | two) <= 0.5, (texts[i], texts[j])
    vectors = embed(texts, "minilm")
    cosines = np.triu(vectors @ vectors.T, 1)
    i, j = np.unravel_index(cosines.argmax(), cosines.shape)
    assert cosines[i, j] <= 0.8, (texts[i], texts[j])


def test_prompts_spread_at_least_as_wide_in_meaning_as_those_of_the_corpus(prompts, stories):
    """Mean cosine over all pairs of prompts: low where prompts are unlike each other."""
    of_pairs = {}
    for name, texts in (("prompts", prompts), ("corpus", stories["prompt"].unique().tolist())):
        vectors = embed(texts, "minilm")
        of_pairs[name] = (vectors @ vectors.T)[np.triu_indices(len(texts), 1)].mean()
    assert of_pairs["prompts"] <= of_pairs["corpus"]


# The style space, by pairs of stories


@pytest.fixture(scope="module")
def story_pairs(stories) -> pd.DataFrame:
    """A row a pair of stories: their distance in the style space, and what they have in common."""
    vectors = stylometric_vectors(stories["text"].tolist()).astype(np.float64)
    one, two = np.triu_indices(len(stories), 1)
    same = {f"same_{c}": stories[c].to_numpy()[one] == stories[c].to_numpy()[two] for c in ("prompt", "take", "voice")}
    prompt = stories["prompt_id"].to_numpy()[one]
    return pd.DataFrame({"distance": 1 - (vectors @ vectors.T)[one, two], "prompt": prompt} | same)


def test_one_take_in_two_voices_is_further_apart_than_two_takes_in_one_voice(story_pairs):
    within = story_pairs[story_pairs["same_prompt"]]
    two_voices = within[within["same_take"] & ~within["same_voice"]]
    one_voice = within[~within["same_take"] & within["same_voice"]]
    assert two_voices["distance"].mean() > one_voice["distance"].mean() + 0.075 * within["distance"].mean()
    by_prompt = two_voices.groupby("prompt")["distance"].mean() - one_voice.groupby("prompt")["distance"].mean()
    assert by_prompt.notna().sum() >= 24
    assert (by_prompt > 0).mean() >= 0.9


def test_stories_of_one_prompt_are_no_nearer_than_stories_of_two(story_pairs):
    """Topic-blind: among pairs of different voice, a shared prompt brings two stories no closer."""
    other_voice = story_pairs[~story_pairs["same_voice"]]
    mean = other_voice.groupby("same_prompt")["distance"].mean()
    assert abs(mean[True] - mean[False]) < 0.03 * other_voice["distance"].mean()


# The style space, by single texts


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("The keeper walked to the lighthouse.", "The surgeon sneezed to the tomato."),
        ("When Bettany called, we didn't run.", "When Ottoline coughed, we didn't melt."),
        ("“STOP!” she cried.\nIt was 1984; nobody moved.", "“MARMALADE!” she sang.\nIt was 7; nobody bounced."),
        ("Grandad's hook, his wet coat.", "Librarian's kite, his small harbour."),
        ("The café's naïve owner isn't in.", "The bakery's cheerful parrot isn't in."),
    ],
)
def test_other_content_words_of_the_same_case_leave_the_vector_as_it_is(text, swapped):
    one, two = stylometric_vectors([text, swapped])
    np.testing.assert_array_equal(one, two)


def test_how_a_text_is_put_together_moves_the_vector():
    """Another function word, mark, case or number: no two of these are one style."""
    texts = [
        "The keeper walked to the lighthouse.",
        "A keeper walked to the lighthouse.",
        "The keeper walked to the lighthouse!",
        "The Keeper walked to the lighthouse.",
        "The KEEPER walked to the lighthouse.",
        "The keeper walked to the 90 lighthouse.",
    ]
    vectors = stylometric_vectors(texts)
    assert np.triu(vectors @ vectors.T, 1).max() < 0.99


def test_curly_and_straight_quotes_are_one_style():
    one, two = stylometric_vectors(["“I don’t,” he said.", '"I don\'t," he said.'])
    np.testing.assert_array_equal(one, two)


def test_emoji_alone_have_a_direction():
    vectors = stylometric_vectors(["😀", "👩‍🚀🚀", "😀😀😀"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] < 0.99


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_rows_are_unit_vectors_of_their_text_alone(texts):
    vectors = stylometric_vectors(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[-1], stylometric_vectors(texts[-1:])[0])


def test_vectors_of_many_texts_do_not_depend_on_their_order(stories):
    texts = stories["text"].tolist()[:40]
    np.testing.assert_array_equal(stylometric_vectors(texts[::-1]), stylometric_vectors(texts)[::-1])
