"""Where a prompt ends and its response begins: at the edge of a token, or inside one.

A model is sampled after the tokens of the prompt alone. It is trained on the tokens of prompt and response together.
If a prompt ends inside a token, as "Story: " does where " Once" is one token, its last tokens change when a response
follows, and the model is trained after other tokens than those it is sampled after.
"""

import logging

from ddpo_lib.base.errors import InputError

log = logging.getLogger(__name__)

STARTS = ("Once upon a time", "The door", "I was")  # how a response may begin
SHOWN = 4  # tokens


def changed_tokens(tokenizer, prompt: str, response: str) -> tuple[list[str], list[str]] | None:
    """The last tokens of a prompt alone, and those in their place when a response follows; None if they are the same.

    Args:
        tokenizer: of the model.
        prompt, response: texts, without an end token.
    """
    alone, together = tokenizer(prompt).input_ids, tokenizer(prompt + response).input_ids
    same = next((i for i, (a, b) in enumerate(zip(alone, together, strict=False)) if a != b), len(alone))
    if same >= len(alone) or (len(alone) == 1 and not prompt):
        return None
    return tuple([tokenizer.decode([token]) for token in ids[same : same + SHOWN]] for ids in (alone, together))


def check_end(tokenizer, template: str) -> None:
    """Check that a template ends at the edge of a token, whatever response follows.

    Args:
        tokenizer: of the model.
        template: with `{prompt}`.

    Raises:
        InputError: it ends inside a token; the message shows the tokens.
    """
    prompt = template.replace("{prompt}", "A lighthouse keeper finds a letter.")
    for start in STARTS:
        if found := changed_tokens(tokenizer, prompt, start):
            alone, together = found
            raise InputError(
                f"model.template: ends inside a token. It ends in the tokens {alone}, and when a response such as "
                f"{start!r} follows, in {together}, so the model would be trained on other tokens than it is sampled "
                "after. Leave out the blanks at the end of the template, or end it with one line break"
            )


def plain_texts(pairs) -> tuple[list[str], list[str]]:
    """Prompts and chosen responses of a data set in memory; none of a stream or of conversations, which TRL checks."""
    if not {"prompt", "chosen"} <= {*(getattr(pairs, "column_names", None) or ())} or not hasattr(pairs, "__len__"):
        return [], []
    prompts, chosen = list(pairs["prompt"]), list(pairs["chosen"])
    return (prompts, chosen) if all(isinstance(text, str) for text in (*prompts[:1], *chosen[:1])) else ([], [])


def warn_of_prompts(tokenizer, prompts: list[str], responses: list[str], kept: list[int], name: str) -> None:
    """Log a warning if prompts end inside a token: how many, and the tokens of the first.

    Args:
        tokenizer: of the model.
        prompts, responses: n texts each.
        kept: n numbers of tokens of the prompts that are the same when the response follows.
        name: of the data.
    """
    distinct = list(dict.fromkeys(prompts))
    alone = dict(zip(distinct, map(len, tokenizer(distinct).input_ids), strict=True)) if distinct else {}
    rows = [row for row, prompt in enumerate(prompts) if kept[row] < alone[prompt]]
    if not rows:
        return
    found = changed_tokens(tokenizer, prompts[rows[0]], responses[rows[0]])
    shown = f": its last tokens are {found[0]} alone and {found[1]} with the response" if found else ""
    log.warning(
        "%d of %d prompts of the %s data end inside a token, first row %d%s. The model is trained on other tokens than "
        "it is sampled after; let prompts end without a blank, or with one line break",
        len(rows),
        len(prompts),
        name,
        rows[0],
        shown,
    )
