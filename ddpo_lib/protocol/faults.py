"""What a server or gateway sends when it gives no answer -> what kind of fault it is, and how long to wait.

Vendors use one status for several faults, and several for one: a wrong key is 401, 403 or 400, a filtered prompt 400,
403, 422 or 200. So the codes and the words decide together with the status.
"""

import email.utils
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "busy",  # too many requests, or overloaded; the same request may pass later
    "broken",  # the server failed, or its answer is incomplete; the same request may pass later
    "slow",  # no answer in time
    "connection",  # not reached, or cut
    "empty",  # an answer without choices
    "filtered",  # this prompt, or the answer to it, is refused by a filter
    "key",  # no access
    "quota",  # nothing is left to pay with; waiting does not help
    "model",  # no such model
    "path",  # no such address
    "long",  # the prompt and the token limit exceed the context
    "request",  # the form of the request is refused, such as a setting
]
AGAIN = ("busy", "broken", "slow", "connection", "empty")  # faults that may pass
ENDS = ("connection", "key", "quota", "model", "path")  # faults that every other prompt has too


@dataclass(frozen=True)
class Fault:
    """Why there is no answer.

    Attributes:
        kind: see `Kind`.
        message: what the server says, on one line.
        status: of HTTP, or None.
        pause: seconds that the server asks to wait, or None.
        fields: the fields of the request that the server names as wrong.
        is_json: whether the server sent JSON, and so speaks the protocol.
    """

    kind: Kind
    message: str
    status: int | None = None
    pause: float | None = None
    fields: frozenset[str] = frozenset()
    is_json: bool = False


FILTER_CODES = {
    *("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"),
    *("invalid_prompt", "moderation", "prohibited_content", "safety", "blocklist", "guardrail_intervened", "1301"),
    *("content_policy", "contentpolicyviolationerror", "input_moderation", "output_moderation", "high_risk"),
}
FILTERED = re.compile(
    r"content.?(?:filter|management|policy|policies|moderation|violat)|usage (?:guideline|polic)|\bmoderat|\bflagged\b"
    r"|content exists risk|high.?risk|inappropriate content|sensitive (?:content|information)|safety (?:system|filter|"
    r"check|polic)|safety_check|violat\w+ (?:our|the|of)?.{0,20}(?:polic|guideline|terms)|prohibited.?content|guardrail"
    r"|responsible.?ai|block_?reason|不安全|敏感|违规",
    re.I,
)
BLOCKED = re.compile(
    r"^(?!.*\b(?:ip|country|region|account|user|organi[sz]ation|project|key)\b).*\bblocked\b", re.I | re.S
)
QUOTA_CODES = {
    *("insufficient_quota", "insufficient_balance", "billing_not_active", "billing_hard_limit_reached", "arrearage"),
    *("exceeded_current_quota_error", "credit_balance_too_low", "insufficient_credits", "payment_required"),
}
QUOTA = re.compile(
    r"insufficient (?:quota|balance|credits?|funds)|credit balance|exceeded your (?:current|monthly) quota|billing"
    r"|(?:out of|not enough|no|more) credits|payment required|in arrears|overdue|recharge|spend(?:ing)? limit"
    r"|余额|欠费",
    re.I,
)
KEY = re.compile(
    r"api.?key|authenticat|unauthori[sz]ed|access denied|credentials|invalid token|bearer|subscription key", re.I
)
MODEL_CODES = {"model_not_found", "invalid_model", "model_not_available", "model_not_exist", "deploymentnotfound"}
MODEL = re.compile(
    r"models?\b.{0,80}(?:not.?(?:exist|found|available)|does.?n.t exist|unknown|invalid|decommissioned|deprecated)"
    r"|pinned to '[^']+'; requested"
    r"|(?:invalid|unknown|no such|unsupported) model|valid model|not a chat model|deployment.{0,40}does not exist",
    re.I,
)
SETTING = re.compile(r"temperature|top.?[pk]\b|max.?\w*.?tokens|penalty", re.I)
LONG = re.compile(
    r"context.?(?:length|window|size)|prompt is too long|too many (?:input )?tokens|input is too long|too large for"
    r"|maximum.{0,20}input tokens|exceed_context_size|reduce the length",
    re.I,
)
TYPES = {  # of an error that comes without a status
    **{"rate_limit_error": 429, "rate_limit_exceeded": 429, "too_many_requests": 429, "resource_exhausted": 429},
    **{"overloaded_error": 529, "overloaded": 529, "authentication_error": 401, "permission_error": 403},
    **{"unauthenticated": 401, "permission_denied": 403},
    **{"invalid_request_error": 400, "bad_request": 400, "invalid_argument": 400, "not_found_error": 404},
}
CODES = ("code", "type", "status", "reason", "error_code", "err_code", "status_code", "blockreason", "block_reason")
SAYS = ("message", "detail", "error", "msg", "error_msg", "errormessage", "status_msg", "faultstring", "title", "raw")
UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d)(?:ec(?:ond)?s?|in(?:ute)?s?|ours?|ays?|s)?(?![a-z])", re.I
)
WAIT = re.compile(
    r"(?:try again|retry|wait|available|reset)\w*\s+(?:again\s+)?(?:in|after|for)?\s*"
    r"((?:about\s+)?(?:\d+(?:\.\d+)?\s*(?:ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?)?|d(?:ays?)?)(?![a-z])\s*)+)",
    re.I,
)


