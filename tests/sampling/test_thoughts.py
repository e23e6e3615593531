"""What models write around their answers, mark by mark, and what of it is the answer."""

import pandas as pd
import pytest
from tiny import tiny_model, tiny_tokenizer
from transformers import AddedToken

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.completions import Completion
from ddpo_lib.sampling.engines import Local
from ddpo_lib.sampling.generate import generate
from ddpo_lib.sampling.rendering import decode_marked, fill_template
from ddpo_lib.sampling.thoughts import opens_thoughts, split_thoughts, take_off

STORY = "It rained. Someone came back."
HARMONY = "<|channel|>analysis<|message|>A bench?<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [
        (f"<think>\nA bench?\n</think>\n\n{STORY}", "A bench?"),
        (f"<think></think>{STORY}", ""),
        (f"A bench?\n</think>\n\n{STORY}", "A bench?"),  # the template contains the opening mark
        (f"<THINK >A bench?</THINK>{STORY}", "A bench?"),
        (f"<thinking>A bench?</thinking>\n{STORY}", "A bench?"),
        (f"<thinking>A bench?</think>\n{STORY}", "A bench?"),  # marks that do not match
        (f"A bench?</thinking>\n{STORY}", "A bench?"),
        (f"<thought>A bench?</thought>{STORY}", "A bench?"),
        (f"<reasoning>A bench?</reasoning>\n<answer>\n{STORY}\n</answer>", "A bench?"),
        (f"<think>A bench?</think><answer>{STORY}</answer>", "A bench?"),
        (f"<think>A <think> tag?</think>{STORY}", "A  tag?"),
        (f"<think>A<think>bench</think>?</think>{STORY}", "Abench\n?"),
        (f"<seed:think>A bench?</seed:think>{STORY}", "A bench?"),
        (f"◁think▷A bench?◁/think▷{STORY}", "A bench?"),
        (f"[THINK]A bench?[/THINK]{STORY}", "A bench?"),
        (f"<|START_THINKING|>A bench?<|END_THINKING|><|START_RESPONSE|>{STORY}<|END_RESPONSE|>", "A bench?"),
        (
            f"<|begin_of_thought|>A bench?<|end_of_thought|><|begin_of_solution|>{STORY}<|end_of_solution|>",
            "A bench?",
        ),
        (f"<unused94>thought\nA bench?<unused95>{STORY}", "A bench?"),
        (f"<|channel>thought\nA bench?<channel|>{STORY}", "A bench?"),
        (f"{HARMONY}{STORY}<|return|>", "A bench?"),
        (f"{HARMONY}{STORY}", "A bench?"),
        (f"analysisA bench?assistantfinal{STORY}", "A bench?"),  # the same without special tokens
        (f"Here is my thought process: A bench?\nHere is my response:\n{STORY}", None),
        ("It rained. <think>A bench?</think>Someone came back.", "A bench?"),
        ("<think>A</think>It rained. <think>bench?</think>Someone came back.", "A\nbench?"),
        ("<think>A bench?</think>\n<think>", "A bench?\n"),
    ],
)
def test_thoughts_are_taken_off(text, thoughts):
    answer, found = split_thoughts(text)
    assert answer == ("" if text.endswith("<think>") else STORY)
    assert thoughts is None or found == thoughts
    (one,) = take_off([[Completion(text, 9, "stop")]])[0]
    assert (one.text, one.tokens, one.thoughts > 0) == (answer, None, True)


@pytest.mark.parametrize(
    "text",
    [
        "<think>A bench? And who",
        "\n[THINK]A bench?",
        "◁think▷",
        "<thinking>A bench?",
        "<|channel|>analysis<|message|>A bench?",
        "analysisA bench? An old man",
        "<think>A bench?</think>\n",
        "A bench?</think>",
    ],
)
def test_thoughts_without_an_answer_leave_no_text(text):
    (one,) = take_off([[Completion(text, 9, "length")]])[0]
    assert one.text == ""
    assert one.only_thoughts
    assert not one.refused


@pytest.mark.parametrize(
    "text",
    [
        STORY,
        "",
        "She was thinking. </p> I think; <i>think</i> 2 < 3 > 1",
        "He wrote <thought>who</thought> on the wall.",  # words in tags, and not at the start: a story's own
        "The analysis said: assistantfinal.",
        "analysis of a fall",
        "[A thought] is a stage direction.",
        "<answer><probability>0.1</probability><text>One.</text></answer>",
    ],
)
def test_a_story_is_left_as_it_is(text):
    assert split_thoughts(text) == (text, "")
    one = Completion(text, 9, "stop")
    assert take_off([[one]]) == [[one]]


def test_several_answers_with_probabilities_stay_apart():
    said = "<answer><probability>0.1</probability><text>One.</text></answer>"
    assert split_thoughts(f"<think>Two?</think>{said}{said}")[0] == said + said
    assert split_thoughts(f"<think>Two?</think>{said}")[0] == said


def test_if_the_template_begins_the_thoughts_an_answer_that_was_cut_is_thoughts():
    whole, cut = Completion(f"A bench?</think>{STORY}", 9, "stop"), Completion("A bench? And", 4, "length")
    told = Completion("A bench? And", 4, "stop")
    assert [c.text for c in take_off([[whole], [cut, told]])[1]] == ["", "A bench? And"]
    assert take_off([[told], [cut]]) == [[told], [cut]]  # nothing shows that they are thoughts


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("What does <think> mean?\nassistant\n", False),
        ("", False),
    ],
)
def test_a_prompt_that_begins_the_thoughts(prompt, opens):
    assert opens_thoughts(prompt) == opens


def test_marks_that_are_special_tokens_stay_until_thoughts_are_taken_off():
    tokenizer = tiny_tokenizer()
    assert decode_marked(tokenizer, [*tokenizer("a king").input_ids, tokenizer.eos_token_id]) == "a king"
    marks = ["[THINK]", "[/THINK]", "<|end|>"]
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    ids = [*tokenizer("[THINK] the cat [/THINK] a king <|end|>").input_ids, tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == "the cat a king".split()  # the border is lost
    assert split_thoughts(decode_marked(tokenizer, ids)) == ("a king", "the cat")


def test_a_template_that_begins_the_thoughts_of_a_model_here():
    engine = Local(tiny_model(), tiny_tokenizer(), fill_template("the {prompt} and <think>\n"))
    prompts = pd.DataFrame({"prompt_id": ["p0"], "prompt": ["cat sat"]})
    with pytest.raises(InputError, match=r"2 of 2 answers are only thoughts"):
        generate(engine, prompts, Sampling(samples=2, max_new_tokens=6), 0)
