"""Tasks that no other seed has read, answers as skewed as the settings say, and tokens that restore a text."""

import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.domains import arithmetic_corpus as corpora
from ddpo_lib.domains.arithmetic import Task, check, write
from ddpo_lib.domains.arithmetic_corpus import prompt_of, read_task, tokenizer, write_corpus, write_language
from ddpo_lib.profiles.profile import load_profile

SMALL = load_profile("smoke").domains


def with_(**fields):
    return SMALL.model_copy(update=fields)


def test_a_prompt_is_read_as_its_task():
    task = Task((2, 3, 4), 13)
    assert prompt_of(task) == "make 13 from 2 3 4" and read_task(prompt_of(task)) == task
    with pytest.raises(ValueError, match="expected the form"):
        read_task("make a story")


def test_answers_are_what_the_corpus_says():
    corpus = write_corpus(SMALL, 0)
    for row in corpus.itertuples():
        found = check(read_task(row.prompt), row.text)
        assert (found.right, write(found.mode)) == (row.right, row.mode)
        assert row.score == (corpora.GOOD if row.right else corpora.BAD)
    assert corpus.equals(write_corpus(SMALL, 0)) and not corpus.equals(write_corpus(SMALL, 1))
    assert corpus.groupby("split")["prompt_id"].nunique().to_dict() == {"train": 12, "test": 4}


def test_modes_are_as_common_as_the_settings_say():
    settings = with_(responses=3000, tasks=1, held_out=1, wrong=0.4, zipf=1.0)
    corpus = write_corpus(settings, 0)
    corpus = corpus[corpus["split"] == "train"]
    assert corpus["right"].mean() == pytest.approx(0.6, abs=0.04)
    task = read_task(corpus["prompt"].iloc[0])
    modes = [write(mode) for mode in corpora.right_modes(task, settings.arithmetic)]
    shares = corpus.loc[corpus["right"], "mode"].value_counts(normalize=True)
    whole = sum(1 / rank for rank in range(1, len(modes) + 1))
    assert [shares[mode] for mode in modes[:2]] == pytest.approx([1 / whole, 1 / 2 / whole], abs=0.05)
    assert set(shares.index) == set(modes)


def test_the_common_start_has_read_no_task_that_a_seed_holds_out_and_no_wrong_answer():
    settings = with_(seeds=3)
    language = write_language(settings)
    held_out = {prompt_of(task) for seed in range(3) for task in corpora.tasks_of(settings, seed)[1]}
    assert len(held_out) > 4 and not held_out & set(language["prompt"])
    assert language["prompt"].nunique() + len(held_out) == len(corpora.all_tasks(settings.arithmetic))
    assert language["right"].all()
    train, test = corpora.tasks_of(settings, 0)
    assert not set(train) & set(test)


def test_too_many_tasks_are_refused_with_what_to_lower():
    with pytest.raises(InputError, match=r"domains.tasks: 10004 tasks .* allows \d+; lower tasks"):
        corpora.tasks_of(with_(tasks=10_000), 0)
    every = len(corpora.all_tasks(SMALL.arithmetic))
    with pytest.raises(InputError, match="hold out all tasks"):
        write_language(with_(tasks=1, held_out=every - 1, seeds=30))


def test_tokens_restore_each_text_and_none_is_unknown():
    words = tokenizer(SMALL.arithmetic)
    corpus = write_corpus(SMALL, 0)
    for text in {*corpus["text"], *corpus["prompt"]}:
        tokens = words(text)["input_ids"]
        assert words.unk_token_id not in tokens and words.decode(tokens) == text
        assert len(tokens) == len(text.split())
