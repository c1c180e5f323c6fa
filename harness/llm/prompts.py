"""Prompts of a task: Jinja templates, which the user may replace, and the values that fill them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from harness.config.benchmark import TaskPrompt
from harness.data.split import IntArray, Split
from harness.errors import UserError, unknown

FOLDER = Path(__file__).parent / "templates"
NAMES = ("system", "attributes", "rows", "classify")


class Prompts:
    """Templates by name: ``system``, ``attributes`` (step one), ``rows`` (step two), ``classify``.

    Args:
        folder: files ``NAME.txt`` in it replace the built-in templates; None: no replacement.
        texts: name -> text that replaces either.

    Raises:
        UserError: the folder does not exist or has no template, a file in it has an unknown name, or a template is not
            valid.
    """

    def __init__(self, folder: Path | None = None, texts: Mapping[str, str] | None = None) -> None:
        self.sources = {name: (FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in NAMES}
        self._origin = {name: str(FOLDER / f"{name}.txt") for name in NAMES}
        if folder is not None:
            self._replace(folder)
        for name, text in (texts or {}).items():
            if name not in NAMES:
                raise unknown("prompt", name, NAMES, "templates")
            self.sources[name], self._origin[name] = text, f"the template {name!r}"
        environment = SandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        self._templates = {}
        for name, source in self.sources.items():
            try:
                self._templates[name] = environment.from_string(source)
            except TemplateSyntaxError as error:
                raise UserError(f"{self._origin[name]}, line {error.lineno}: {error.message}") from None

    def _replace(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"prompts: {folder}: there is no such folder. Templates to copy from: {FOLDER}")
        paths = sorted(folder.glob("*.txt"))
        if not paths:
            raise UserError(f"prompts: {folder}: no template in it; expected one of {', '.join(NAMES)} as NAME.txt.")
        for path in paths:
            if path.stem not in NAMES:
                raise unknown("prompt", path.stem, NAMES, str(folder))
            try:
                self.sources[path.stem] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
            self._origin[path.stem] = str(path)

    def render(self, name: str, **values: Any) -> str:
        """Fills a template; leading and trailing white space is removed.

        Raises:
            UserError: the template uses an unknown value, or fails otherwise.
        """
        try:
            return self._templates[name].render(**values).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            known = ", ".join(sorted(values))
            raise UserError(f"{self._origin[name]}: {error}. Values to use in it: {known}.") from None


def task_context(task: TaskPrompt, descriptions: Mapping[str, str]) -> dict[str, Any]:
    """Values for every template: ``task``, ``description``, ``labels`` (name, description), ``columns``, ``pair``.

    Raises:
        UserError: a description belongs to no label of the task.
    """
    for label in descriptions:
        if label not in task.labels:
            raise unknown("label", label, task.labels, "descriptions")
    pair = len(task.columns) == 2
    what = "pairs of texts" if pair else "texts"
    return {
        "task": f'The task "{task.name}": {what}, each with one of {len(task.labels)} labels.',
        "description": task.description.strip(),
        "labels": [{"name": label, "description": descriptions.get(label, "")} for label in task.labels],
        "columns": task.columns,
        "pair": pair,
    }


def row_json(task: TaskPrompt, split: Split, row: int, labeled: bool = True) -> str:
    """A row as one line of JSON, in the form in which a model is to write it."""
    texts = (split.texts[row],) if split.pairs is None else (split.texts[row], split.pairs[row])
    record = dict(zip(task.columns, texts, strict=True))
    if labeled:
        record[task.label] = task.labels[int(split.labels[row])]
    return json.dumps(record, ensure_ascii=False)


def draw_examples(split: Split, shots: int, random: np.random.Generator, first: int | None = None) -> IntArray:
    """Draws rows to show as examples, labels balanced as far as possible, in random order: int64 [at most shots].

    Args:
        split: the rows to draw from.
        shots: number of rows.
        random: the random generator.
        first: a label that gets half of the rows (rounded up); the others share the rest.
    """
    waiting = {label: list(random.permutation(np.flatnonzero(split.labels == label))) for label in set(split.labels)}
    order = [int(label) for label in random.permutation(sorted(waiting))]
    rows: list[int] = []
    if first is not None and first in waiting:
        rows = [int(row) for row in waiting[first][: -(-shots // 2)]]
        order.remove(first)
    while order and len(rows) < shots:
        label = order.pop(0)
        if waiting[label]:
            rows.append(int(waiting[label].pop()))
            order.append(label)
    return np.asarray(random.permutation(np.array(rows, dtype=np.int64)))


def object_schema(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
