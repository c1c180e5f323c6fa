"""Client of an OpenAI-compatible server: concurrent requests, answers kept in a journal, one layer of retries."""

from __future__ import annotations

import asyncio
import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from harness.errors import UserError
from harness.llm.failures import LONGEST_WAIT, BrokenAnswerError, RequestFailure, read_failure
from harness.llm.journal import Answer, Journal, Usage
from harness.llm.keys import Key
from harness.llm.limits import Budget, RateLimiter
from harness.llm.settings import Limits, Sampling, Server
from harness.seeds import generator
from harness.store import digest

FORMS = ("schema", "json", "plain")
_LONGEST_BACKOFF = 60.0


@dataclass(frozen=True)
class Request:
    """One prompt, and the number of the sample.

    Attributes:
        system: the system message; may be empty.
        user: the user message.
        schema: JSON schema of the answer.
        sample: the same prompt with another number is another request.
    """

    system: str
    user: str
    schema: dict[str, Any]
    sample: int = 0

    def key(self, sampling: Sampling) -> str:
        """The request's identity in the journal."""
        return digest(self.system, self.user, self.schema, sampling.model_dump(mode="json"), self.sample)

    def tokens(self) -> int:
        """Estimate of the prompt's tokens, rather too high: one per three bytes (English has four or more)."""
        return tokens(self.system) + tokens(self.user) + 16


class Observer(Protocol):
    """Is notified of the progress of a run."""

    def begin(self, calls: int) -> None:
        """``calls`` more answers are requested."""

    def answered(self, new: bool, cost: float | None) -> None:
        """An answer arrived, from the server (new) or the journal; ``cost`` so far, or None without prices."""

    def note(self, text: str) -> None:
        """A message for the user, e.g. about a retry."""


class SilentObserver:
    """An observer that ignores everything."""

    def begin(self, calls: int) -> None:
        """Ignored."""

    def answered(self, new: bool, cost: float | None) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


def tokens(text: str) -> int:
    """Estimate of the number of tokens of a text, rather too high."""
    return math.ceil(len(text.encode(errors="replace")) / 3)


