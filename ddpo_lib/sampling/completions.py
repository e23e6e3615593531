"""What every engine takes and returns: a conversation, and its completions."""

from dataclasses import dataclass

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class Completion:
    """One text. `reason`: "stop" if the model ended it, "length" at the token limit, else the engine's own word."""

    text: str
    tokens: int | None  # without the end token; None if the engine does not report it
    reason: str
