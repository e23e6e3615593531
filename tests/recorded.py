"""What servers and gateways answer when they are busy, broken or cautious, or have their own ways: one table.

Shapes, codes and statuses are those of the vendors; the words are shortened. Each row is answered once, to a request
for one sample of the first prompt, and then good answers follow.
"""

import email.utils
import json
import time
from typing import NamedTuple

from scripted import Sent, chat


class Row(NamedTuple):
    """`then`: what follows from the answer.

    again: the request is repeated and passes. refused: the prompt is kept as refused. thoughts: kept as thoughts alone.
    text: `says` is the sample. left out: `says` are the settings that are not sent from then on. fits: passes after the
    form has changed so that the request contains `says`. fails: the prompt fails, and others go on. ends: no other
    request is sent; `says` is in the error.
    """

    name: str
    sent: Sent
    then: str
    says: object = ""


def openai(
    message: str, code: str | None = None, param: str | None = None, kind: str = "invalid_request_error"
) -> dict:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def google(message: str, code: int, status: str, **more) -> list:
    return [{"error": {"code": code, "message": message, "status": status, **more}}]


def anthropic(kind: str, message: str) -> dict:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def mistral(message: str, kind: str, code: str | None = None) -> dict:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


def fastapi(field: str, message: str, kind: str = "extra_forbidden") -> dict:
    return {"detail": [{"type": kind, "loc": ["body", field], "msg": message, "input": 0}]}


def litellm(message: str, code: str) -> dict:
    return {"error": {"message": f"litellm.BadRequestError: AzureException - {message}", "type": None, "code": code}}


def routed(message: str, code: int, **metadata) -> dict:
    return {"error": {"message": message, "code": code, "metadata": metadata}, "user_id": "u"}


def stream(*deltas: dict, reason: str | None = "stop", done: bool = True) -> str:
    chunk = {"id": "1", "object": "chat.completion.chunk"}
    parts = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if reason:
        parts.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    lines = [": keep-alive", *(f"data: {json.dumps(part)}" for part in parts), *["data: [DONE]"] * done]
    return "\n\n".join(lines) + "\n\n"


def message(content, reason="stop", **more) -> dict:
    return chat({"message": {"role": "assistant", "content": content, **more}, "finish_reason": reason})


HTML = "<!DOCTYPE html><html><head><title>{}</title></head><body><center>nginx</center></body></html>"
AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
        },
    }
}
IN_A_SECOND = email.utils.formatdate(time.time() + 1, usegmt=True)
TOMORROW = email.utils.formatdate(time.time() + 86400, usegmt=True)