class Client:
    """Sends requests to a server. An async context manager, for one event loop.

    Args:
        server: its address and the load that it may get.
        sampling: the model and its parameters.
        limits: prices and limits.
        journal: open; requests with an answer in it are not sent again.
        key: the API key.
        observer: is notified of the progress.
        seed: for the jitter of retries.

    Raises:
        UserError: the package ``openai`` is not installed.
    """

    def __init__(
        self, server: Server, sampling: Sampling, limits: Limits, journal: Journal, key: Key, observer: Observer,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self._server, self._sampling, self._journal, self._key = server, sampling, journal, key
        self._observer, self._random = observer, generator(seed, "jitter")
        self.budget = Budget(limits, Usage.of(journal.answers.values()))
        self._slots = asyncio.Semaphore(server.concurrency)
        self._requests, self._tokens = RateLimiter(server.requests_per_minute), RateLimiter(server.tokens_per_minute)
        self._form = FORMS[0] if server.structured == "auto" else server.structured
        self._pause_until = 0.0
        self._connected = False  # the server has answered at least once
        self._failure: Exception | None = None
        self._openai: Any = _openai().AsyncOpenAI(
            api_key=key.reveal(), base_url=server.base_url, max_retries=0, timeout=server.timeout
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    async def ask(self, requests: Sequence[Request]) -> dict[str, Answer]:
        """Returns answers by the keys of their requests; those beyond the budget or the token limit are missing.

        If a request fails permanently, answers to the requests in progress are still awaited and kept.

        Raises:
            UserError: a request failed permanently, or the server could not be reached.
        """
        unique = {request.key(self._sampling): request for request in requests}
        self._observer.begin(len(unique))
        answers = await asyncio.gather(*(self._answer(key, request) for key, request in unique.items()))
        if self._failure is not None:
            raise self._failure
        return {answer.key: answer for answer in answers if answer is not None}

    async def _answer(self, key: str, request: Request) -> Answer | None:
        answer = self._journal.answers.get(key)
        if answer is None:
            answer = await self._fetch(key, request)
            if answer is None:
                return None
            await self._journal.add(answer)
            self._observer.answered(True, self.budget.cost)
        else:
            self._observer.answered(False, self.budget.cost)
        return answer

    async def _fetch(self, key: str, request: Request) -> Answer | None:
        """Returns the server's answer; None after a failure, or if the request would exceed a limit."""
        worst = request.tokens(), self._sampling.max_tokens
        async with self._slots:
            if self._failure is not None or not await self.budget.reserve(*worst):
                return None
            used = (0, 0)
            try:
                answer = await self._send_with_retries(key, request)
                used = (answer.tokens_in, answer.tokens_out) if answer else used
                return answer
            except Exception as error:
                self._failure = self._failure or error
                return None
            finally:
                await self.budget.settle(*worst, used)

    async def _send_with_retries(self, key: str, request: Request) -> Answer | None:
        """Sends a request until it is answered or fails permanently."""
        form, attempt = self._form, 0
        while self._failure is None:
            await self._wait_turn(request)
            try:
                answer = await self._post(key, request, form)
            except Exception as error:
                failure = read_failure(error, self._server, self._sampling.model)
                if failure is None:
                    raise
                lower = self._lower(form) if failure.form_refused else None
                if lower is not None:
                    form = lower
                    continue
                await self._back_off(failure, attempt)
                attempt += 1
                continue
            self._connected = True
            if form != self._form and self._server.structured == "auto":
                self._form = max(form, self._form, key=FORMS.index)
            return answer
        return None

    def _lower(self, form: str) -> str | None:
        if self._server.structured != "auto" or form == FORMS[-1]:
            return None
        # skip forms that the server has meanwhile refused for another request
        return FORMS[max(FORMS.index(form) + 1, FORMS.index(self._form))]

    async def _wait_turn(self, request: Request) -> None:
        await self._requests.wait(1)
        await self._tokens.wait(request.tokens())
        while (pause := self._pause_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)

    async def _back_off(self, failure: RequestFailure, attempt: int) -> None:
        """Sleeps before the next attempt, or raises if there is none."""
        retries = self._server.retries
        if failure.unreachable and not self._connected:
            retries = min(retries, 2)  # no connection so far: probably a wrong address
        if not failure.retryable or attempt >= retries:
            times = f" ({attempt + 1} attempts)" if attempt else ""
            raise UserError(self._key.scrub(f"{failure.message}{times}\n  {self._kept()}")) from None
        if failure.wait is not None and failure.wait > LONGEST_WAIT:
            text = f"the server asks to wait {failure.wait:.0f} s: {failure.message}\n  {self._kept()}"
            raise UserError(self._key.scrub(text)) from None
        backoff = min(_LONGEST_BACKOFF, self._server.backoff * 2.0**attempt)
        delay = backoff * (0.5 + 0.5 * self._random.random())
        if failure.wait is not None:  # all requests wait, and continue at different moments
            self._pause_until = max(self._pause_until, time.monotonic() + failure.wait)
            delay = failure.wait + 0.1 * delay
        self._observer.note(self._key.scrub(f"{failure.message}; retrying in {delay:.1f} s"))
        await asyncio.sleep(delay)

    def _kept(self) -> str:
        return (
            f"{len(self._journal.answers)} answers are kept in {self._journal.path}; run the same command to continue"
        )

    async def _post(self, key: str, request: Request, form: str) -> Answer:
        start = time.perf_counter()
        async with asyncio.timeout(self._server.timeout):  # the timeout of openai restarts with every byte
            response = await self._openai.chat.completions.create(**self._body(request, form))
        seconds = time.perf_counter() - start
        choices = getattr(response, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        if not choices or message is None:
            raise BrokenAnswerError("the response has no choices")
        refusal = getattr(message, "refusal", None)
        text = self._key.scrub(message.content or refusal or "")
        usage = response.usage
        reported = usage is not None and usage.prompt_tokens is not None and usage.completion_tokens is not None
        used = (usage.prompt_tokens, usage.completion_tokens) if reported else (request.tokens(), tokens(text))
        self._tokens.correct(sum(used) - request.tokens())
        finish = "refusal" if refusal else str(choices[0].finish_reason or "stop")
        model = self._key.scrub(str(response.model or self._sampling.model))
        return Answer(key, text, finish, int(used[0]), int(used[1]), not reported, model, form, round(seconds, 3))

    def _body(self, request: Request, form: str) -> dict[str, Any]:
        sampling = self._sampling
        messages = [{"role": "system", "content": request.system}] if request.system else []
        body: dict[str, Any] = {
            "model": sampling.model,
            "messages": [*messages, {"role": "user", "content": request.user}],
            # OpenAI's newer models accept only the first, other servers often only the second
            "max_completion_tokens" if self._server.is_openai else "max_tokens": sampling.max_tokens,
        }
        body |= {name: value for name in ("temperature", "top_p") if (value := getattr(sampling, name)) is not None}
        if form == "schema":
            schema = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form == "json":
            body["response_format"] = {"type": "json_object"}
        return body


def _openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ModuleNotFoundError:
        raise UserError(
            "the package openai, which sends requests to language models, is not installed. "
            'Install it with: pip install "harness[generate]"'
        ) from None
