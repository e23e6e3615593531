"""Rows of messages have the tokens and the loss of stock TRL: system prompts, turns, tools, implicit prompts."""

import json

import pytest
from datasets import Dataset
from tiny import tiny_model, tiny_tokenizer
from trl import DPOConfig, DPOTrainer

from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

TEMPLATE = (
    "{% if tools %}near {{ tools | map(attribute='function.name') | join(' ') }} {% endif %}"
    "{% for message in messages %}{% if loud %}past {% endif %}the {{ message.role }} {{ message.content }} <end> "
    "{% endfor %}{% if add_generation_prompt %}the assistant {% endif %}"
)
TOOL = {"type": "function", "function": {"name": "ship", "description": "a ship", "parameters": {}}}


def said(role: str, *texts: str) -> list[dict]:
    return [{"role": role, "content": text} for text in texts]


SYSTEM = said("system", "old king")
TURNS = [*said("user", "a cat"), *said("assistant", "sat"), *said("user", "and a dog")]
CHOSEN, REJECTED = said("assistant", "the dog ran near the door"), said("assistant", "slept")
ROWS = {
    "one turn": {"prompt": said("user", "a cat"), "chosen": CHOSEN, "rejected": REJECTED},
    "system": {"prompt": SYSTEM + said("user", "a cat"), "chosen": CHOSEN, "rejected": REJECTED},
    "several turns": {"prompt": SYSTEM + TURNS, "chosen": CHOSEN, "rejected": REJECTED},
    "implicit prompt": {"chosen": TURNS + CHOSEN, "rejected": TURNS + REJECTED},
    "implicit prompt, text": {"chosen": "the cat and sat down", "rejected": "the cat and slept"},
    "tools": {"prompt": said("user", "a cat"), "chosen": CHOSEN, "rejected": REJECTED, "tools": [TOOL]},
    "tools as JSON": {
        "prompt": said("user", "a cat"),
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "tools": json.dumps([TOOL]),
    },
    "options of the template": {
        "prompt": said("user", "a cat"),
        "chosen": CHOSEN,
        "rejected": REJECTED,
        "chat_template_kwargs": {"loud": True},
    },
    "an answer of two turns": {
        "prompt": said("user", "a cat"),
        "chosen": CHOSEN + said("user", "and") + CHOSEN,
        "rejected": REJECTED,
    },
}


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


def build(kind, settings, rows: list[dict], folder, chat: bool = True):
    """A trainer whose reference is another model, so that losses tell which tokens they are of."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE if chat else None
    plain = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}
    args = settings(str(folder), **plain, precompute_ref_log_probs=True)
    return kind(
        tiny_model(), tiny_model(seed=1), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


@pytest.fixture(scope="module")
def trainers(folder) -> list:
    """Ours and TRL's, built with rows of another form than most below."""
    kinds = ((DeviationTrainer, DeviationConfig), (DPOTrainer, DPOConfig))
    return [build(*kind, [ROWS["one turn"]], folder) for kind in kinds]


@pytest.mark.parametrize("form", ROWS)
def test_tokens_and_loss_are_those_of_stock_trl(form, trainers):
    rows = Dataset.from_list([ROWS[form]] * 2)
    tokens, losses = [], []
    for trainer in trainers:
        made = trainer._prepare_dataset(rows, trainer.processing_class, trainer.args, "eval")[0]
        tokens.append([made[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")])
        losses.append(trainer.evaluate(rows)["eval_loss"])
    assert tokens[0] == tokens[1]
    assert all(tokens[0])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[1] != pytest.approx(0.6931, abs=1e-3)


def test_a_weight_goes_with_a_row_of_messages(trainers):
    rows = [ROWS["system"] | {"weight": weight} for weight in (0.0, 3.0)]
    plain = trainers[0].evaluate(Dataset.from_list([ROWS["system"]]))["eval_loss"]
    assert trainers[0].evaluate(Dataset.from_list(rows))["eval_loss"] == pytest.approx(1.5 * plain, abs=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS["system"] | {"prompt": "a cat"}, "row 0 of the train data: prompt is a str, chosen is a list"),
        (
            {"prompt": "a cat", "chosen": "sat"},
            r"rejected: the train data have no such column; they have prompt",
        ),
        (ROWS["system"] | {"images": ["cat.png"]}, "images"),
    ],
)
def test_rows_that_are_no_pairs_are_named(row, message, folder):
    with pytest.raises(ValueError, match=message):
        build(DeviationTrainer, DeviationConfig, [row], folder)


def test_an_empty_conversation_is_named_with_its_row(folder):
    with pytest.raises(ValueError, match=r"chosen: row 1 of the train data is empty"):
        build(DeviationTrainer, DeviationConfig, [ROWS["system"], ROWS["system"] | {"chosen": []}], folder)


def test_messages_need_a_template(folder):
    with pytest.raises(ValueError, match="chat_template"):
        build(DeviationTrainer, DeviationConfig, [ROWS["system"]], folder, chat=False)
