"""Settings of a corpus, and the file that ``harness generate`` reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from harness.config.schema import FrozenModel, PathText, Positive, absolute, apply_overrides, parse, read_yaml
from harness.llm.settings import Limits, Sampling, Server, Shots


class Generation(FrozenModel):
    """How a corpus is written."""

    sampling: Sampling
    server: Server = Server()
    limits: Limits = Limits()
    n: Positive = 2000
    """Rows wanted, over all labels."""
    balance: Literal["uniform", "real_small"] = "uniform"
    """Rows of each label: the same number, or the shares of the split ``real_small``."""
    rows_per_call: Annotated[int, Field(ge=1, le=50)] = 5
    shots: Shots = 4
    """Real rows shown as examples, drawn again for each call; 0: none (zero-shot)."""
    shots_from: Literal["real_small", "real_large"] = "real_small"
    attributes: tuple[str, ...] = ("topic", "style")
    """The model first lists values of each attribute; every call then draws one value of each. Empty: no such step."""
    values: Annotated[int, Field(ge=2, le=100)] = 12
    """Number of values to ask for, for each attribute."""
    descriptions: dict[str, str] = {}
    """Label -> what it means, for the prompts. Worth writing if the label's name is not clear."""
    seed: int = 0
    max_rounds: Positive = 5
    """Maximum number of rounds of requests: each replaces the rows that the round before lacked or rejected."""
    prompts: PathText | None = None
    """Folder with ``system.txt``, ``attributes.txt`` or ``rows.txt`` in place of the built-in templates."""
    license: str = "not stated; the terms of the model and of its provider apply"
    """The card's statement on the use of the rows."""

    @field_validator("attributes")
    @classmethod
    def _valid_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"an attribute is a lower-case word like topic, found {name!r}")
        if len(set(names)) != len(names):
            raise ValueError(f"attributes must be distinct, found {list(names)}")
        return names


class GenerationFile(Generation):
    """A file of ``harness generate``: the settings of a corpus, its benchmark, and where it is written."""

    benchmark: PathText
    """A name from the catalogue, or the path of a YAML file, relative to the file that names it."""
    out: str | None = None
    """The corpus, relative to the current folder. Default: ``generated/BENCHMARK.jsonl``."""


def load(path: Path, overrides: tuple[str, ...] = ()) -> GenerationFile:
    """Reads a YAML file and applies ``KEY=VALUE`` overrides (dotted keys, YAML values).

    A relative ``benchmark`` file and a relative ``prompts`` folder are relative to the file that names them.

    Raises:
        UserError: the file is missing or not valid.
    """
    raw = read_yaml(path, _anchor_paths)
    apply_overrides(raw, overrides)
    return parse(GenerationFile, _anchor_paths(raw, path.parent), str(path))


def _anchor_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping of a file with its relative paths made absolute against ``folder``."""
    out = dict(raw)
    benchmark, prompts = out.get("benchmark"), out.get("prompts")
    if isinstance(benchmark, str) and benchmark.endswith((".yaml", ".yml")):
        out["benchmark"] = absolute(benchmark, folder)
    if isinstance(prompts, str):
        out["prompts"] = absolute(prompts, folder)
    return out
