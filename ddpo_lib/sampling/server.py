"""Samples from a server that speaks OpenAI's protocol: OpenAI, Anthropic, DeepSeek, vLLM, `transformers serve`, ...

After a rate limit, a time-out, a cut connection or an error of the server, the request is repeated. The pause grows,
or is the one that the server names (`Retry-After`). If all repetitions fail, one sentence says why. The key is read
from the environment when it is needed; no message, log, journal or manifest contains it.
"""

import logging
import os
import threading
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from urllib.parse import urlsplit, urlunsplit

import openai
from openai.types.chat import ChatCompletion
from tqdm import tqdm

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.sampling.completions import Completion, Conversation

log = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds that one request may take
RETRIES = 8  # per request; with the client's pauses about 40 s
IN_FLIGHT = 8  # requests at once
WORDS = 300  # characters of a server's message that are quoted
OPENAI_KNOWS = ("temperature", "top_p")  # other settings go into the request's extra body
SETTINGS = (*OPENAI_KNOWS, "top_k", "repetition_penalty")


class Server:
    """A model behind a URL.

    Args:
        url: of the server, with its `/v1`.
        model: its name there.
        key: the environment variable that contains the key; None if the server needs no key.
        sends: the settings that the server accepts, of temperature, top_p, top_k, repetition_penalty.
        timeout: seconds that one request may take.
        retries: per request.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        sends: list[str] = SETTINGS[:2],
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ):
        self.url = url
        self.model = model
        self.key = key
        self.sends = tuple(sends)
        self.timeout = timeout
        self.retries = retries
        self._takes_n = True  # assumed until an answer shows that it does not
        self._limit = "max_tokens"  # until the server asks for the other name
        self._said = threading.Lock()

    def facts(self) -> dict:
        parts = urlsplit(self.url)
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        return {
            "engine": "server",
            "model": self.model,
            "url": plain,
            "sent": [name for name in SETTINGS if name in self.sends],
            "not_sent": [name for name in (*SETTINGS, "seed") if name not in self.sends],
            "penalty_counts": "what the server's own penalty counts",
        }

    def sample(
        self,
        conversations: list[Conversation],
        samples: int,
        sampling: Sampling,
        seed: str,
        skip: AbstractSet[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Sample each conversation `samples` times, as the docstring of `engines` describes. No seed is sent.

        The first conversation is sampled alone, which shows whether the server accepts `n`; the others follow,
        `IN_FLIGHT` at once. If one fails, those in flight are finished and yielded before the error is raised.

        Raises:
            InputError: the key is missing, or there is no usable answer after `retries`.
        """
        wanted = [i for i in range(len(conversations)) if i not in skip]
        if not wanted:
            return
        left_out = self.facts()["not_sent"]
        log.info("%s: not sent, so the server's defaults apply: %s", self.model, ", ".join(left_out))
        client = openai.OpenAI(
            api_key=self._read_key() or "none", base_url=self.url, timeout=self.timeout, max_retries=self.retries
        )
        with client, tqdm(total=len(wanted), desc="sampling") as bar:
            yield wanted[0], self._ask(client, conversations[wanted[0]], samples, sampling)
            bar.update()
            with ThreadPoolExecutor(IN_FLIGHT) as pool:
                futures = {pool.submit(self._ask, client, conversations[i], samples, sampling): i for i in wanted[1:]}
                try:
                    for future in _finish_started(futures):
                        yield futures[future], future.result()
                        bar.update()
                finally:
                    pool.shutdown(cancel_futures=True)

    def _ask(self, client: openai.OpenAI, conversation: Conversation, samples: int, sampling: Sampling):
        """Completions of one conversation: by one request if the server accepts `n`, else by one per sample."""
        made: list[Completion] = []
        while len(made) < samples:
            asked = samples - len(made) if self._takes_n else 1
            try:
                got = self._request(client, conversation, asked, sampling)
            except _NotTaken:
                continue
            if len(got) < asked:
                self._learn(takes_n=False)
            made += got[:asked]
        return made

    def _request(self, client, conversation: Conversation, samples: int, sampling: Sampling) -> list[Completion]:
        values = {name: getattr(sampling, name) for name in self.sends}
        known = {name: values.pop(name) for name in OPENAI_KNOWS if name in values}
        several = {"n": samples} if samples > 1 else {}
        limit = {self._limit: sampling.max_new_tokens}
        try:
            answer = client.chat.completions.create(
                model=self.model, messages=conversation, extra_body=values or None, **known, **several, **limit
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            problem = self._explain(error)
            retry = self._adapt(str(error), samples)
        except (openai.OpenAIError, ValueError) as error:  # ValueError: invalid JSON
            problem, retry = self._explain(error), False
        else:
            return self._read(answer)
        # raised outside the handlers, so that the client's error, which contains the key, is not attached
        raise _NotTaken if retry else InputError(problem)

    def _adapt(self, refusal: str, samples: int) -> bool:
        """Change the form of all further requests if a refusal shows how; return whether it did."""
        if "max_completion_tokens" in refusal and self._limit == "max_tokens":
            self._limit = "max_completion_tokens"
            return True
        if samples > 1:
            self._learn(takes_n=False)
            return True
        return False

    def _learn(self, takes_n: bool) -> None:
        with self._said:
            if self._takes_n and not takes_n:
                log.info("%s: does not accept `n`; sending one request per sample", self.model)
            self._takes_n = takes_n

    def _read(self, answer) -> list[Completion]:
        choices = getattr(answer, "choices", None)
        if not isinstance(answer, ChatCompletion) or not isinstance(choices, list) or not choices:
            started = " ".join(str(answer).split()) if isinstance(answer, str) else "JSON without choices"
            raise InputError(
                f"{self._name()}: the answer is no chat completion ({self._hide(started)[:WORDS]}); "
                "does the URL end with /v1?"
            )
        usage = getattr(answer.usage, "completion_tokens", None)
        tokens = usage if len(choices) == 1 and isinstance(usage, int) else None
        return [_read_choice(choice, tokens) for choice in choices]

    def _explain(self, error: Exception) -> str:
        """One sentence on what failed and what to do, without the key."""
        said = f"; it says: {self._hide(_message(error))[:WORDS]}"
        name = self._name()
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            where = f"the key in ${self.key}" if self.key else "no key was sent: name its variable under `key`"
            return f"{name}: refuses access ({error.status_code}), {where}{said}"
        if isinstance(error, openai.NotFoundError):
            return f"{name}: no such model or address (404){said}"
        if isinstance(error, openai.RateLimitError):
            return f"{name}: too many requests (429), after {self.retries} retries{said}"
        if isinstance(error, openai.APITimeoutError):
            return f"{name}: no answer within {self.timeout:g} s, after {self.retries} retries"
        if isinstance(error, openai.APIConnectionError):
            cause = self._hide(str(error.__cause__ or error))[:WORDS]
            return f"{name}: cannot be reached, or cut the connection, after {self.retries} retries ({cause})"
        if isinstance(error, openai.InternalServerError):
            return f"{name}: fails ({error.status_code}), after {self.retries} retries{said}"
        if isinstance(error, openai.APIStatusError):
            advice = "; leave what it does not take out of `sends`"
            return f"{name}: refuses the request ({error.status_code}){said}{advice}"
        return f"{name}: an answer that cannot be read{said}"

    def _name(self) -> str:
        return f"server {self.facts()['url']}, model {self.model}"

    def _read_key(self) -> str | None:
        if self.key is None:
            return None
        value = os.environ.get(self.key, "").strip()
        if not value:
            raise InputError(f"{self._name()}: the environment variable {self.key} is not set; set it to the key")
        if not (value.isascii() and value.isprintable()):
            raise InputError(
                f"{self._name()}: the environment variable {self.key} holds no key: it contains characters that are "
                "not printable ASCII; set it again"
            )
        return value

    def _hide(self, text: str) -> str:
        secrets = [self._read_key(), urlsplit(self.url).password]
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


class _NotTaken(Exception):
    """The server refused a form of request; another form is tried."""


def _finish_started(futures: dict[Future, int]) -> Iterator[Future]:
    """Futures in the order in which they finish. If one fails, those not started are cancelled; it comes last."""
    failed = None
    for future in as_completed(futures):
        if future.cancelled():
            continue
        if future.exception() is None:
            yield future
        elif failed is None:
            failed = future
            for other in futures:
                other.cancel()
    if failed:
        yield failed


def _read_choice(choice, tokens: int | None) -> Completion:
    """A choice -> a completion. A refusal without text and a missing text become an empty text."""
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    text = content.strip() if isinstance(content, str) else ""
    reason = getattr(choice, "finish_reason", None) or "stop"
    if getattr(message, "refusal", None):
        reason = "refusal"
    elif not text and reason == "stop":
        reason = "no text"
    return Completion(text, tokens, str(reason))


def _message(error: Exception) -> str:
    """The server's message, on one line."""
    body = getattr(error, "body", None)
    message = (body.get("message") or body.get("detail")) if isinstance(body, dict) else None
    return " ".join(str(message or error).split())
