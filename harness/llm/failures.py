"""Failures of requests: which can be retried, which need another form of JSON, and which are permanent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from harness.llm.settings import Server

RETRYABLE = (408, 409, 429)  # and every 5xx
FORM_REFUSED = (400, 415, 422, 501)
LONGEST_WAIT = 600.0  # seconds; if the server asks for more, the run stops


class BrokenAnswerError(Exception):
    """The status is 200, but the body is not a chat completion."""


@dataclass(frozen=True)
class RequestFailure:
    """One failed attempt.

    Attributes:
        message: what happened; the API key is not removed from it yet.
        retryable: whether the same request may succeed later.
        wait: seconds that the server asked to wait.
        form_refused: the server may not support the form in which JSON was requested.
        unreachable: no connection could be made.
    """

    message: str
    retryable: bool
    wait: float | None = None
    form_refused: bool = False
    unreachable: bool = False


def read_failure(error: Exception, server: Server, model: str) -> RequestFailure | None:
    """The failure behind an exception of the client; None if the exception is not about the request (e.g. a bug)."""
    import openai

    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return RequestFailure(f"no answer within {server.timeout:g} s", retryable=True)
    if isinstance(error, openai.APIStatusError) and error.status_code >= 400:
        return _status(error, server, model)
    if isinstance(error, openai.APIConnectionError):
        reason = str(error.__cause__ or error) or "connection dropped"
        refused = "connect" in type(error.__cause__).__name__.lower()
        return RequestFailure(f"connection to {server.base_url} failed: {reason}", retryable=True, unreachable=refused)
    if isinstance(error, BrokenAnswerError | openai.APIError | ValueError):
        text = f"{server.base_url} answered, but not like an OpenAI-compatible server: {error}"
        return RequestFailure(f"{text[:300]}. Does server.base_url need /v1 at its end?", retryable=True)
    return None


def _status(error: Any, server: Server, model: str) -> RequestFailure:
    status, message = int(error.status_code), _server_message(error)
    if status == 429 and error.code == "insufficient_quota":
        return RequestFailure(f"the account has no quota left (429): {message}", retryable=False)
    if status in RETRYABLE or (status >= 500 and status not in FORM_REFUSED):
        return RequestFailure(
            f"{status}: {message}", retryable=True, wait=retry_after(error.response.headers, time.time())
        )
    variable = server.key_variable
    hints = {
        401: f"Put a valid key for this server into the environment variable {variable}."
        if variable
        else "This server requires a key: put it into an environment variable and name the variable in server.key_env.",
        403: "The key does not give access to this model, or not from this place.",
        404: f"Check the model ({model}) and server.base_url ({server.base_url}), which usually ends in /v1.",
    }
    hint = f"\n  {hints[status]}" if status in hints else ""
    text = f"{server.base_url} refused a request ({status}): {message}{hint}"
    return RequestFailure(text, retryable=False, form_refused=status in FORM_REFUSED)


def _server_message(error: Any) -> str:
    """The message in the server's response, on one line."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error")
        body = body.get("message") or (inner.get("message") if isinstance(inner, dict) else inner) or body
    return " ".join(str(body or error).split())[:300]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    Args:
        headers: of the response, with names in lower case or a mapping that ignores case.
        now: seconds since 1970.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - now
            except ValueError:
                continue
        if seconds == seconds and abs(seconds) != float("inf"):
            return max(0.0, seconds)
    return None
