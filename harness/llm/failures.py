"""What went wrong with a request, and what to do about it: send it again, ask in another form, or stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from harness.llm.settings import Server

PASSING = (408, 409, 429)  # and every 5xx
FORM_REFUSED = (400, 415, 422, 501)
LONGEST_WAIT = 600.0  # seconds; a server that asks for more is asked again by a later run


class BrokenAnswerError(Exception):
    """The server said 200, but the body is no chat completion."""


@dataclass(frozen=True)
class RequestFailure:
    """One failed attempt.

    Attributes:
        message: what happened, for people; the key is still to be scrubbed.
        again: whether the same request may succeed later.
        wait: seconds that the server asked to wait.
        form_refused: the server may dislike the way in which JSON was asked for.
        unreachable: no connection could be made.
    """

    message: str
    again: bool
    wait: float | None = None
    form_refused: bool = False
    unreachable: bool = False


def read(error: Exception, server: Server, model: str) -> RequestFailure | None:
    """What an exception of the client means; None where it is not about the request (a bug, say)."""
    import openai

    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return RequestFailure(f"no answer within {server.timeout:g} s", again=True)
    if isinstance(error, openai.APIStatusError) and error.status_code >= 400:
        return _status(error, server, model)
    if isinstance(error, openai.APIConnectionError):
        reason = str(error.__cause__ or error) or "connection dropped"
        refused = "connect" in type(error.__cause__).__name__.lower()
        return RequestFailure(f"connection to {server.base_url} failed: {reason}", again=True, unreachable=refused)
    if isinstance(error, BrokenAnswerError | openai.APIError | ValueError):
        text = f"{server.base_url} answered, but not like an OpenAI-compatible server: {error}"
        return RequestFailure(f"{text[:300]}. Does --base-url need /v1 at its end?", again=True)
    return None


def _status(error: Any, server: Server, model: str) -> RequestFailure:
    status, said = int(error.status_code), _said(error)
    if status == 429 and error.code == "insufficient_quota":
        return RequestFailure(f"the account has no quota left (429): {said}", again=False)
    if status in PASSING or (status >= 500 and status not in FORM_REFUSED):
        return RequestFailure(f"{status}: {said}", again=True, wait=retry_after(error.response.headers, time.time()))
    variable = server.key_variable
    hints = {
        401: f"Put a valid key for this server into the environment variable {variable}."
        if variable
        else "This server wants a key: put it into an environment variable and name that by --key-env.",
        403: "The key may not use this model, or not from here.",
        404: f"Check --model ({model}) and --base-url ({server.base_url}), which usually ends in /v1.",
    }
    message = f"{server.base_url} refused a request ({status}): {said}"
    return RequestFailure(
        f"{message}\n  {hints[status]}" if status in hints else message, False, None, status in FORM_REFUSED
    )


def _said(error: Any) -> str:
    """The server's own words, on one line."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error")
        body = body.get("message") or (inner.get("message") if isinstance(inner, dict) else inner) or body
    return " ".join(str(body or error).split())[:300]


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    Args:
        headers: of the answer, names in lower case or a mapping that ignores case.
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