def read_fault(status: int | None, body: str, headers: Mapping[str, str], now: float) -> Fault:
    """The fault of an answer.

    Args:
        status: of HTTP; 200 if the body contains an error all the same.
        body: JSON, HTML or any text.
        headers: of the answer.
        now: seconds since 1970, against which a date in `Retry-After` counts.
    """
    content = parse_json(body)
    leaves = list(_leaves(content))
    codes = {str(value).lower() for key, value in leaves if key in CODES}
    words = " ".join(str(value) for key, value in leaves if key not in CODES) if leaves else body
    if status is None or status < 300:
        status = _status_of(leaves)
    message = _message(leaves, body)
    pause = _pause(headers, leaves, message, now)
    kind = _kind(status, codes, words, bool(leaves), pause is not None)
    return Fault(kind, message, status, pause, _fields(content, leaves), bool(leaves))


def _kind(status: int, codes: set[str], words: str, is_json: bool, may_pass: bool) -> Kind:
    in_words = status in (400, 403, 422, 451)
    refusal = in_words or status >= 500  # a server that failed tells many things: there only codes count for a filter
    filtered = is_json and (FILTERED.search(words) or BLOCKED.search(words))
    if (refusal and codes & FILTER_CODES) or (status == 403 and filtered):
        return "filtered"
    if status == 402 or codes & QUOTA_CODES or (status in (400, 403, 429) and QUOTA.search(words)):
        return "busy" if may_pass and status == 429 else "quota"
    if status == 429:
        return "busy"
    if status in (401, 407) or (status in (400, 403) and KEY.search(words)):
        return "key"
    if "not_found_error" in codes and words.startswith("model: "):  # Anthropic's
        return "model"
    if status in (400, 404, 422) and (codes & MODEL_CODES or (MODEL.search(words) and not SETTING.search(words))):
        return "model"
    if status == 413 or (refusal and is_json and LONG.search(words)):
        return "long"
    if in_words and filtered:
        return "filtered"
    if status == 403:
        return "key"
    if status in (404, 405, 410, 501) or 300 <= status < 400:
        return "path"
    if status in (503, 529):
        return "busy"
    return "broken" if status >= 500 or status in (408, 409, 425) else "request"


def parse_json(body: str):
    """The content of a body, None if it is no JSON. Google's servers put an error into a list: its first entry."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content[0] if isinstance(content, list) and content else content


def _leaves(content, name: str = "", depth: int = 0) -> Iterator[tuple[str, str | int | float]]:
    """Every text and number of nested JSON with its key in lower case; JSON within text is followed too."""
    if depth > 12:
        return
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, str(key).lower(), depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _leaves(value, name, depth + 1)
    elif isinstance(content, str):
        inner = parse_json(content) if content.lstrip()[:1] in ("{", "[") else None
        yield from _leaves(inner, name, depth + 1) if isinstance(inner, dict) else [(name, content)]
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, content


def _status_of(leaves: list) -> int:
    """The status that an error in an answer with status 200 stands for; 500 if it does not say."""
    for key, value in leaves:
        if key in CODES and str(value).isdecimal() and 400 <= int(value) <= 599:
            return int(value)
    return next((TYPES[str(v).lower()] for key, v in leaves if key in CODES and str(v).lower() in TYPES), 500)


def _message(leaves: list, body: str) -> str:
    said = dict.fromkeys(" ".join(str(value).split()) for key, value in leaves if key in SAYS)
    if said:
        return "; ".join(said)
    title = re.search(r"<title[^>]*>(.*?)</title>", body, re.I | re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", title[1] if title else body).split())


def _fields(content, leaves: list) -> frozenset[str]:
    """The fields that an error names: `param` of OpenAI, `loc` of FastAPI."""
    named = {str(value) for key, value in leaves if key in ("param", "parameter", "field", "loc")}
    return frozenset(re.sub(r"^.*\.", "", name) for name in named - {"body"})


def _pause(headers: Mapping[str, str], leaves: list, message: str, now: float) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value, now)
        if seconds is not None and math.isfinite(seconds):
            return max(seconds, 0.0)
    for key, value in leaves:
        if key in ("retrydelay", "retry_delay", "retry_after", "retryafter", "retry_after_seconds"):
            seconds = float(value) if isinstance(value, int | float) else _seconds(value)
            if seconds is not None and math.isfinite(seconds):
                return max(seconds, 0.0)
    found = WAIT.search(message)
    return _seconds(found[1]) if found else None


def _until(date: str, now: float) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(words: str) -> float | None:
    """ "7m12.5s", "34s" or "5 seconds" -> seconds."""
    parts = DURATION.findall(words)
    return sum(float(number) * UNITS[unit.lower()] for number, unit in parts) if parts else None
