"""Samples from a server that speaks OpenAI's protocol: OpenAI, Anthropic, DeepSeek, vLLM, `transformers serve`, ...

After a rate limit, a time-out, a cut connection, an error of the server or half an answer, the request is repeated. The
pause doubles, or is the one that the server names. A setting that the server refuses is left out from then on, with a
warning. A prompt that a filter refuses is kept as refused. Other prompts go on if one fails; three failures in a row
end the run. The key is read from the environment when it is needed; no message, log, journal or manifest contains it.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import openai
from tqdm import tqdm

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.protocol.answers import Choice, read_answer
from ddpo_lib.protocol.explanations import LONGEST, explain
from ddpo_lib.protocol.faults import AGAIN, ENDS, Fault, read_fault
from ddpo_lib.protocol.forms import SETTINGS, Form, adapt, room, truncation
from ddpo_lib.sampling.completions import Completion, Conversation

log = logging.getLogger(__name__)

TIMEOUT = 600.0  # seconds that one request may take
RETRIES = 8  # per request; with the pauses below about two minutes
PAUSE = 0.5  # seconds before the first repetition; each further pause is twice as long
TIMEOUTS = 2  # repetitions after a time-out, each of which may take as long again
EMPTIES = 3  # repetitions after an answer without choices
FAILURES = 3  # prompts in a row that may fail
IN_FLIGHT = 8  # requests at once
WORDS = 300  # characters of a server's message that are quoted
BYTES = 2**26  # of an answer


class Server:
    """A model behind a URL.

    Args:
        url: of the server, with its `/v1`.
        model: its name there.
        key: the environment variable that contains the key; None if the server needs no key.
        sends: the settings that the server accepts, of `forms.SETTINGS`. Those that it refuses all the same are left
            out.
        timeout: seconds that one request may take.
        retries: per request.
        pause: seconds before the first repetition.
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
        pause: float = PAUSE,
    ):
        self.url = url
        self.model = model
        self.key = key
        self.sends = tuple(sends)
        self.timeout = timeout
        self.retries = retries
        self.pause = pause
        self._form = Form()
        self._changing = threading.Lock()
        self._has_answered = False
        self._ended = threading.Event()
        self._warned = False

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

    def leave_out(self, names: tuple[str, ...]) -> None:
        """Do not send these settings, since earlier samples of the same journal were drawn without them."""
        with self._changing:
            self._form = replace(self._form, left_out=self._form.left_out.union(names))
        log.info("%s: as before, not sent: %s", self.model, ", ".join(names))

    def sample(
        self,
        conversations: list[Conversation],
        samples: int,
        sampling: Sampling,
        seed: str,
        skip: AbstractSet[int] = frozenset(),
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Sample each conversation `samples` times, as the docstring of `engines` describes. No seed is sent.

        The first conversation is sampled alone, which shows what the server accepts; the others follow, `IN_FLIGHT` at
        once. A conversation that fails is passed over. If all would fail, as without a key, or `FAILURES` in a row do,
        those in flight are finished and yielded before the error is raised.

        Raises:
            InputError: the key is missing, or there is no usable answer to some conversation after `retries`.
        """
        wanted = [i for i in range(len(conversations)) if i not in skip]
        if not wanted:
            return
        left_out = self.facts()["not_sent"]
        log.info("%s: not sent, so the server's defaults apply: %s", self.model, ", ".join(left_out))
        self._ended.clear()
        client = openai.OpenAI(
            api_key=self._read_key() or "none", base_url=self.url, timeout=self.timeout, max_retries=0
        )
        failed: list[InputError] = []
        with client, tqdm(total=len(wanted), desc="sampling") as bar:
            work = self._work(client, [conversations[i] for i in wanted], samples, sampling)
            for position, got in work:
                bar.update()
                if isinstance(got, InputError):
                    failed.append(got)
                else:
                    yield wanted[position], got
        if failed:
            several = f" ({len(failed)} of {len(wanted)} prompts fail; this is the first)" if len(failed) > 1 else ""
            raise InputError(f"{failed[0]}{several}")

    def _work(self, client, conversations: list[Conversation], samples: int, sampling: Sampling):
        """Positions with their completions or their errors, as they come; ends early if the rest would fail too."""
        in_a_row = 0
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            futures = {}
            try:
                for part in ([0], range(1, len(conversations))):
                    futures = {pool.submit(self._try, client, conversations[i], samples, sampling): i for i in part}
                    for future in as_completed(futures):
                        if future.cancelled():
                            continue
                        got = future.result()
                        in_a_row = in_a_row + 1 if isinstance(got, InputError) else 0
                        if isinstance(got, _Ends) or in_a_row >= FAILURES:
                            self._ended.set()
                            for other in futures:
                                other.cancel()
                        yield futures[future], got
                    if self._ended.is_set():
                        return
            finally:
                self._ended.set()  # whoever waits to repeat a request gives up
                pool.shutdown(cancel_futures=True)

    def _try(self, client, conversation: Conversation, samples: int, sampling: Sampling):
        """The completions of a conversation, or the error that ends it: a value, so that it comes with a position."""
        try:
            return self._ask(client, conversation, samples, sampling)
        except InputError as error:
            return error

    def _ask(self, client: openai.OpenAI, conversation: Conversation, samples: int, sampling: Sampling):
        """Completions of one conversation: by one request if the server accepts `n`, else by one per sample."""
        made: list[Completion] = []
        limit, tries = sampling.max_new_tokens, 0
        while len(made) < samples:
            form = self._form
            number = samples - len(made) if form.takes_n else 1
            asked = form.fields(self.sends, sampling, number, limit)
            answer = self._request(client, conversation, asked)
            if isinstance(answer, list):
                self._has_answered, tries = True, 0
                left_out = tuple(name for name in SETTINGS if name in self.sends and name in form.left_out)
                made += [Completion(*choice, left_out) for choice in answer[:number]]
                if len(answer) < number:
                    self._change(form, replace(form, takes_n=False), None)
            elif answer.kind == "filtered" or (answer.kind == "empty" and self._has_answered and tries >= EMPTIES):
                reason = "content_filter" if answer.kind == "filtered" else "no choices"
                log.warning(
                    "%s: refuses a prompt, which is kept as refused; it says: %s", self.model, self._quote(answer)
                )
                made += [Completion("", None, reason)] * number
                tries = 0
            elif answer.kind == "long" and (left := room(answer, limit)):
                log.warning("%s: a prompt gets at most %d new tokens: its context ends there", self.model, left)
                limit = left
            elif answer.kind in ("request", "long") and (changed := adapt(form, asked, answer)):
                self._change(form, changed, answer)
            elif not self._waits(answer, tries):
                # 403 where others passed: a gateway that blocks this prompt
                alone = answer.kind not in ENDS or (answer.status == 403 and self._has_answered)
                raise (InputError if alone else _Ends)(self._explain(answer, tries))
            else:
                tries += 1
        return made

    def _waits(self, fault: Fault, tries: int) -> bool:
        """Wait before a request is repeated; False at once if it is not to be repeated."""
        most = min(self.retries, {"slow": TIMEOUTS, "empty": EMPTIES}.get(fault.kind, self.retries))
        pause = min(self.pause * 2**tries, LONGEST) if fault.pause is None else fault.pause
        if fault.kind not in AGAIN or tries >= most or pause > LONGEST:
            return False
        return not self._ended.wait(pause)

    def _request(self, client: openai.OpenAI, conversation: Conversation, asked: dict) -> list[Choice] | Fault:
        # the client's errors contain the key, so they are read here and not handed on
        now = time.time()
        try:
            create = client.chat.completions.with_streaming_response.create
            with create(model=self.model, messages=conversation, extra_body=asked) as response:
                body, until = bytearray(), time.monotonic() + self.timeout
                for part in response.iter_bytes():
                    body += part
                    if time.monotonic() > until:
                        return Fault("slow", "")
                    if len(body) > BYTES:
                        return Fault("broken", f"an answer of more than {BYTES >> 20} MiB", 200)
                self._warn_of_truncation(response.headers.get("server", ""))
                return read_answer(body.decode("utf-8", "replace"), response.headers, now)
        except openai.APIStatusError as error:
            return read_fault(error.status_code, error.response.text, error.response.headers, now)
        except openai.APITimeoutError:
            return Fault("slow", "")
        except openai.APIConnectionError as error:
            return Fault("connection", str(error.__cause__ or error))
        except Exception as error:  # a body that breaks off: the client hands on what its transport, httpx, raises
            if not type(error).__module__.startswith("httpx"):
                raise
            return Fault("slow" if "Timeout" in type(error).__name__ else "connection", str(error))

    def _warn_of_truncation(self, software: str) -> None:
        """Say once what the server leaves out of a distribution unless it is told not to."""
        with self._changing:
            said, self._warned = (None if self._warned else truncation(software, self.sends)), True
        if said:
            log.warning("%s: %s", self.model, said)

    def _change(self, form: Form, changed: Form, fault: Fault | None) -> None:
        """Change the form of all further requests, and say it once."""
        with self._changing:
            if self._form != form:  # another thread was faster
                return
            self._form = changed
        if names := [name for name in SETTINGS if name in changed.left_out - form.left_out]:
            log.warning(
                "%s: does not take %s, which is left out from now on, so the server's own default applies; it says: %s",
                *(self.model, " and ".join(names), self._quote(fault)),
            )
        if changed.most != form.most:
            log.warning(
                "%s: allows at most %d new tokens per answer, so no more are asked for", self.model, changed.most
            )
        if changed.limit != form.limit:
            log.info("%s: takes the token limit as `%s`", self.model, changed.limit)
        if form.takes_n and not changed.takes_n:
            log.info("%s: does not accept `n`; sending one request per sample", self.model)

    def _explain(self, fault: Fault, tries: int) -> str:
        """One sentence on what failed and what to do, without the key."""
        return explain(fault, self._name(), self._quote(fault), tries, key=self.key, timeout=self.timeout)

    def _quote(self, fault: Fault) -> str:
        return self._hide(fault.message)[:WORDS]

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


class _Ends(InputError):
    """An error that every other prompt would have too."""
