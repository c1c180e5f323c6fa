"""What to generate or classify, with which model, where, and at what cost."""

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
    """An OpenAI-compatible server, and how hard it may be used."""

    base_url: str = OPENAI
    """Usually ends in ``/v1``, e.g. ``http://127.0.0.1:8000/v1``."""
    key_env: str | None = None
    """Environment variable with the API key. Default: ``OPENAI_API_KEY`` for OpenAI's own server, and no key for
    any other, so that a key never travels to a server that it was not meant for."""
    concurrency: Positive = 16
    """Requests under way at the same time."""
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    """Prompt and answer tokens together."""
    timeout: Rate = 120.0
    """Seconds for one request, from sending it to the last byte of its answer."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is sent again after a passing trouble: 408, 409, 429, 5xx, timeouts, dropped connections."""
    backoff: Annotated[float, Field(ge=0.0, le=60.0)] = 1.0
    """Seconds before the first retry; doubled each time, at most 60, with jitter. The server's Retry-After goes
    before it."""
    structured: Literal["auto", "schema", "json", "plain"] = "auto"
    """How JSON is asked for; ``auto`` begins with a schema and steps down where the server refuses that."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        # no message repeats the URL: it may hold a password
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            raise ValueError("expected an http or https address, e.g. http://127.0.0.1:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "credentials, a query or a fragment do not belong in the address: it is written into the card. "
                "Put the key into an environment variable and name that by --key-env"
            )
        return url.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _name_of_variable(cls, name: str | None) -> str | None:
        # what stands here by mistake may be the key itself, so it is not repeated
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
    """None leaves it to the server; some models refuse any value."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_tokens: Positive = 2000
    """Of one answer."""


class Limits(FrozenModel):
    """Prices per million tokens, and where to stop."""

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


class Generation(FrozenModel):
    """A corpus to be written."""

    sampling: Sampling
    server: Server = Server()
    limits: Limits = Limits()
    n: Positive
    """Rows wanted, over all labels."""
    balance: Literal["uniform", "real_small"] = "uniform"
    """Rows of each label: the same number, or the shares of the split ``real_small``."""
    rows_per_call: Annotated[int, Field(ge=1, le=50)] = 5
    shots: Shots = 4
    """Real rows shown as examples, drawn anew for each call; 0 for none (zero-shot)."""
    shots_from: Literal["real_small", "real_large"] = "real_small"
    attributes: tuple[str, ...] = ("topic", "style")
    """The model first lists values of these; each call then draws one of each. Empty: rows without this step."""
    values: Annotated[int, Field(ge=2, le=100)] = 12
    """How many values of an attribute to ask for."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompts. Worth writing where a label's name does not say it."""
    seed: int = 0
    max_rounds: Positive = 5
    """Labels that are short of rows after a round are asked for again, in at most so many rounds."""
    prompts: str | None = None
    """Folder with templates that replace ours of the same name."""
    license: str = "not stated; the terms of the model and of its provider apply"
    """What the card says about using the rows."""

    @field_validator("attributes")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"an attribute is a lower-case word like topic, found {name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"attributes must be distinct, found {list(names)}")
        return names


class Classification(FrozenModel):
    """How a language model classifies rows from a few examples."""

    sampling: Sampling
    server: Server = Server()
    limits: Limits = Limits()
    shots: Shots = 4
    """Examples shown, the same for every row, labels as even as possible."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompt."""
    seed: int = 0
    prompts: str | None = None
    """Folder with templates that replace ours of the same name."""
    templates: dict[str, str] = {}
    """Name -> text of a template that replaces ours, or the folder's."""
