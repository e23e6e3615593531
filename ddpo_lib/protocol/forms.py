"""The form of a request, and how a refusal changes it: which settings are sent, and under which names.

Newer models refuse settings that older ones take: OpenAI's reasoning models take `max_completion_tokens` and no
temperature but 1, Anthropic's newest take temperature or top_p but not both, and gateways refuse what they do not know.
"""

import re
from dataclasses import dataclass, replace

from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.protocol.faults import Fault

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
OFF = {"min_p": 0.0}  # settings that no engine of this project uses, so that they are sent as what turns them off
ALIAS = "repeat_penalty"  # llama.cpp's name of the repetition penalty; it passes over the other name without a word
FIELDS = (*SETTINGS, ALIAS)
LLAMA_CPP = "llama.cpp"  # how its server names itself in the header of an answer
LIMITS = ("max_tokens", "max_completion_tokens")
LEAST = 16  # new tokens; a smaller number in a refusal is no limit
SUGGESTED = re.compile(r"did you mean[^.?]*[.?]?|\buse\s+\S+\s+instead\b|(?:supported|allowed|known) \w+ are\b.*", re.I)
NOT_BOTH = re.compile(r"\bboth\b|only one|either|mutually exclusive|(?:at the same time|together|simultaneously)", re.I)
LARGE = re.compile(
    r"too (?:large|big|high)|at most|maximum|less than or equal|exceed|range|no more than|up to|upper limit"
    r"|supports? (?:only )?\d",
    re.I,
)
CONTEXT = re.compile(r"context.{0,30}?(?:is|of|length|size|=|:)\D{0,20}(\d+)", re.I | re.S)
READ = re.compile(
    r"(\d+)\s*(?:tokens\s*)?(?:in|from|of|for) (?:the |your )?(?:messages|input|prompt|text)"
    r"|(\d+) (?:input|prompt) tokens|(?:messages|prompt|input)\D{0,30}(\d+) tokens",
    re.I,
)


@dataclass(frozen=True)
class Form:
    """`left_out`: fields that the server does not take. `limit`: its name for the most new tokens; `most`: the most
    that it allows. `takes_n`: whether it gives several samples per request, assumed until an answer shows otherwise."""

    left_out: frozenset[str] = frozenset()
    limit: str = LIMITS[0]
    most: int | None = None
    takes_n: bool = True

    def fields(self, sends: tuple[str, ...], sampling: Sampling, samples: int, limit: int) -> dict:
        """The fields of a request, without model and messages."""
        sent = [name for name in sends if name not in self.left_out]
        values = {name: OFF[name] if name in OFF else getattr(sampling, name) for name in sent}
        if "repetition_penalty" in sent and ALIAS not in self.left_out:
            values[ALIAS] = sampling.repetition_penalty
        several = {"n": samples} if samples > 1 else {}
        return {**values, **several, self.limit: min(limit, self.most or limit)}


def adapt(form: Form, asked: dict, fault: Fault) -> Form | None:
    """The form that follows a refusal, None if the refusal does not show one. It differs from the one before.

    Args:
        form: of the refused request.
        asked: the fields of that request.
        fault: the refusal.
    """
    named = _named(fault, asked)
    settings = [name for name in FIELDS if name in named]
    other = LIMITS[1] in fault.message  # the other name for the limit
    if form.limit in named or other:
        if most := _smaller(fault, asked[form.limit]):
            return replace(form, most=most)
        if form.limit == LIMITS[0] and (other or not settings):
            return replace(form, limit=LIMITS[1])
    if _speaks_of(fault.message, "temperature", "top_p") and NOT_BOTH.search(fault.message) and "top_p" in asked:
        return replace(form, left_out=form.left_out | {"top_p"})
    if settings:
        several = form.takes_n and not ("n" in named and asked.get("n", 1) > 1)
        return replace(form, left_out=form.left_out.union(settings), takes_n=several)
    return replace(form, takes_n=False) if fault.kind == "request" and asked.get("n", 1) > 1 else None


def truncation(software: str, sends: tuple[str, ...]) -> str | None:
    """What a server leaves out of a distribution since some settings are not sent; None if nothing is known.

    Args:
        software: the header `Server` of an answer.
        sends: the settings that are sent.
    """
    missing = [name for name in ("top_k", "min_p") if name not in sends]
    if not missing or not software.startswith(LLAMA_CPP):
        return None
    return (
        "llama.cpp samples from the 40 likeliest tokens only (top_k), and from those with at least 5% of the likeliest "
        f"one's probability (min_p), unless it gets these settings; not sent: {', '.join(missing)}. To sample as the "
        f"other engines do, send {','.join(SETTINGS)} (--sends, or `sends` of a baseline)"
    )


def room(fault: Fault, limit: int) -> int | None:
    """The new tokens for which the context of a server has room, if its message says so and they are fewer."""
    context, read = CONTEXT.search(fault.message), READ.search(fault.message)
    if context is None or read is None:
        return None
    left = int(context[1]) - int(next(filter(None, read.groups())))
    return left if 0 < left < limit else None


def _named(fault: Fault, asked: dict) -> set[str]:
    """The fields of the request that a refusal names, at best as its own field, else in its words."""
    known = {_plain(name): name for name in asked}
    fields = {known[_plain(field)] for field in fault.fields if _plain(field) in known}
    return fields or {name for name in asked if _speaks_of(SUGGESTED.sub("", fault.message), name)}


def _speaks_of(message: str, *names: str) -> bool:
    """Whether a message contains each name, in any spelling: top_p, topP, top-p, `top p`."""
    return all(re.search(_spelt(name), message, re.I) for name in names)


def _spelt(name: str) -> str:
    if name == "n":  # one letter is a name only as one
        return r"""['"`]n['"`]|\bn (?:must|is|>|=|should)|\bto n\b|\bn,|parameter:? n\b"""
    return r"(?<![a-z])" + re.escape(name).replace("_", r"[_\s-]?") + r"(?![a-z])"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _smaller(fault: Fault, limit: int) -> int | None:
    """The largest number below the token limit that a refusal of the limit names, which is what is allowed."""
    if CONTEXT.search(fault.message) or not (LARGE.search(fault.message) or ">" in fault.message):
        return None
    numbers = re.findall(r"(?<![\w.-])\d[\d,]*(?![\w.-]*\w)", fault.message)
    allowed = [int(number.replace(",", "")) for number in numbers]
    return max((number for number in allowed if LEAST <= number < limit), default=None)
