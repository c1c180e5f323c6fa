"""Settings of requests to a language model: the server, the model, the limits, and few-shot classification."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from harness.config.schema import FrozenModel, Positive

OPENAI = "https://api.openai.com/v1"
MOST_SHOTS = 8

Price = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Shots = Annotated[int, Field(ge=0, le=MOST_SHOTS)]


class Server(FrozenModel):
    """An OpenAI-compatible server, and the load that it may get."""

    base_url: str = OPENAI
    """Usually ends in ``/v1``, e.g. ``http://127.0.0.1:8000/v1``."""
    key_env: str | None = None
    """Environment variable with the API key. Default: ``OPENAI_API_KEY`` for OpenAI's own server, and no key for
    any other, so that a key is never sent to a server that it does not belong to."""
    concurrency: Positive = 16
    """Maximum number of simultaneous requests."""
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    """Prompt and answer tokens together."""
    timeout: Rate = 120.0
    """Seconds for one request, from sending it to the last byte of its answer."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is sent again after a temporary failure: 408, 409, 429, 5xx, timeouts, dropped
    connections."""
    backoff: Annotated[float, Field(ge=0.0, le=60.0)] = 1.0
    """Seconds before the first retry; doubled each time, at most 60, with jitter. The server's Retry-After takes
    precedence."""
    structured: Literal["auto", "schema", "json", "plain"] = "auto"
    """How JSON is requested; ``auto`` starts with a schema and falls back to JSON mode and plain text if the server
    refuses."""

    @field_validator("base_url")
    @classmethod
    def _valid_url(cls, url: str) -> str:
        # no message repeats the URL: it may contain a password
        try:
            parts = urlsplit(url)
            valid = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("expected an http or https address, e.g. http://127.0.0.1:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "the address must not contain credentials, a query or a fragment: it is recorded with the results. "
                "Put the key into an environment variable and name the variable in server.key_env"
            )
        return url.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _variable_name(cls, name: str | None) -> str | None:
        # the value may be the key itself, given by mistake, so no message repeats it
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
            raise ValueError(
                "expected the name of an environment variable in capitals, e.g. MY_SERVER_KEY, not the key itself"
            )
        return name

    @property
    def is_openai(self) -> bool:
        """Whether this is OpenAI's own server."""
        return urlsplit(self.base_url).hostname == urlsplit(OPENAI).hostname

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the key, or None where no key is sent."""
        return self.key_env or ("OPENAI_API_KEY" if self.is_openai else None)


class Sampling(FrozenModel):
    """The model and how it samples. Part of the identity of every answer."""

    model: str = Field(min_length=1)
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = 1.0
    """None: the server's default; some models accept no other."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Positive = 2000
    """Of one answer."""


class Limits(FrozenModel):
    """Prices per million tokens, and limits on cost and tokens."""

    price_in: Price | None = None
    """Of a million prompt tokens, in any currency."""
    price_out: Price | None = None
    """Of a million answer tokens."""
    budget: Rate | None = None
    """Money, in the currency of the prices. Answers paid for by earlier runs into the same journal count."""
    max_tokens_total: Positive | None = None
    """Prompt and answer tokens together, with those of earlier runs into the same journal."""

    @model_validator(mode="after")
    def _prices(self) -> Limits:
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("give both price_in and price_out, or neither")
        if self.budget is not None and self.price_in is None:
            raise ValueError("a budget needs price_in and price_out, the prices per million tokens")
        return self


class Classification(FrozenModel):
    """How a language model classifies rows from a few examples."""

    sampling: Sampling
    server: Server = Server()
    limits: Limits = Limits()
    shots: Shots = 4
    """Examples shown, the same for every row, balanced over the labels as far as possible."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompt."""
    seed: int = 0
    prompts: str | None = None
    """Folder with templates that replace the built-in ones of the same name."""
    templates: dict[str, str] = {}
    """Name -> text of a template that replaces the built-in one, or the folder's."""
