"""What every engine takes and gives: a conversation, and the completions of it."""

from dataclasses import dataclass

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class Completion:
    """One text. `reason`: "stop" where the model ended it, "length" at the token limit, else the engine's word."""

    text: str
    tokens: int | None  # without the end token; None: the engine does not say
    reason: str
