"""Prompts that end inside a token, with the embedded model's own tokenizer."""

import pytest
from datasets import Dataset
from tiny import tiny_model, tiny_tokenizer

from ddpo_lib.base.errors import InputError
from ddpo_lib.models.boundaries import changed_tokens, check_end, warn_of_prompts
from ddpo_lib.models.models import load_tokenizer, token_counter
from ddpo_lib.profiles.profile import load_profile, names


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("prompt", "response", "found"),
    [
        ("Story:", " Once", None),
        ("Story:\n", "Once", None),
        ("Story: ", "Once", ([" "], [" Once"])),
        ("Story:\n\n", "Once", (["\n\n"], ["\n", "\n", "Once"])),
        ("A cat", "alogue", ([" cat"], [" catalogue"])),
    ],
)
def test_the_tokens_that_change_are_shown(tokenizer, prompt, response, found):
    assert changed_tokens(tokenizer, prompt, response) == found


def test_a_template_that_ends_inside_a_token_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"model.template: ends inside a token.*\[' '\].*\[' Once'"):
        token_counter("smollm2-135m-instruct", None, "### Prompt:\n{prompt}\n### Story: ")
    check_end(tokenizer, "### Prompt:\n{prompt}\n### Story:")


def test_the_templates_of_the_shipped_profiles_end_at_a_token(tokenizer):
    for name in names():
        check_end(tokenizer, load_profile(name).model.template)


def test_prompts_that_end_inside_a_token_are_counted(tokenizer, caplog):
    warn_of_prompts(tokenizer, ["Sea:\n", "Sea: "], ["Blue.", "Blue."], [3, 2], "train")
    assert "1 of 2 prompts of the train data end inside a token, first row 1: its last tokens are [' '] alone and" in (
        caplog.text
    )
    caplog.clear()
    warn_of_prompts(tokenizer, ["Sea:\n"] * 2, ["Blue."] * 2, [3, 3], "train")
    assert caplog.text == ""


def test_the_trainer_looks_at_its_data(tmp_path, monkeypatch, caplog):
    from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rows = {"prompt": ["the old ", "the cat"], "chosen": ["king", "sat"], "rejected": ["dog", "ran"]}
    config = DeviationConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    settings = {"args": config, "train_dataset": Dataset.from_dict(rows), "processing_class": tiny_tokenizer()}
    DeviationTrainer(tiny_model(), **settings)
    assert "1 of 2 prompts of the train data end inside a token, first row 1" in caplog.text
