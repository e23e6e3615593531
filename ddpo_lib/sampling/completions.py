"""What every engine takes and returns: a conversation, and its completions."""

from dataclasses import dataclass

import pandas as pd

Conversation = list[dict[str, str]]

CUT = ("length", "content_filter")  # reasons that mean that a text is incomplete
REFUSED = ("content_filter", "refusal", "tool_calls", "no choices")  # reasons for which there may be no text at all
UNANSWERED = ("refused", "only_thoughts")  # columns of samples, true where a row is no answer


@dataclass(frozen=True)
class Completion:
    """One text.

    Attributes:
        text: what the model wrote. An engine returns it as it came; `thoughts.take_off` leaves only the answer.
        tokens: of the answer, without the end token; None if the engine does not report it.
        reason: "stop" if the model ended it, "length" at the token limit, else the engine's own word.
        thoughts: characters of thoughts, which are not part of the text.
        left_out: settings that were not sent because the server does not take them.
    """

    text: str
    tokens: int | None
    reason: str
    thoughts: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the server or the model refused, so that there is no text."""
        return not self.text and not self.only_thoughts and self.reason in REFUSED

    @property
    def only_thoughts(self) -> bool:
        """Whether the model thought and did not begin its answer."""
        return not self.text and self.thoughts > 0


def answered(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows of samples that a model answered: neither refused nor thoughts alone. Older tables lack the columns."""
    missing = [samples[column].eq(True) for column in UNANSWERED if column in samples]  # None: not known
    return samples[~pd.concat(missing, axis=1).any(axis=1)] if missing else samples


def count_unanswered(samples: pd.DataFrame) -> dict[str, int]:
    """How many rows of samples are `refused`, and how many contain `only_thoughts`."""
    return {name: int(samples[name].eq(True).sum()) if name in samples else 0 for name in UNANSWERED}
