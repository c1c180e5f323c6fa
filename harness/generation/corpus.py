"""Writes a corpus of labeled rows with a language model: requests, checks, balances and stores them with a card."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness.config.benchmark import Benchmark, TaskPrompt
from harness.errors import UserError
from harness.files import write_atomically
from harness.generation import card
from harness.generation.parsing import Row, RowFilter, parse
from harness.generation.requests import Call, RequestBuilder, Values, parse_values, real_splits
from harness.generation.settings import Generation
from harness.llm.client import Client, Observer, SilentObserver
from harness.llm.journal import Answer, Journal, Usage, read_journal
from harness.llm.keys import read_key
from harness.llm.limits import cost
from harness.llm.prompts import row_json

ATTRIBUTE_ATTEMPTS = 3
#: lower bound of the share of valid rows that is assumed for the next round: limits how much it may grow
_MIN_YIELD = 0.2


@dataclass(frozen=True)
class Corpus:
    """The rows of a corpus, and how they were obtained.

    Attributes:
        rows: the rows kept, labels alternating.
        quotas: requested number of rows of each class.
        values: the attributes and the values that the model listed.
        rejects: number of rejected rows by reason; an answer that cannot be parsed counts as one.
        surplus: valid rows beyond a label's quota.
        usage: of the answers from which the corpus was made.
        models: number of answers by model name (as the server reported it) and form of JSON.
        rounds: number of rounds of requests.
        stopped: the limit that stopped the run, or None.
    """

    rows: tuple[Row, ...]
    quotas: tuple[int, ...]
    values: Values
    rejects: Mapping[str, int]
    surplus: int
    usage: Usage
    models: Mapping[tuple[str, str], int]
    rounds: int
    stopped: str | None

    @property
    def complete(self) -> bool:
        """Whether every label has its quota of rows."""
        return len(self.rows) == sum(self.quotas)


@dataclass(frozen=True)
class Estimate:
    """Estimated calls, tokens and cost of a corpus, computed without sending a request.

    Attributes:
        calls: number of requests if every row is valid.
        done: number of these that the journal has answers to.
        tokens_in: prompt tokens of the remaining requests.
        tokens_out: answer tokens of the remaining requests, if generated rows are as long as real ones.
        max_tokens_out: the same with the longest answers allowed.
        cost: cost of the remaining requests, or None without prices.
        max_cost: the same with the longest answers allowed.
    """

    calls: int
    done: int
    tokens_in: int
    tokens_out: int
    max_tokens_out: int
    cost: float | None
    max_cost: float | None


def journal_path(out: Path) -> Path:
    """The path of a corpus' journal."""
    return out.with_suffix(".journal.jsonl")


def generate(
    settings: Generation, benchmark: Benchmark, out: Path, today: date, *,
    cache: Path | None = None, environ: Mapping[str, str] = os.environ, observer: Observer | None = None,
) -> Corpus:  # fmt: skip
    """Writes ``out`` (JSON lines), its card (``.md``) and its journal (``.journal.jsonl``).

    Given the journal, the rows and the card are determined: the same settings write the same bytes again.

    Args:
        settings: of the corpus.
        benchmark: the task; its ``generated`` split need not exist yet.
        out: the corpus, ``NAME.jsonl``.
        today: the date on the card.
        cache: folder for prepared splits.
        environ: environment variables, from which the API key is read.
        observer: is notified of the progress.

    Raises:
        UserError: settings, prompts or benchmark are not valid, the key is missing, a request failed permanently, or
            there is no valid row. The journal keeps all answers.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: out: expected a file NAME.jsonl; the card and the journal are written beside it.")
    key = read_key(settings.server, environ)
    builder = RequestBuilder(settings, benchmark.prompt, real_splits(benchmark, cache))
    observer = observer or SilentObserver()

    async def write_rows(journal: Journal) -> Corpus:
        client = Client(
            settings.server, settings.sampling, settings.limits, journal, key, observer, settings.seed
        )  # fmt: skip
        async with client:
            return await _Rounds(builder, client, benchmark.near_duplicate or 1.0).corpus()

    with Journal(journal_path(out)) as journal:
        corpus = asyncio.run(write_rows(journal))
        if not corpus.rows:
            why = f"{corpus.stopped} was reached" if corpus.stopped else f"rejected: {dict(corpus.rejects)}"
            raise UserError(f"no row was written ({why}), and no file {out}.")
        write_atomically(out, _lines(corpus, builder.task).encode())
        write_atomically(out.with_suffix(".md"), card.text(corpus, builder, out, today).encode())
    return corpus


def estimate(settings: Generation, benchmark: Benchmark, out: Path, *, cache: Path | None = None) -> Estimate:
    """Estimates what ``generate`` will use, without a request or a key. Token counts are rather too high.

    Raises:
        UserError: what ``generate`` raises before it sends requests.
    """
    builder = RequestBuilder(settings, benchmark.prompt, real_splits(benchmark, cache))
    answers = read_journal(journal_path(out))[0]
    attributes = [builder.attribute(name) for name in settings.attributes]
    known = {name: _known_values(builder, name, answers) for name in settings.attributes}
    values = {name: listed or builder.placeholders()[name] for name, listed in known.items()}
    calls = [
        builder.call(label, sample, values)
        for label, quota in enumerate(builder.quotas)
        for sample in range(math.ceil(quota / settings.rows_per_call))
    ]
    requests = [*attributes, *(call.request for call in calls)]
    rest = [request for request in requests if request.key(settings.sampling) not in answers]
    sample = builder.real["real_small"]
    size = sum(len(row_json(builder.task, sample, row)) for row in range(len(sample))) / len(sample)
    max_tokens = settings.sampling.max_tokens
    each = min(max_tokens, math.ceil(settings.rows_per_call * size / 3) + 8)
    tokens_in = sum(request.tokens() for request in rest)
    tokens_out, max_tokens_out = each * len(rest), max_tokens * len(rest)
    return Estimate(
        len(requests), len(requests) - len(rest), tokens_in, tokens_out, max_tokens_out,
        cost(settings.limits, tokens_in, tokens_out), cost(settings.limits, tokens_in, max_tokens_out),
    )  # fmt: skip


def preview(settings: Generation, benchmark: Benchmark, *, cache: Path | None = None) -> list[tuple[str, str]]:
    """Pairs (title, prompt): the attributes' requests and the first one for each label. No request is sent."""
    builder = RequestBuilder(settings, benchmark.prompt, real_splits(benchmark, cache))
    requests = {f"step one, {name}": builder.attribute(name) for name in settings.attributes}
    for label, name in enumerate(benchmark.labels):
        requests[f"rows, {name}"] = builder.call(label, 0, builder.placeholders()).request
    out = [("system", next(iter(requests.values())).system)]
    return out + [(title, request.user) for title, request in requests.items()]


