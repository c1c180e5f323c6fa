"""Which requests a corpus needs: attributes first, then rows. Pure, given the settings and the real rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.benchmark import Benchmark
from harness.data.partition import quotas
from harness.data.split import Split
from harness.errors import UserError
from harness.llm import tasks
from harness.llm.answers import json_in
from harness.llm.client import Request
from harness.llm.journal import Answer
from harness.llm.prompts import Prompts
from harness.llm.settings import Generation
from harness.seeds import generator

Values = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Call:
    """One request for rows: what it asks for, and its class and attributes."""

    request: Request
    label: int
    attributes: Mapping[str, str]


class RequestBuilder:
    """Writes the requests of a corpus.

    Args:
        settings: what is wanted.
        benchmark: the task.
        real: the real splits.

    Raises:
        UserError: a prompt, description or attribute is faulty, or the split for examples is missing.
    """

    def __init__(self, settings: Generation, benchmark: Benchmark, real: Mapping[str, Split]) -> None:
        tasks.check_attributes(benchmark, settings.attributes)
        self.settings, self.benchmark, self.real = settings, benchmark, real
        self.prompts = Prompts(Path(settings.prompts) if settings.prompts else None)
        self._context = tasks.context(benchmark, settings.descriptions)
        self._system = self.prompts.render("system", **self._context)
        if settings.shots and settings.shots_from not in real:
            raise UserError(
                f"benchmark {benchmark.name} has no split {settings.shots_from} to take examples from. "
                "Use --shots-from real_small, or --shots 0."
            )

    @property
    def quotas(self) -> list[int]:
        """Rows wanted of each class."""
        classes = len(self.benchmark.labels)
        shares = np.ones(classes, dtype=np.int64)
        if self.settings.balance == "real_small":
            shares = np.bincount(self.real["real_small"].labels, minlength=classes).astype(np.int64)
        return [int(count) for count in quotas(shares, self.settings.n)]

    def attribute(self, name: str, sample: int = 0) -> Request:
        """The request for the values of an attribute."""
        form = json.dumps({"values": ["...", "..."]})
        asked = {"attribute": name.replace("_", " "), "values": self.settings.values, "form": form}
        prompt = self.prompts.render("attributes", **self._context, **asked)
        return Request(self._system, prompt, tasks.values_schema(), sample)

    def call(self, label: int, sample: int, values: Values) -> Call:
        """The request for rows number ``sample`` of a class; attributes and examples are drawn by the seed."""
        random = generator(self.settings.seed, "rows", self.benchmark.name, label, sample)
        attributes = {name: str(choices[int(random.integers(len(choices)))]) for name, choices in values.items()}
        examples: list[str] = []
        if self.settings.shots:
            split = self.real[self.settings.shots_from]
            rows = tasks.draw(split, self.settings.shots, random, label)
            examples = [tasks.shown(self.benchmark, split, int(row)) for row in rows]
        name = self.benchmark.labels[label]
        prompt = self.prompts.render(
            "rows", **self._context, label=name, rows=self.settings.rows_per_call, attributes=attributes,
            examples=examples, form=tasks.rows_form(self.benchmark, name),
        )  # fmt: skip
        return Call(Request(self._system, prompt, tasks.rows_schema(self.benchmark, name), sample), label, attributes)

    def placeholders(self) -> Values:
        """Stands for the values before step one has given them."""
        return {name: [f"<a {name.replace('_', ' ')} from step one>"] for name in self.settings.attributes}


def values_in(answer: Answer, most: int) -> list[str]:
    """The distinct values in an answer to an attribute's request, at most so many; fewer than two are none."""
    try:
        found = json_in(answer.text)
    except ValueError:
        return []
    entries = found.get("values") if isinstance(found, dict) else found
    if not isinstance(entries, list):
        return []
    texts = (" ".join(entry.encode(errors="ignore").decode().split()) for entry in entries if isinstance(entry, str))
    values = list(dict.fromkeys(text for text in texts if text))[:most]
    return values if len(values) >= 2 else []
