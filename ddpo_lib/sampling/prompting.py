"""How a model is asked for several answers to one prompt, and how the answers are read from what it says.

Plain: every sample answers the instruction independently. Iter: the samples are asked for one after another in one
conversation, and each is asked to differ from those before (the paper's GPT-4o-iter). Verbalized: one request asks for
several answers with their probabilities (Verbalized Sampling, arXiv:2510.01171).

The wording is this project's, not that of the papers.
"""

import json
import re

AGAIN = (
    "Now answer the same prompt again, with something that differs as much as possible from every answer above: other "
    "events, other people, another mood, another style. Write nothing but the new answer."
)
SEVERAL = (
    "Give {k} different answers to the request below, as if they were drawn from everything that you could say, the "
    "likely and the unlikely. Write each one in full, in this form and with nothing around it:\n"
    "<answer><probability>a number from 0 to 1: how likely you are to say this</probability>"
    "<text>the answer</text></answer>\n\nThe request:\n\n"
)
NO_ANSWER = "(no answer)"  # servers refuse an empty message
NAN = float("nan")


def conversation(how: str, asked: str, earlier: list[str], samples: int) -> list[dict[str, str]]:
    """The messages of the next request.

    Args:
        how: "plain", "iter" or "verbalized".
        asked: the instruction with the prompt in it.
        earlier: the samples so far, which "iter" shows to the model.
        samples: how many answers "verbalized" asks for.
    """
    if how == "verbalized":
        return [_message("user", SEVERAL.replace("{k}", str(samples)) + asked)]
    messages = [_message("user", asked)]
    for text in earlier:
        messages += [_message("assistant", text or NO_ANSWER), _message("user", AGAIN)]
    return messages


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def parse_answers(said: str, most: int) -> list[tuple[str, float]]:
    """Read the answers and their probabilities from a model's reply to "verbalized".

    Three forms are tried in this order: tags as requested, some of which may be missing; JSON; a numbered list. The
    first form that finds an answer counts. A reply in none of these forms contains no answer.

    Args:
        said: the whole reply.
        most: answers beyond this many are left out.

    Returns:
        At most `most` pairs of a text that is not blank and a probability from 0 to 1, or NaN if it is missing. The
        probabilities are those that the model states and need not sum to 1.
    """
    for read in (_read_tags, _read_json, _read_list):
        answers = [(text.strip(), probability) for text, probability in read(said) if text.strip()]
        if answers:
            return answers[:most]
    return []


def _read_tags(said: str) -> list[tuple[str, float]]:
    """Answers between tags, with text and probability in either order; the closing tag of the last may be missing."""
    answers = []
    for part in re.split(r"<answer[^<>]*>", said, flags=re.I)[1:]:
        part = re.split(r"</answer\s*>", part, flags=re.I)[0]
        probability = re.search(r"<probability\s*>([^<]*)(?:</probability\s*>|(?=<))", part, re.I)
        text = re.search(r"<text\s*>(.*?)(?:</text\s*>|$)", part, re.I | re.S)
        rest = part.replace(probability[0], "") if probability else part
        answers.append(
            (
                text[1] if text else re.sub(r"</?(?:text|probability)\s*>", "", rest, flags=re.I),
                _probability(probability[1]) if probability else NAN,
            )
        )
    return answers


def _read_json(said: str) -> list[tuple[str, float]]:
    """Objects with a text and a probability, anywhere in the reply."""
    answers, decoder, at = [], json.JSONDecoder(), 0
    while (at := min((i for i in (said.find("{", at), said.find("[", at)) if i >= 0), default=-1)) >= 0:
        try:
            value, at = decoder.raw_decode(said, at)
        except ValueError:
            at += 1
            continue
        except RecursionError:  # no answer is nested so deep, and the next bracket would fail as slowly
            break
        answers += _walk(value)
    return answers


def _walk(value) -> list[tuple[str, float]]:
    if isinstance(value, list):
        return [answer for item in value for answer in _walk(item)]
    if not isinstance(value, dict):
        return []
    text = next(
        (value[key] for key in ("text", "answer", "response", "story") if isinstance(value.get(key), str)), None
    )
    if text is not None:
        return [(text, _probability(str(value.get("probability", ""))))]
    return [answer for item in value.values() for answer in _walk(item)]


def _read_list(said: str) -> list[tuple[str, float]]:
    """Numbered items that contain a probability: "1. text (probability: 0.3)"."""
    answers = []
    for item in re.split(r"^[ \t]*\d{1,3}[.):][ \t]+", said, flags=re.M)[1:]:
        found = re.search(r"[(\[]?\**\b(?:probability|p)\b\**\s*[:=]?\s*\**\s*(\d*\.?\d+\s*%?)\**[)\]]?", item, re.I)
        if found:
            answers.append((item.replace(found[0], ""), _probability(found[1])))
    return answers


def _probability(said: str) -> float:
    """A number from 0 to 1, or a percentage, as a number from 0 to 1; NaN for anything else."""
    found = re.fullmatch(r"\s*(\d{0,9}\.?\d{1,18})\s*(%?)\s*", said, re.ASCII)
    value = float(found[1]) / (100 if found[2] else 1) if found else NAN
    return value if 0 <= value <= 1 else NAN
