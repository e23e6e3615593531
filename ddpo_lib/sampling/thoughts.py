"""What a model thinks before it answers -> taken off the text, so that thoughts are not measured as a story.

A server that knows its model sends the thoughts apart. Otherwise they are in the text, between marks that differ from
model to model: `<think>` (DeepSeek, Qwen, GLM), `[THINK]` (Mistral), `◁think▷` (Kimi), channels (gpt-oss, Gemma),
`<|START_THINKING|>` (Cohere), and words in tags such as `<thinking>`, which prompts ask for. A template may contain the
opening mark, so a text may have only the closing one; at the token limit the closing mark is missing.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from ddpo_lib.sampling.completions import Completion

OPENING = "<think>"
CHANNEL_MARKS = {"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"}
WORDS = "thinking|thoughts?|reasoning|reason|reflection|analysis|scratchpad|antthinking|inner_?monologue"
# marks that only models write: they count anywhere in a text
OPEN = re.compile(
    r"<(?:seed:)?think\s*>|◁think▷|\[THINK\]|<\|START_THINKING\|>|<\|begin_of_thought\|>|<\|channel>(?:thought\b)?"
    r"|<unused94>(?:thought\b)?",
    re.I,
)
CLOSE = re.compile(
    r"</(?:seed:)?think\s*>|◁/think▷|\[/THINK\]|<\|END_THINKING\|>|<\|end_of_thought\|>|<channel\|>|<unused95>", re.I
)
# tags that a story could contain too: they count only where the text begins with one
OPEN_WORD = re.compile(rf"<({WORDS})\s*>", re.I)
CLOSE_WORD = re.compile(rf"</({WORDS})\s*>", re.I)
IN_WORDS = re.compile(  # Granite's
    r"\s*here(?:'s| is) my thought process:.*?(?:here(?:'s| is) my (?:final )?response:|$)", re.I | re.S
)
WRAPPED = re.compile(  # marks around the answer that follow some marks of thoughts
    r"\s*(?:<answer>|<response>|<\|START_RESPONSE\|>|<\|begin_of_solution\|>)(.*?)"
    r"(?:</answer>|</response>|<\|END_RESPONSE\|>|<\|end_of_solution\|>|$)\s*",
    re.I | re.S,
)
VERBALIZED = re.compile(r"<(?:text|probability)\s*>|</answer>.*<answer>", re.I | re.S)  # see `prompting`
CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(.*?)(?=<\|(?:end|return|call|start|channel)\|>|$)",
    re.S,
)
BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z\"'])(.*?)(?:assistant\s*final(.*)|$)", re.S)  # without special tokens


def split_thoughts(text: str) -> tuple[str, str]:
    """A model's text -> its answer and its thoughts, both without the marks and blank ends.

    A text without marks is returned unchanged, with empty thoughts. If the closing mark is missing, all that follows
    the opening one is thoughts. If the opening one is missing, so is all that precedes the closing one.
    """
    if "<|channel|>" in text:
        return _split_channels(text)
    if found := BARE_CHANNELS.fullmatch(text):
        return (found[2] or "").strip(), found[1].strip()
    thoughts, rest = [], text
    while block := _find_block(rest):
        start, end = block
        thoughts.append(_unmarked(rest[start:end]))
        rest = rest[:start] + rest[end:]
    if not thoughts:
        return text, ""
    wrapped = WRAPPED.fullmatch(rest)
    return (wrapped[1] if wrapped and not VERBALIZED.search(rest) else rest).strip(), "\n".join(thoughts)


def opens_thoughts(prompt: str) -> bool:
    """Whether a rendered prompt ends with the opening mark, so that the model's text begins with thoughts."""
    marks = [mark for mark in OPEN.finditer(prompt) if not prompt[mark.end() :].strip()]
    return bool(marks) or prompt.rstrip().endswith("<|channel|>analysis<|message|>")


def marks_among(tokens: Iterable[str]) -> set[str]:
    """Those of a tokenizer's special tokens that are marks of thoughts; they stay until the thoughts are taken off."""
    tokens = set(tokens)
    channels = CHANNEL_MARKS if "<|channel|>" in tokens else set()
    return {token for token in tokens if OPEN.fullmatch(token) or CLOSE.fullmatch(token)} | (tokens & channels)


def take_off(answers: list[list[Completion]]) -> list[list[Completion]]:
    """The completions of a round with only the answers as their texts, and the thoughts counted.

    If an answer has only the closing mark, the template contains the opening one. Then an answer that the token limit
    cut before its closing mark consists of thoughts.
    """
    begun = any(_lacks_opening(c.text) for completions in answers for c in completions)
    return [[_take_off(c, begun and c.reason == "length") for c in completions] for completions in answers]


def _take_off(completion: Completion, begun: bool) -> Completion:
    text = completion.text
    if begun and not (OPEN.search(text) or CLOSE.search(text)):
        text = OPENING + text
    answer, thoughts = split_thoughts(text)
    if not thoughts and answer == completion.text:
        return completion
    return replace(completion, text=answer, tokens=None, thoughts=completion.thoughts + max(len(thoughts), 1))


def _lacks_opening(text: str) -> bool:
    close, opened = CLOSE.search(text), OPEN.search(text)
    return close is not None and (opened is None or opened.start() > close.start())


def _find_block(text: str) -> tuple[int, int] | None:
    """Where the next thoughts start and end, marks included."""
    leading = len(text) - len(text.lstrip())
    if found := IN_WORDS.match(text):
        return 0, found.end()
    if first := OPEN.match(text, leading) or OPEN_WORD.match(text, leading):
        return 0, _first_end(text, first.end())
    if _lacks_opening(text):
        return 0, CLOSE.search(text).end()
    for close in CLOSE_WORD.finditer(text):
        if not re.search(rf"<{close[1]}\s*>", text[: close.start()], re.I):
            return 0, close.end()
    if opened := OPEN.search(text):
        return opened.start(), _first_end(text, opened.end())
    return None


def _first_end(text: str, start: int) -> int:
    """The end of the first closing mark after `start`; any closes any, since models mix them up."""
    ends = [mark.end() for kind in (CLOSE, CLOSE_WORD) if (mark := kind.search(text, start))]
    return min(ends, default=len(text))


def _unmarked(block: str) -> str:
    for mark in (OPEN, CLOSE, OPEN_WORD, CLOSE_WORD):
        block = mark.sub("", block)
    return block.strip()


def _split_channels(text: str) -> tuple[str, str]:
    """OpenAI's harmony format: the channel `final` is the answer; the others, and text before a channel, are not."""
    before = text[: text.index("<|channel|>")].replace("<|start|>assistant", "")
    found = CHANNEL.findall(text)
    answer = "".join(said for name, said in found if name == "final").strip()
    thoughts = [before, *(said for name, said in found if name != "final")]
    return answer, "\n".join(part.strip() for part in thoughts if part.strip())