def _known_values(builder: RequestBuilder, name: str, answers: Mapping[str, Answer]) -> list[str]:
    """The values of an attribute in the journal; [] if it has none."""
    for sample in range(ATTRIBUTE_ATTEMPTS):
        answer = answers.get(builder.attribute(name, sample).key(builder.settings.sampling))
        values = parse_values(answer, builder.settings.values) if answer else []
        if values:
            return values
    return []


class _Rounds:
    """Requests attributes, then rows in rounds."""

    def __init__(self, builder: RequestBuilder, client: Client, near_duplicate: float) -> None:
        self._builder, self._client, self._near_duplicate = builder, client, near_duplicate
        self._answers: dict[str, Answer] = {}

    async def corpus(self) -> Corpus:
        """Requests rounds of rows until every label has its quota, or a limit is reached."""
        builder, settings = self._builder, self._builder.settings
        values = {name: await self._values(name) for name in settings.attributes}
        row_filter = RowFilter(builder.quotas, builder.real, self._near_duplicate)
        requested = [0] * len(builder.quotas)
        kept = [0] * len(builder.quotas)
        rounds = 0
        while any(row_filter.missing) and rounds < settings.max_rounds and self._client.budget.limit_reached is None:
            calls = []
            for label, missing in enumerate(row_filter.missing):
                share = kept[label] / (requested[label] * settings.rows_per_call) if requested[label] else 1.0
                count = math.ceil(missing / (settings.rows_per_call * max(share, _MIN_YIELD)))
                calls += [builder.call(label, requested[label] + i, values) for i in range(count)]
                requested[label] += count
            await self._round(calls, row_filter)
            kept = [quota - missing for quota, missing in zip(builder.quotas, row_filter.missing, strict=True)]
            rounds += 1
        models = Counter((answer.model, answer.form) for answer in self._answers.values())
        return Corpus(
            _alternating(row_filter.kept, len(builder.quotas)), tuple(builder.quotas), values,
            {reason: count for reason, count in row_filter.rejects.most_common() if count}, row_filter.surplus,
            Usage.of(self._answers.values()), dict(sorted(models.items())), rounds, self._client.budget.limit_reached,
        )  # fmt: skip

    async def _round(self, calls: list[Call], row_filter: RowFilter) -> None:
        answers = await self._client.ask([call.request for call in calls])
        self._answers |= answers
        rows: list[Row] = []
        rejects: Counter[str] = Counter()
        for call in calls:  # in the order of the requests, whatever the order of the answers
            answer = answers.get(call.request.key(self._builder.settings.sampling))
            if answer is not None:
                valid, invalid = parse(answer, self._builder.task, call.label, call.attributes)
                rows += valid
                rejects += invalid
        row_filter.add(rows, rejects)

    async def _values(self, name: str) -> list[str]:
        for sample in range(ATTRIBUTE_ATTEMPTS):
            answers = await self._client.ask([self._builder.attribute(name, sample)])
            self._answers |= answers
            if self._client.budget.limit_reached is not None:
                raise UserError(f"{self._client.budget.limit_reached} was reached before the first request for rows.")
            limit = self._builder.settings.values
            values = [value for answer in answers.values() for value in parse_values(answer, limit)]
            if values:
                return values
        raise UserError(
            f"the model gave no usable list of values for the attribute {name!r} in {ATTRIBUTE_ATTEMPTS} attempts. "
            "Choose other attributes, edit the prompt `attributes`, or set attributes: [] for none."
        )


def _alternating(rows: list[Row], classes: int) -> tuple[Row, ...]:
    """Rows with alternating labels, so that the first rows of the file are balanced, too."""
    by_class = [[row for row in rows if row.label == label] for label in range(classes)]
    positions = [(i / len(group), label, i) for label, group in enumerate(by_class) for i in range(len(group))]
    return tuple(by_class[label][i] for _, label, i in sorted(positions))


def _lines(corpus: Corpus, task: TaskPrompt) -> str:
    width = max(4, len(str(len(corpus.rows))))
    records = (
        {"id": f"generated-{number:0{width}}"}
        | dict(zip(task.columns, row.texts, strict=True))
        | {task.label: task.labels[row.label]}
        | dict(row.attributes)
        for number, row in enumerate(corpus.rows, start=1)
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