BUSY = [
    Row(
        "429, a pause in seconds",
        Sent(429, openai("Rate limit reached", "rate_limit_exceeded"), {"Retry-After": 0.01}),
        "again",
    ),
    Row(
        "429, a pause in milliseconds",
        Sent(429, openai("Slow down"), {"retry-after-ms": 10, "Retry-After": 9999}),
        "again",
    ),
    Row("429, a date in the past", Sent(429, "", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), "again"),
    Row("429, a date", Sent(429, "", {"Retry-After": IN_A_SECOND}), "again"),
    Row("429, a pause that is none", Sent(429, "slow down", {"Retry-After": "soon"}), "again"),
    Row("429, a pause in the message", Sent(429, openai("Rate limit reached. Please try again in 12ms.")), "again"),
    Row(
        "429, Google's minute",
        Sent(
            429,
            google(
                "You exceeded your current quota, please check your plan and billing details.",
                429,
                "RESOURCE_EXHAUSTED",
                details=[{"@type": "RetryInfo", "retryDelay": "0.01s"}],
            ),
        ),
        "again",
    ),
    Row("429, tomorrow", Sent(429, openai("Daily limit"), {"Retry-After": TOMORROW}), "fails", "asks for a pause"),
    Row("429, seven minutes", Sent(429, openai("Limit 200 a day. Try again in 7m12.5s.")), "fails", "a pause of 432 s"),
    Row("429, an endless pause", Sent(429, openai("Limit"), {"Retry-After": "1e999"}), "again"),
    Row("500", Sent(500, openai("The server had an error", kind="server_error")), "again"),
    Row("500, of a filter that failed", Sent(500, openai("The safety system is down", kind="server_error")), "again"),
    Row("500, plain", Sent(500, "Internal Server Error"), "again"),
    Row("502, HTML", Sent(502, HTML.format("502 Bad Gateway")), "again"),
    Row("503, model loading", Sent(503, openai("Loading model", "unavailable_error")), "again"),
    Row("503, HTML", Sent(503, HTML.format("503 Service Temporarily Unavailable"), {"Retry-After": 0}), "again"),
    Row("504", Sent(504, HTML.format("504 Gateway Time-out")), "again"),
    Row("520", Sent(520, HTML.format("520: Web server returned an unknown error")), "again"),
    Row("524", Sent(524, HTML.format("524: A timeout occurred")), "again"),
    Row("529", Sent(529, anthropic("overloaded_error", "Overloaded")), "again"),
    Row("408", Sent(408, openai("Request timed out")), "again"),
    Row("409", Sent(409, openai("The model is being updated")), "again"),
    Row("425", Sent(425, ""), "again"),
    Row(
        "200 with an error and a status", Sent(200, routed("Provider returned error", 502, provider_name="p")), "again"
    ),
    Row("200 with an error and no status", Sent(200, {"error": "upstream connect error"}), "again"),
    Row("200 with an overload", Sent(200, anthropic("overloaded_error", "Overloaded")), "again"),
    Row(
        "200 with an error in the choice",
        Sent(
            200,
            chat(
                {
                    "message": {"role": "assistant", "content": "It ra"},
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Provider disconnected"},
                }
            ),
        ),
        "again",
    ),
    Row("200, interrupted", Sent(200, message("It ra", "insufficient_system_resource")), "again"),
    Row("200 with half of the JSON", Sent(200, '{"choices": [{"index": 0, "mess'), "again"),
    Row("200 with nothing", Sent(200, ""), "again"),
    Row("200 with blank lines", Sent(200, "\n\n\n"), "again"),
    Row("200 with null", Sent(200, "null"), "again"),
    Row("200 without choices", Sent(200, {"id": "1", "object": "chat.completion"}), "again"),
    Row("200 with no choice", Sent(200, chat()), "again"),
    Row("200 with null as choices", Sent(200, {"choices": None}), "again"),
    Row("200, JSON nested too deep", Sent(200, "[" * 100_000), "again"),
    Row("a stream that breaks off", Sent(200, stream({"content": "It ra"}, reason=None, done=False)), "again"),
    Row("a stream with an error", Sent(200, 'data: {"error": {"message": "overloaded", "code": 503}}\n\n'), "again"),
    Row("a reset connection", Sent(habit="reset"), "again"),
    Row("a connection cut within the body", Sent(200, message("It rained."), habit="cut"), "again"),
    Row("a body cut within its zip", Sent(200, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"}), "again"),
    Row("no answer in time", Sent(habit="hang"), "again"),
    Row("a body that trickles", Sent(200, message("It rained." * 20), habit="trickle"), "again"),
]

CAUTIOUS = [
    Row("a filter's code", Sent(400, openai("The prompt was filtered.", "content_filter")), "refused"),
    Row("Azure's filter", Sent(400, AZURE_FILTER), "refused"),
    Row("a gateway's", Sent(400, litellm("ContentPolicyViolationError: content_filter", "400")), "refused"),
    Row("OpenAI's, for reasoning models", Sent(400, openai("Your prompt was flagged.", "invalid_prompt")), "refused"),
    Row(
        "OpenAI's policy",
        Sent(400, openai("Your request was rejected by our safety system.", "content_policy_violation")),
        "refused",
    ),
    Row("DeepSeek's", Sent(400, openai("Content Exists Risk")), "refused"),
    Row(
        "Alibaba's",
        Sent(400, openai("Input data may contain inappropriate content.", "data_inspection_failed")),
        "refused",
    ),
    Row(
        "Zhipu's",
        Sent(400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}),
        "refused",
    ),
    Row(
        "Moonshot's",
        Sent(400, openai("The request was rejected because it was considered high risk", kind="content_filter")),
        "refused",
    ),
    Row(
        "Anthropic's",
        Sent(400, anthropic("invalid_request_error", "Output blocked by content filtering policy")),
        "refused",
    ),
    Row(
        "Google's",
        Sent(
            400,
            google(
                "The prompt could not be submitted: it contains sensitive content that violates "
                "Google's Responsible AI practices",
                400,
                "INVALID_ARGUMENT",
            ),
        ),
        "refused",
    ),
    Row(
        "xAI's, 403",
        Sent(
            403,
            {
                "code": "Client specified an invalid argument",
                "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO",
            },
        ),
        "refused",
    ),
    Row(
        "a router's moderation, 403",
        Sent(403, routed("Input was flagged", 403, reasons=["violence"], flagged_input="A")),
        "refused",
    ),
    Row("403, blocked", Sent(403, {"error": {"message": "Your request was blocked."}}), "refused"),
    Row("451", Sent(451, {"error": {"message": "Blocked by moderation"}}), "refused"),
    Row("422", Sent(422, {"detail": "prompt violates our content policy"}), "refused"),
    Row("200 with a filter's error", Sent(200, openai("filtered", "content_filter")), "refused"),
    Row(
        "within a provider's error",
        Sent(
            400,
            routed(
                "Provider returned error",
                400,
                raw=json.dumps(openai("The prompt was filtered", "content_filter")),
                provider_name="Azure",
            ),
        ),
        "refused",
    ),
    Row("finish_reason content_filter", Sent(200, message(None, "content_filter")), "refused"),
    Row("finish_reason SAFETY", Sent(200, message("", "SAFETY")), "refused"),
    Row(
        "finish_reason PROHIBITED_CONTENT, no message",
        Sent(200, chat({"finish_reason": "PROHIBITED_CONTENT"})),
        "refused",
    ),
    Row("a refusal's own field", Sent(200, message(None, refusal="I cannot write this.")), "refused"),
    Row("stop_reason refusal", Sent(200, message("", "refusal")), "refused"),
    Row("Google's blocked prompt", Sent(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), "refused"),
    Row("empty candidates", Sent(200, {"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}), "refused"),
    Row(
        "a tool call",
        Sent(
            200,
            message(
                None,
                "tool_calls",
                tool_calls=[{"id": "1", "type": "function", "function": {"name": "write", "arguments": "{}"}}],
            ),
        ),
        "refused",
    ),
    Row("half a text, then filtered", Sent(200, message("It ra", "content_filter")), "text", "It ra"),
]

THINKING = [
    Row("reasoning_content", Sent(200, message(None, "length", reasoning_content="A bench?")), "thoughts"),
    Row("reasoning", Sent(200, message("", "length", reasoning="A bench?")), "thoughts"),
    Row("reasoning, said to have stopped", Sent(200, message("", "stop", reasoning="A bench?")), "thoughts"),
    Row(
        "reasoning_details",
        Sent(200, message("", "length", reasoning_details=[{"type": "reasoning.encrypted"}])),
        "thoughts",
    ),
    Row("MAX_TOKENS", Sent(200, message(None, "MAX_TOKENS", thinking="A bench?")), "thoughts"),
    Row("parts of thoughts", Sent(200, message([{"type": "thinking", "thinking": "A bench?"}], "length")), "thoughts"),
    Row("unclosed in the text", Sent(200, message("<think>A bench?", "length")), "thoughts"),
    Row(
        "hidden thoughts, counted",
        Sent(
            200,
            message("", "length")
            | {"usage": {"completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 64}}},
        ),
        "thoughts",
    ),
    Row("beside the text", Sent(200, message("It rained.", reasoning_content="A bench?")), "text", "It rained."),
    Row("in the text", Sent(200, message("<think>A bench?</think>It rained.")), "text", "It rained."),
    Row(
        "in a stream",
        Sent(
            200,
            stream(
                {"reasoning_content": "A "}, {"reasoning_content": "bench?"}, {"content": "It "}, {"content": "rained."}
            ),
        ),
        "text",
        "It rained.",
    ),
]

FORMS = [
    Row(
        "a list of parts",
        Sent(200, message([{"type": "text", "text": "It "}, {"type": "text", "text": "rained."}])),
        "text",
        "It rained.",
    ),
    Row(
        "a list with thoughts",
        Sent(
            200,
            message(
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "A?"}]},
                    {"type": "text", "text": "It rained."},
                ]
            ),
        ),
        "text",
        "It rained.",
    ),
    Row("a list of texts", Sent(200, message(["It ", "rained."])), "text", "It rained."),
    Row(
        "output_text",
        Sent(200, message([{"type": "output_text", "text": "It rained.", "annotations": []}])),
        "text",
        "It rained.",
    ),
    Row("one part", Sent(200, message({"type": "text", "text": "It rained."})), "text", "It rained."),
    Row("the older text", Sent(200, {"choices": [{"text": " It rained."}]}), "text", "It rained."),
    Row("no message", Sent(200, {"choices": [{"index": 0, "message": None, "finish_reason": "stop"}]}), "text", ""),
    Row("null", Sent(200, message(None)), "text", ""),
    Row("no finish_reason", Sent(200, message("It rained.", None)), "text", "It rained."),
    Row("a number as content", Sent(200, message(7)), "text", ""),
    Row("blank lines first", Sent(200, "\n\n" + json.dumps(message("It rained."))), "text", "It rained."),
    Row(
        "half a character",
        Sent(200, json.dumps(message("It rained. HALF")).replace("HALF", "\\ud83d")),
        "text",
        "It rained. \ufffd",
    ),
    Row(
        "the other half",
        Sent(200, json.dumps(message("It HALF rained.")).replace("HALF", "\\ude00")),
        "text",
        "It \ufffd rained.",
    ),
    Row(
        "a character in two parts",
        Sent(200, json.dumps(message(["HALF1", "HALF2"])).replace("HALF1", "\\ud83d").replace("HALF2", "\\ude00")),
        "text",
        "\U0001f600",
    ),
    Row(
        "a broken byte",
        Sent(200, json.dumps(message("It HALF")).encode().replace(b"HALF", b"\xf0\x9f\x98")),
        "text",
        "It \ufffd",
    ),
    Row(
        "a stream nobody asked for",
        Sent(
            200,
            stream({"role": "assistant"}, {"content": "It "}, {"content": "rained."}),
            {"Content-Type": "text/event-stream"},
        ),
        "text",
        "It rained.",
    ),
    Row("a stream without [DONE]", Sent(200, stream({"content": "It rained."}, done=False)), "text", "It rained."),
    Row(
        "a stream of parts",
        Sent(200, stream({"content": [{"type": "text", "text": "It "}]}, {"content": "rained."})),
        "text",
        "It rained.",
    ),
    Row(
        "chunks, a line each",
        Sent(200, stream({"content": "It rained."}).replace("data: ", "").replace(": keep-alive", "")),
        "text",
        "It rained.",
    ),
    Row("more choices than asked", Sent(200, chat("It rained.", "It snowed.")), "text", "It rained."),
    Row(
        "choices out of order",
        Sent(
            200,
            {
                "choices": [
                    {"index": 1, "message": {"content": "It snowed."}},
                    {"index": 0, "message": {"content": "It rained."}},
                ]
            },
        ),
        "text",
        "It rained.",
    ),
]

SETTINGS = [
    Row(
        "OpenAI: temperature",
        Sent(
            400,
            openai(
                "Unsupported value: 'temperature' does not support 1.5 with this model. Only the "
                "default (1) value is supported.",
                "unsupported_value",
                "temperature",
            ),
        ),
        "left out",
        ["temperature"],
    ),
    Row(
        "OpenAI: top_p",
        Sent(
            400,
            openai(
                "Unsupported parameter: 'top_p' is not supported with this model.", "unsupported_parameter", "top_p"
            ),
        ),
        "left out",
        ["top_p"],
    ),
    Row(
        "OpenAI: several",
        Sent(400, openai("This model has limitations: temperature, top_p and n are fixed at 1.", "unsupported_value")),
        "left out",
        ["temperature", "top_p"],
    ),
    Row("OpenAI: unknown", Sent(400, openai("Unrecognized request argument supplied: top_k")), "left out", ["top_k"]),
    Row(
        "OpenAI: unknown, newer",
        Sent(400, openai("Unknown parameter: 'repetition_penalty'.", "unknown_parameter", "repetition_penalty")),
        "left out",
        ["repetition_penalty"],
    ),
    Row(
        "Anthropic: not both",
        Sent(
            400,
            anthropic(
                "invalid_request_error",
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            ),
        ),
        "left out",
        ["top_p"],
    ),
    Row(
        "Anthropic: thinking",
        Sent(400, anthropic("invalid_request_error", "`temperature` may only be set to 1 when thinking is enabled.")),
        "left out",
        ["temperature"],
    ),
    Row(
        "Anthropic: top_k",
        Sent(400, anthropic("invalid_request_error", "`top_k` must be unset when thinking is on")),
        "left out",
        ["top_k"],
    ),
    Row(
        "Anthropic: range",
        Sent(400, anthropic("invalid_request_error", "temperature: range: 0..1")),
        "left out",
        ["temperature"],
    ),
    Row(
        "Anthropic: deprecated",
        Sent(400, anthropic("invalid_request_error", "`temperature` is deprecated for this model.")),
        "left out",
        ["temperature"],
    ),
    Row(
        "Groq: did you mean",
        Sent(400, openai("property 'top_k' is unsupported, did you mean 'top_p'?")),
        "left out",
        ["top_k"],
    ),
    Row(
        "Mistral: extra",
        Sent(422, fastapi("repetition_penalty", "Extra inputs are not permitted")),
        "left out",
        ["repetition_penalty"],
    ),
    Row(
        "Mistral: in an object",
        Sent(
            422,
            {
                "object": "error",
                "message": fastapi("top_k", "Extra inputs are not permitted"),
                "type": "invalid_request_error",
            },
        ),
        "left out",
        ["top_k"],
    ),
    Row(
        "Mistral: greedy",
        Sent(400, mistral("top_p must be 1 when using greedy sampling.", "invalid_request_error")),
        "left out",
        ["top_p"],
    ),
    Row(
        "Google: unknown name",
        Sent(
            400,
            google('Invalid JSON payload received. Unknown name "top_k": Cannot find field.', 400, "INVALID_ARGUMENT"),
        ),
        "left out",
        ["top_k"],
    ),
    Row(
        "Google: camel case",
        Sent(
            400,
            google(
                "Unable to submit request: topK value 50 but the supported range is 1 to 41", 400, "INVALID_ARGUMENT"
            ),
        ),
        "left out",
        ["top_k"],
    ),
    Row(
        "Moonshot",
        Sent(400, openai("invalid temperature: only 1 is allowed for this model")),
        "left out",
        ["temperature"],
    ),
    Row(
        "xAI",
        Sent(400, {"code": "invalid-argument", "error": "Model m does not support parameter repetitionPenalty"}),
        "left out",
        ["repetition_penalty"],
    ),
    Row(
        "Bedrock",
        Sent(400, {"message": "Malformed input request: extraneous key [top_k] is not permitted"}),
        "left out",
        ["top_k"],
    ),
    Row("NVIDIA", Sent(422, {"detail": "Unsupported parameter(s): `top_k`"}), "left out", ["top_k"]),
    Row(
        "Fireworks",
        Sent(
            400,
            {
                "error": {
                    "object": "error",
                    "type": "invalid_request_error",
                    "message": "Extra inputs are not permitted, field: 'top_k', value: 50",
                }
            },
        ),
        "left out",
        ["top_k"],
    ),
    Row(
        "LiteLLM",
        Sent(
            400,
            {
                "error": {
                    "message": "litellm.UnsupportedParamsError: m does not support parameters: ['top_p'], "
                    "for model=m. To drop these, set drop_params",
                    "code": "400",
                }
            },
        ),
        "left out",
        ["top_p"],
    ),
    Row(
        "OpenRouter",
        Sent(
            400,
            routed(
                "Provider returned error",
                400,
                raw=json.dumps(openai("Unsupported parameter: 'top_p'", "unsupported_parameter", "top_p")),
            ),
        ),
        "left out",
        ["top_p"],
    ),
    Row(
        "transformers serve",
        Sent(422, {"detail": "Unexpected fields in the request: {'top_k'}"}),
        "left out",
        ["top_k"],
    ),
    Row(
        "a schema",
        Sent(400, {"error": "Additional properties are not allowed ('top_k' was unexpected)"}),
        "left out",
        ["top_k"],
    ),
    Row(
        "max_tokens",
        Sent(
            400,
            openai(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                "unsupported_parameter",
                "max_tokens",
            ),
        ),
        "fits",
        {"max_completion_tokens": 64},
    ),
    Row(
        "OpenAI: too many tokens",
        Sent(
            400,
            openai(
                "max_tokens is too large: 64. This model supports at most 32 completion tokens, "
                "whereas you provided 64.",
                None,
                "max_tokens",
            ),
        ),
        "fits",
        {"max_tokens": 32},
    ),
    Row(
        "Anthropic: too many tokens",
        Sent(
            400,
            anthropic(
                "invalid_request_error",
                "max_tokens: 64 > 32, which is the maximum allowed number of output tokens for m-4-5",
            ),
        ),
        "fits",
        {"max_tokens": 32},
    ),
    Row(
        "DeepSeek: too many tokens",
        Sent(400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 32]")),
        "fits",
        {"max_tokens": 32},
    ),
    Row(
        "vLLM: context",
        Sent(
            400,
            mistral(
                "This model's maximum context length is 70 tokens. However, you requested 90 tokens (30 in "
                "the messages, 64 in the completion). Please reduce the length.",
                "BadRequestError",
            ),
        ),
        "fits",
        {"max_tokens": 40},
    ),
    Row(
        "vLLM: context, newer",
        Sent(
            400,
            openai(
                "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context "
                "length is 70 tokens and your request has 30 input tokens (64 > 70 - 30)."
            ),
        ),
        "fits",
        {"max_tokens": 40},
    ),
]

STOPS = [
    Row(
        "401",
        Sent(401, openai("Incorrect API key provided: sk-no", "invalid_api_key")),
        "ends",
        r"refuses access \(401\)",
    ),
    Row("401, Anthropic", Sent(401, anthropic("authentication_error", "invalid x-api-key")), "ends", "refuses access"),
    Row("401, empty", Sent(401, ""), "ends", r"refuses access \(401\), no key was sent"),
    Row(
        "400, Google's key",
        Sent(400, google("API key not valid. Please pass a valid API key.", 400, "INVALID_ARGUMENT")),
        "ends",
        "refuses access",
    ),
    Row(
        "403",
        Sent(403, openai("You do not have access to this project", "permission_denied")),
        "ends",
        r"refuses access \(403\)",
    ),
    Row(
        "403, region",
        Sent(403, openai("Country, region, or territory not supported: blocked")),
        "ends",
        "refuses access",
    ),
    Row(
        "403, a wall",
        Sent(403, HTML.format("Attention Required! You have been blocked")),
        "ends",
        "refuses access.*Attention",
    ),
    Row(
        "404, OpenAI's model",
        Sent(404, openai("The model `m` does not exist or you do not have access to it.", "model_not_found")),
        "ends",
        "no such model",
    ),
    Row(
        "404, vLLM's model",
        Sent(404, mistral("The model `m` does not exist.", "NotFoundError")),
        "ends",
        "no such model",
    ),
    Row(
        "404, Ollama's model",
        Sent(404, openai('model "m" not found, try pulling it first', kind="api_error")),
        "ends",
        "no such model",
    ),
    Row("404, Anthropic's model", Sent(404, anthropic("not_found_error", "model: m")), "ends", "no such model"),
    Row(
        "404, Google's model",
        Sent(404, google("models/m is not found for API version v1main", 404, "NOT_FOUND")),
        "ends",
        "no such model",
    ),
    Row("400, DeepSeek's model", Sent(400, openai("Model Not Exist")), "ends", "no such model"),
    Row(
        "400, Mistral's model", Sent(400, mistral("Invalid model: m", "invalid_model", "1500")), "ends", "no such model"
    ),
    Row("400, a router's model", Sent(400, routed("m is not a valid model ID", 400)), "ends", "no such model"),
    Row(
        "404, Azure's deployment",
        Sent(404, openai("The API deployment for this resource does not exist.", "DeploymentNotFound")),
        "ends",
        "no such model",
    ),
    Row("404, a path", Sent(404, {"detail": "Not Found"}), "ends", r"no such address \(404\).*/v1\?"),
    Row("404, a plain path", Sent(404, "404 page not found"), "ends", r"no such address \(404\).*/v1\?"),
    Row("404, an HTML path", Sent(404, HTML.format("404 Not Found")), "ends", r"no such address \(404\).*/v1\?"),
    Row("405", Sent(405, {"detail": "Method Not Allowed"}), "ends", r"no such address \(405\)"),
    Row("501", Sent(501, HTML.format("Error response")), "ends", r"no such address \(501\)"),
    Row("200, a portal", Sent(200, HTML.format("Welcome")), "ends", "no chat completion.*Welcome.*/v1"),
    Row("200, a greeting", Sent(200, "Ollama is running"), "ends", "no chat completion.*Ollama is running"),
    Row(
        "402",
        Sent(402, openai("Insufficient Balance", kind="unknown_error")),
        "ends",
        r"nothing is left to pay with \(402\)",
    ),
    Row(
        "429, OpenAI's quota",
        Sent(
            429,
            openai(
                "You exceeded your current quota, please check your plan and billing details.",
                "insufficient_quota",
                kind="insufficient_quota",
            ),
        ),
        "ends",
        "nothing is left to pay",
    ),
    Row(
        "400, Anthropic's credit",
        Sent(400, anthropic("invalid_request_error", "Your credit balance is too low to access the API.")),
        "ends",
        "nothing is left to pay",
    ),
    Row(
        "400, Alibaba's arrears",
        Sent(400, openai("Access denied, please make sure your account is in good standing.", "Arrearage")),
        "ends",
        "nothing is left to pay",
    ),
    Row(
        "402, a router's credits",
        Sent(402, routed("This request requires more credits, or fewer max_tokens.", 402)),
        "ends",
        "nothing is left to pay",
    ),
    Row("200 with a key's error", Sent(200, routed("No auth credentials found", 401)), "ends", "refuses access"),
    Row(
        "400, nobody knows",
        Sent(400, openai("Something is wrong with it")),
        "fails",
        r"refuses the request \(400\).*Something",
    ),
    Row(
        "400, transformers serve: another model",
        Sent(400, {"detail": "Server is pinned to '/models/m'; requested 'other'."}),
        "ends",
        r"no such model \(400\).*pinned to",
    ),
    Row(
        "400, too long",
        Sent(
            400,
            openai(
                "This model's maximum context length is 70 tokens. Your messages resulted in 9000 tokens.",
                "context_length_exceeded",
                "messages",
            ),
        ),
        "fails",
        "too long",
    ),
    Row(
        "400, llama.cpp: too long",
        Sent(
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 900,
                }
            },
        ),
        "fails",
        "too long",
    ),
    Row("413", Sent(413, HTML.format("413 Request Entity Too Large")), "fails", "too long"),
]

TABLE = [*BUSY, *CAUTIOUS, *THINKING, *FORMS, *SETTINGS, *STOPS]
