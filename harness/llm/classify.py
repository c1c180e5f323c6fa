"""Few-shot classification by a language model, used by the method ``llm_few_shot``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.config.benchmark import TaskPrompt
from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.llm.answers import json_in, without_reasoning
from harness.llm.client import Client, Observer, Request, SilentObserver
from harness.llm.journal import Answer, Journal, Usage
from harness.llm.keys import read_key
from harness.llm.limits import cost
from harness.llm.prompts import Prompts, draw_examples, object_schema, row_json, task_context
from harness.llm.settings import Classification
from harness.seeds import generator

UNPARSABLE = -1


@dataclass(frozen=True)
class Predictions:
    """Labels that a language model predicted for the rows of a split.

    Attributes:
        ids: the rows' ids.
        labels: class indices, int64 [n]; -1 where the answer names no label, which counts as wrong.
        unparsable: number of rows with label -1.
        usage: of all answers used, those from the journal included.
        seconds: wall time of this run; near zero if every answer was in the journal (see ``usage.seconds``).
        cost: price of the answers used, or None without prices.
        new_answers: number of answers that this run got from the server.
    """

    ids: tuple[str, ...]
    labels: IntArray
    unparsable: int
    usage: Usage
    seconds: float
    cost: float | None
    new_answers: int


def classify(
    settings: Classification, task: TaskPrompt, split: Split, examples: Split, journal: Path, *,
    environ: Mapping[str, str] = os.environ, observer: Observer | None = None, patience: float = 0.0,
) -> Predictions:  # fmt: skip
    """Classifies every row of ``split``. Answers are kept in ``journal`` by content: equal texts are sent once.

    Args:
        settings: model, server, limits, number of examples.
        task: the task as prompts describe it.
        split: the rows; their labels are not shown to the model.
        examples: the training split from which examples are drawn.
        journal: a file for the answers; several models, splits and seeds may share it.
        environ: where the API key is read.
        observer: is notified of the progress.
        patience: seconds to wait while another run writes to the journal; negative: no limit.

    Raises:
        UserError: a setting or prompt is not valid, the key is missing, a request failed permanently, or a limit was
            reached before the last row: a part of a split has no score.
    """
    key = read_key(settings.server, environ)
    requests = build_requests(settings, task, split, examples)
    keys = [request.key(settings.sampling) for request in requests]
    start = time.perf_counter()

    async def send_all(open_journal: Journal) -> tuple[dict[str, Answer], str | None]:
        client = Client(
            settings.server, settings.sampling, settings.limits, open_journal, key, observer or SilentObserver(),
            settings.seed,
        )  # fmt: skip
        async with client:
            return await client.ask(requests), client.budget.limit_reached

    with Journal(journal, patience) as open_journal:
        before = set(open_journal.answers)
        answers, limit = asyncio.run(send_all(open_journal))
    if limit is not None:
        raise UserError(
            f"{limit} was reached after {len(answers)} of {len(set(keys))} answers, which are kept in {journal}. "
            "Raise the limit and run the same command to continue."
        )
    labels = np.array([label_in(answers[key].text, task.labels) for key in keys], dtype=np.int64)
    usage = Usage.of(answers.values())
    return Predictions(
        split.ids, labels, int((labels == UNPARSABLE).sum()), usage, time.perf_counter() - start,
        cost(settings.limits, usage.tokens_in, usage.tokens_out), len(set(answers) - before),
    )  # fmt: skip


def build_requests(settings: Classification, task: TaskPrompt, split: Split, examples: Split) -> list[Request]:
    """One request for each row; the examples are the same in all.

    Raises:
        UserError: a prompt or a description is not valid.
    """
    prompts = Prompts(Path(settings.prompts) if settings.prompts else None, settings.templates)
    context = task_context(task, settings.descriptions)
    context["form"] = json.dumps({"label": "one of: " + ", ".join(task.labels)}, ensure_ascii=False)
    shots = draw_examples(examples, settings.shots, generator(settings.seed, "few-shot", task.name))
    context["examples"] = [row_json(task, examples, int(row)) for row in shots]
    system = prompts.render("system", **context)
    schema = object_schema({"label": {"type": "string", "enum": list(task.labels)}})
    rows = (row_json(task, split, row, labeled=False) for row in range(len(split)))
    return [Request(system, prompts.render("classify", **context, row=row), schema) for row in rows]


def label_in(text: str, labels: tuple[str, ...]) -> int:
    """The class index of the label in an answer: from its JSON, or the only label in its text; otherwise -1."""
    indices = {_plain(label): index for index, label in enumerate(labels)}
    text = without_reasoning(text)
    try:
        content = json_in(text)
    except ValueError:
        return _only_label(text, indices)
    values = list(content.values()) if isinstance(content, dict) else content
    if isinstance(content, dict) and "label" in content:
        values = [content["label"]]
    classes = [indices.get(_plain(str(value)), UNPARSABLE) for value in values]
    return classes[0] if len(classes) == 1 else UNPARSABLE


def _only_label(text: str, indices: Mapping[str, int]) -> int:
    # longer names first, so that "not irony" is not read as "irony"
    pattern = "|".join(re.escape(label) for label in sorted(indices, key=len, reverse=True))
    matches = re.findall(rf"(?<!\w)(?:({pattern})|(?:not|non|no) (?:{pattern}))(?!\w)", _plain(text))
    classes = {indices[label] if label else UNPARSABLE for label in matches}  # a negated label is no label
    return classes.pop() if len(classes) == 1 else UNPARSABLE


def _plain(text: str) -> str:
    """Lower case, with one space for every run of spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip()
