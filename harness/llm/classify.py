"""Few-shot classification by a language model: the first row of the paper's main table, ``llm_few_shot``."""

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

from harness.data.split import IntArray, Split
from harness.errors import UserError
from harness.llm import tasks
from harness.llm.answers import json_in, without_thoughts
from harness.llm.client import Client, Observer, Request, Silent
from harness.llm.journal import Answer, Journal, Usage
from harness.llm.keys import read_key
from harness.llm.limits import cost
from harness.llm.prompts import Prompts
from harness.llm.settings import Classification
from harness.llm.tasks import Worded
from harness.seeds import generator

UNPARSABLE = -1


@dataclass(frozen=True)
class Predictions:
    """The labels that a language model gave to the rows of a split.

    Attributes:
        ids: the rows' ids.
        labels: class indices, int64 [n]; -1 where the answer names no label, which is wrong in any score.
        unparsable: how many those are.
        usage: of the answers used, also where they came from the journal.
        seconds: wall time of this run; near zero where every answer was in the journal (``usage.seconds`` is not).
        cost: money for the answers used, or None without prices.
        asked: answers that this run got from the server.
    """

    ids: tuple[str, ...]
    labels: IntArray
    unparsable: int
    usage: Usage
    seconds: float
    cost: float | None
    asked: int


def classify(
    settings: Classification, benchmark: Worded, split: Split, examples: Split, journal: Path, *,
    environ: Mapping[str, str] = os.environ, observer: Observer | None = None, patience: float = 0.0,
) -> Predictions:  # fmt: skip
    """Classifies every row of ``split``. Answers are kept in ``journal`` by content: equal texts are asked once.

    Args:
        settings: model, server, limits, number of examples.
        benchmark: the task.
        split: the rows; their labels are not shown to the model.
        examples: the training split from which examples are drawn.
        journal: a file for the answers; several models, splits and seeds may share it.
        environ: where the API key is read.
        observer: hears how it goes.
        patience: seconds to wait while another run writes to the journal; negative for ever.

    Raises:
        UserError: a mistake in settings or prompts, a missing key, a request that failed for good, or a limit that
            was reached before the last row: half a split has no score.
    """
    key = read_key(settings.server, environ)
    asked = requests(settings, benchmark, split, examples)
    keys = [request.key(settings.sampling) for request in asked]
    start = time.perf_counter()

    async def work(book: Journal) -> tuple[dict[str, Answer], str | None]:
        client = Client(
            settings.server, settings.sampling, settings.limits, book, key, observer or Silent(), settings.seed
        )  # fmt: skip
        async with client:
            return await client.ask(asked), client.meter.reached

    with Journal(journal, patience) as book:
        before = set(book.answers)
        answers, reached = asyncio.run(work(book))
    if reached is not None:
        raise UserError(
            f"{reached} was reached after {len(answers)} of {len(set(keys))} answers, which are kept in {journal}. "
            "Raise the limit, and the same command goes on."
        )
    labels = np.array([label_in(answers[key].text, benchmark.labels) for key in keys], dtype=np.int64)
    usage = Usage.of(answers.values())
    return Predictions(
        split.ids, labels, int((labels == UNPARSABLE).sum()), usage, time.perf_counter() - start,
        cost(settings.limits, usage.tokens_in, usage.tokens_out), len(set(answers) - before),
    )  # fmt: skip


def requests(settings: Classification, benchmark: Worded, split: Split, examples: Split) -> list[Request]:
    """One request for each row; the examples are the same in all.

    Raises:
        UserError: a prompt or description is faulty.
    """
    prompts = Prompts(Path(settings.prompts) if settings.prompts else None, settings.templates)
    context = tasks.context(benchmark, settings.descriptions)
    context["form"] = json.dumps({"label": "one of: " + ", ".join(benchmark.labels)}, ensure_ascii=False)
    chosen = tasks.draw(examples, settings.shots, generator(settings.seed, "few-shot", benchmark.name))
    context["examples"] = [tasks.shown(benchmark, examples, int(row)) for row in chosen]
    system, schema = prompts.render("system", **context), tasks.label_schema(benchmark)
    rows = (tasks.shown(benchmark, split, row, labelled=False) for row in range(len(split)))
    return [Request(system, prompts.render("classify", **context, row=row), schema) for row in rows]


def label_in(text: str, labels: tuple[str, ...]) -> int:
    """The class index that an answer names: as JSON, or as the only label in its words; else -1."""
    indices = {_plain(label): index for index, label in enumerate(labels)}
    text = without_thoughts(text)
    try:
        found = json_in(text)
    except ValueError:
        return _only_label(text, indices)
    values = list(found.values()) if isinstance(found, dict) else found
    if isinstance(found, dict) and "label" in found:
        values = [found["label"]]
    named = [indices.get(_plain(str(value)), UNPARSABLE) for value in values]
    return named[0] if len(named) == 1 else UNPARSABLE


def _only_label(text: str, indices: Mapping[str, int]) -> int:
    # longer names first, so that "not irony" is not read as "irony"
    pattern = "|".join(re.escape(label) for label in sorted(indices, key=len, reverse=True))
    found = re.findall(rf"(?<!\w)(?:({pattern})|(?:not|non|no) (?:{pattern}))(?!\w)", _plain(text))
    named = {indices[label] if label else UNPARSABLE for label in found}  # a negated label names none
    return named.pop() if len(named) == 1 else UNPARSABLE


def _plain(text: str) -> str:
    """Lower case, with one space for every run of spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", text.casefold()).strip()
