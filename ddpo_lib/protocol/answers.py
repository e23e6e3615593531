"""The body of a server's answer -> its choices, or the fault that it contains.

Servers differ in what they call a chat completion. The text is a string, a list of parts or missing; thoughts are in
the text, beside it under several names, or parts of it; some servers send chunks of a stream that nobody asked for.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from ddpo_lib.protocol.faults import Fault, parse_json, read_fault

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks", "thoughts")
THINKING = ("thinking", "reasoning", "thought", "redacted_thinking", "reasoning_content", "reasoning.text")
REASONS = {  # what vendors call the end of an answer
    **dict.fromkeys(("", "stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "null"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length", "max_length"), "length"),
    **dict.fromkeys(
        (
            *("content_filter", "safety", "prohibited_content", "blocklist", "recitation", "spii", "sensitive"),
            *("image_safety", "guardrail_intervened", "content_filtered", "error_toxic", "language"),
        ),
        "content_filter",
    ),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call", "malformed_function_call"), "tool_calls"),
    "refusal": "refusal",
}
FAILED = ("error", "insufficient_system_resource", "network_error", "abort", "error_limit")  # the server's, not an end
BLOCKED = ("promptfeedback", "prompt_feedback", "blockreason", "block_reason")


class Choice(NamedTuple):
    """One of the texts that a server sends; the fields are those of `sampling.completions.Completion`."""

    text: str
    tokens: int | None
    reason: str
    thoughts: int


def read_answer(body: str, headers: Mapping[str, str], now: float) -> list[Choice] | Fault:
    """The choices of a body that came with status 200, by `index`; or a fault.

    Half a character (a lone surrogate, or a broken byte) becomes U+FFFD.
    """
    content = _join_chunks(body) if _is_stream(body) else parse_json(body)
    if isinstance(content, dict) and not _has_choices(content) and _says_error(content):
        return read_fault(200, json.dumps(content), headers, now)
    if not isinstance(content, dict):
        begun = body.lstrip()
        kind = "broken" if begun[:1] in ("{", "[", "") or begun == "null" or _is_stream(body) else "path"
        return Fault(kind, " ".join(body.split()) or "an empty answer", 200)
    choices = content.get("choices", content.get("candidates"))
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        blocked = any(key.lower() in BLOCKED for key in content)
        return Fault("filtered" if blocked else "empty", f"JSON without choices: {body[:200]}", 200, is_json=True)
    for choice in choices:
        if choice.get("error") or str(choice.get("finish_reason")).lower() in FAILED:
            return read_fault(200, json.dumps(choice.get("error") or {"error": "it broke off"}), headers, now)
    usage = content.get("usage") if len(choices) == 1 else None
    return [_read_choice(choice, usage) for choice in sorted(choices, key=_index)]


def mend(text: str) -> str:
    """The text with each half of a character as U+FFFD; two halves that belong together become their character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _index(choice: dict) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _has_choices(content: dict) -> bool:
    return isinstance(content.get("choices"), list) and len(content["choices"]) > 0


def _says_error(content: dict) -> bool:
    if content.get("error") or content.get("object") == "error" or content.get("type") == "error":
        return True
    return not {"choices", "candidates"} & content.keys() and bool({"detail", "message", "msg"} & content.keys())


def _read_choice(choice: dict, usage) -> Choice:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    text, thoughts = _read_content(choice.get("text") if content is None else content)
    apart = next(
        (message[name] for name in THOUGHTS if message.get(name)), None
    )  # some servers send it under two names
    thoughts += len(apart if isinstance(apart, str) else json.dumps(apart, ensure_ascii=False)) if apart else 0
    text = mend(text).strip()
    reason = str(choice.get("finish_reason") or choice.get("stop_reason") or "").lower()
    reason = REASONS.get(reason, reason)
    if not text and reason == "length":
        thoughts = max(thoughts, 1)  # hidden ones, as those of OpenAI's models
    if message.get("refusal") and not text:
        reason = "refusal"
    elif not text and (message.get("tool_calls") or message.get("function_call")):
        reason = "tool_calls"
    elif not text and not thoughts and reason == "stop":
        reason = "no text"
    return Choice(text, _count_tokens(usage, thoughts), reason, thoughts)


def _read_content(content) -> tuple[str, int]:
    """A text or a list of parts -> the text, and the number of characters of thoughts among the parts."""
    if isinstance(content, str):
        return content, 0
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return "", 0
    texts, thoughts = [], 0
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            if part.get("type") in THINKING or part.get("thought") is True:
                thoughts += max(len(json.dumps(part.get("thinking") or part.get("text") or "", ensure_ascii=False)), 1)
            else:
                text = part.get("text", part.get("content"))
                texts.append(text if isinstance(text, str) else _read_content(text)[0])
    return "".join(texts), thoughts


def _count_tokens(usage, thoughts: int) -> int | None:
    """The tokens of the only choice without those of its thoughts; None if their share is not known."""
    total = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(total, int):
        return None
    details = usage.get("completion_tokens_details")
    spent = details.get("reasoning_tokens") if isinstance(details, dict) else None
    spent = spent if isinstance(spent, int) else usage.get("reasoning_tokens")
    if isinstance(spent, int) and 0 < spent <= total:
        return total - spent
    return None if thoughts else total


def _is_stream(body: str) -> bool:
    """Whether a body consists of server-sent events, or of one chunk per line."""
    first = body.lstrip()[:6].lower()
    return first.startswith(("data:", "event:", ":", "id:")) or '"chat.completion.chunk"' in body[:400]


def _join_chunks(body: str) -> dict | None:
    """Chunks of a stream -> the answer that they make up; None if it breaks off before its end."""
    choices: dict[int, dict] = {}
    usage, ended = None, False
    for line in body.splitlines():
        data = line.strip().removeprefix("data:").strip()
        if data == "[DONE]":
            ended = True
        chunk = parse_json(data)
        if not isinstance(chunk, dict):
            continue
        if chunk.get("error"):
            return chunk
        usage = chunk.get("usage") or usage
        for part in filter(lambda choice: isinstance(choice, dict), chunk.get("choices") or ()):
            whole = choices.setdefault(_index(part), {"index": _index(part), "message": {}})
            whole["finish_reason"] = part.get("finish_reason") or whole.get("finish_reason")
            _add_delta(whole["message"], part.get("delta") or part.get("message") or {})
    whole = ended or all(choice["finish_reason"] for choice in choices.values())
    return {"choices": list(choices.values()), "usage": usage} if choices and whole else None


def _add_delta(message: dict, delta: dict) -> None:
    for name, value in delta.items():
        if not value:
            continue
        if name == "content":
            message.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        elif name in THOUGHTS and isinstance(value, str):
            message[name] = message.get(name, "") + value
        else:
            message[name] = value
