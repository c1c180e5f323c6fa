"""Builds the requests for a corpus: first attributes, then rows. Determined by the settings and the real rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.benchmark import Benchmark, PoolSplit, TaskPrompt
from harness.data.benchmarks import load
from harness.data.partition import quotas
from harness.data.split import Split
from harness.errors import UserError
from harness.generation.settings import Generation
from harness.llm.answers import json_in
from harness.llm.client import Request
from harness.llm.journal import Answer
from harness.llm.prompts import Prompts, draw_examples, object_schema, row_json, task_context
from harness.seeds import generator

REAL = ("real_small", "real_large", "validation", "test")
Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Call:
    """A request for rows of one class, with the attributes of these rows."""

    request: Request
    label: int
    attributes: Mapping[str, str]


class RequestBuilder:
    """Builds the requests for a corpus.

    Args:
        settings: of the corpus.
        task: the task as prompts describe it.
        real: the real splits.

    Raises:
        UserError: a prompt, description or attribute is not valid, or the split for examples is missing.
    """

    def __init__(self, settings: Generation, task: TaskPrompt, real: Mapping[str, Split]) -> None:
        _check_attributes(task, settings.attributes)
        self.settings, self.task, self.real = settings, task, real
        self.prompts = Prompts(Path(settings.prompts) if settings.prompts else None)
        self._context = task_context(task, settings.descriptions)
        self._system = self.prompts.render("system", **self._context)
        if settings.shots and settings.shots_from not in real:
            raise UserError(
                f"benchmark {task.name} has no split {settings.shots_from} to draw examples from. "
                "Set shots_from to real_small, or shots to 0."
            )

    @property
    def quotas(self) -> list[int]:
        """Number of rows of each class."""
        classes = len(self.task.labels)
        shares = np.ones(classes, dtype=np.int64)
        if self.settings.balance == "real_small":
            shares = np.bincount(self.real["real_small"].labels, minlength=classes).astype(np.int64)
        return [int(count) for count in quotas(shares, self.settings.n)]

    def attribute(self, name: str, sample: int = 0) -> Request:
        """The request for the values of an attribute."""
        form = json.dumps({"values": ["...", "..."]})
        values = {"attribute": name.replace("_", " "), "values": self.settings.values, "form": form}
        prompt = self.prompts.render("attributes", **self._context, **values)
        return Request(
            self._system, prompt, object_schema({"values": {"type": "array", "items": {"type": "string"}}}), sample
        )

    def call(self, label: int, sample: int, values: Values) -> Call:
        """Request number ``sample`` for rows of a class; the seed determines its attributes and examples."""
        random = generator(self.settings.seed, "rows", self.task.name, label, sample)
        attributes = {name: str(choices[int(random.integers(len(choices)))]) for name, choices in values.items()}
        examples: list[str] = []
        if self.settings.shots:
            split = self.real[self.settings.shots_from]
            rows = draw_examples(split, self.settings.shots, random, label)
            examples = [row_json(self.task, split, int(row)) for row in rows]
        name = self.task.labels[label]
        prompt = self.prompts.render(
            "rows", **self._context, label=name, rows=self.settings.rows_per_call, attributes=attributes,
            examples=examples, form=_rows_form(self.task, name),
        )  # fmt: skip
        return Call(Request(self._system, prompt, _rows_schema(self.task, name), sample), label, attributes)

    def placeholders(self) -> Values:
        """Placeholders for the values of attributes, used before the model has listed values."""
        return {name: [f"<a {name.replace('_', ' ')} from step one>"] for name in self.settings.attributes}


def parse_values(answer: Answer, limit: int) -> list[str]:
    """The distinct values in the answer to an attribute's request, at most ``limit``; [] if fewer than two."""
    try:
        content = json_in(answer.text)
    except ValueError:
        return []
    entries = content.get("values") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        return []
    texts = (" ".join(entry.encode(errors="ignore").decode().split()) for entry in entries if isinstance(entry, str))
    values = list(dict.fromkeys(text for text in texts if text))[:limit]
    return values if len(values) >= 2 else []


def real_splits(benchmark: Benchmark, cache: Path | None) -> dict[str, Split]:
    """Loads the real splits of a benchmark, whose generated split need not exist yet.

    Raises:
        UserError: what ``harness.data.benchmarks.load`` raises.
    """
    kept = {
        name: origin
        for name, origin in benchmark.splits.items()
        if name in REAL or isinstance(origin, PoolSplit)  # the parts of a pool depend on each other
    }
    return load(benchmark.model_copy(update={"splits": kept}), [name for name in kept if name in REAL], cache)


def _check_attributes(task: TaskPrompt, attributes: tuple[str, ...]) -> None:
    """Attributes become columns of the corpus, so their names must differ from those of other columns."""
    for name in attributes:
        if name in ("id", *task.columns, task.label):
            raise UserError(f"attributes: {name}: the corpus has a column of that name already. Choose another name.")


def _rows_schema(task: TaskPrompt, label: str) -> dict[str, Any]:
    """JSON schema of rows with one label."""
    fields: dict[str, Any] = {name: {"type": "string"} for name in task.columns}
    fields[task.label] = {"type": "string", "enum": [label]}
    return object_schema({"rows": {"type": "array", "items": object_schema(fields)}})


def _rows_form(task: TaskPrompt, label: str) -> str:
    """An example of the JSON in ``_rows_schema``, for the prompt."""
    row = {name: "..." for name in task.columns} | {task.label: label}
    return json.dumps({"rows": [row]}, ensure_ascii=False)
