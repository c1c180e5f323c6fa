"""A benchmark as the prompts see it: the task in words, examples as JSON, JSON schemas of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from harness.config.benchmark import Benchmark, Columns, PoolSplit
from harness.data.benchmarks import load
from harness.data.split import IntArray, Split
from harness.errors import UserError, unknown


class Worded(Protocol):
    """What prompts say of a task; a ``Benchmark`` has it."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def text(self) -> Columns: ...
    @property
    def label(self) -> str: ...


REAL = ("real_small", "real_large", "validation", "test")


def columns(benchmark: Worded) -> tuple[str, ...]:
    """The text column, or the two columns of a pair."""
    return (benchmark.text,) if isinstance(benchmark.text, str) else benchmark.text


def real_splits(benchmark: Benchmark, cache: Path | None) -> dict[str, Split]:
    """The real splits, whether there is a generated one yet or not.

    Raises:
        UserError: what ``harness.data.benchmarks.load`` raises.
    """
    kept = {
        name: origin
        for name, origin in benchmark.splits.items()
        if name in REAL or isinstance(origin, PoolSplit)  # parts of a pool shape one another
    }
    bare = benchmark.model_copy(update={"splits": kept})
    return load(bare, [name for name in kept if name in REAL], cache)


def context(benchmark: Worded, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """What every prompt may use: ``task``, ``description``, ``labels`` (name, description), ``columns``, ``pair``.

    Raises:
        UserError: a description is of no label.
    """
    for label in descriptions:
        if label not in benchmark.labels:
            raise unknown("label", label, benchmark.labels, "--describe")
    names = columns(benchmark)
    what = "pairs of texts" if len(names) == 2 else "texts"
    return {
        "task": f'The task "{benchmark.name}": {what}, each with one of {len(benchmark.labels)} labels.',
        "description": benchmark.description.strip(),
        "labels": [{"name": label, "description": descriptions.get(label, "")} for label in benchmark.labels],
        "columns": names,
        "pair": len(names) == 2,
    }


def shown(benchmark: Worded, split: Split, row: int, labelled: bool = True) -> str:
    """A row as one line of JSON, as a model is to write it."""
    texts = (split.texts[row],) if split.pairs is None else (split.texts[row], split.pairs[row])
    record = dict(zip(columns(benchmark), texts, strict=True))
    if labelled:
        record[benchmark.label] = benchmark.labels[int(split.labels[row])]
    return json.dumps(record, ensure_ascii=False)


def draw(split: Split, shots: int, random: np.random.Generator, first: int | None = None) -> IntArray:
    """Rows to show as examples, labels as even as possible, in random order: int64 [at most shots].

    Args:
        split: where they come from.
        shots: how many.
        random: the draw.
        first: a label that gets half of them (rounded up); the others share the rest.
    """
    waiting = {label: list(random.permutation(np.flatnonzero(split.labels == label))) for label in set(split.labels)}
    order = [int(label) for label in random.permutation(sorted(waiting))]
    chosen: list[int] = []
    if first is not None and first in waiting:
        chosen = [int(row) for row in waiting[first][: -(-shots // 2)]]
        order.remove(first)
    while order and len(chosen) < shots:
        label = order.pop(0)
        if waiting[label]:
            chosen.append(int(waiting[label].pop()))
            order.append(label)
    return np.asarray(random.permutation(np.array(chosen, dtype=np.int64)))


def rows_schema(benchmark: Worded, label: str) -> dict[str, Any]:
    """JSON schema of rows with one label."""
    fields: dict[str, Any] = {name: {"type": "string"} for name in columns(benchmark)}
    fields[benchmark.label] = {"type": "string", "enum": [label]}
    return _object({"rows": {"type": "array", "items": _object(fields)}})


def rows_form(benchmark: Worded, label: str) -> str:
    """The same as an example for the prompt."""
    row = {name: "..." for name in columns(benchmark)} | {benchmark.label: label}
    return json.dumps({"rows": [row]}, ensure_ascii=False)


def values_schema() -> dict[str, Any]:
    """JSON schema of the values of an attribute."""
    return _object({"values": {"type": "array", "items": {"type": "string"}}})


def label_schema(benchmark: Worded) -> dict[str, Any]:
    """JSON schema of one label."""
    return _object({"label": {"type": "string", "enum": list(benchmark.labels)}})


def check_attributes(benchmark: Worded, attributes: tuple[str, ...]) -> None:
    """Attributes become columns of the corpus, so they must not be called like another.

    Raises:
        UserError: one is.
    """
    taken = ("id", *columns(benchmark), benchmark.label)
    for name in attributes:
        if name in taken:
            raise UserError(f"--attribute {name}: the corpus has a column of that name already. Choose another name.")


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
