"""A conversation -> the text that a model continues, and the tokens of that text; tokens -> text."""

from collections.abc import Callable

from ddpo_lib.sampling.completions import Conversation
from ddpo_lib.sampling.thoughts import marks_among

Render = Callable[[Conversation], str]


def chat(tokenizer) -> Render:
    """Conversation -> text that the model continues: by its chat template, or as plain paragraphs without one."""
    if tokenizer.chat_template is None:
        return lambda messages: "".join(message["content"] + "\n\n" for message in messages)
    return lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def fill_template(template: str) -> Render:
    """Conversation -> the template that arms are trained with; its `{prompt}` is replaced by the last message."""
    return lambda messages: template.replace("{prompt}", messages[-1]["content"])


def encode(tokenizer, text: str) -> list[int]:
    """The tokens of a rendered text. The begin token is added only if the chat template has not written it."""
    begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    return tokenizer(text, add_special_tokens=not begun).input_ids


def decode_marked(tokenizer, tokens) -> str:
    """The text of tokens without special tokens, except marks of thoughts, which tell where the answer begins."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    marks = marks_among(special)
    if not marks:
        return tokenizer.decode(tokens, skip_special_tokens=True)
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    for token in sorted(special - marks, key=len, reverse=True):
        text = text.replace(token, "")
    return text
