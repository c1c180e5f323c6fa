"""A corpus of labelled rows, written by a language model: asked for, checked, balanced, put on disk with its card."""

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

from harness.config.benchmark import Benchmark
from harness.errors import UserError
from harness.generation import card
from harness.generation.parsing import Row, RowFilter, parse
from harness.generation.requests import Call, RequestBuilder, Values, values_in
from harness.llm import tasks
from harness.llm.client import Client, Observer, Silent
from harness.llm.journal import Answer, Journal, Usage, read_journal
from harness.llm.keys import read_key
from harness.llm.limits import cost
from harness.llm.settings import Generation

ATTRIBUTE_TRIES = 3
#: answers whose rows are mostly rejected are not followed by ever larger rounds
_LEAST_YIELD = 0.2


@dataclass(frozen=True)
class Corpus:
    """What came out.

    Attributes:
        rows: the rows kept, labels taking turns.
        quotas: rows wanted of each class.
        values: the attributes and the values that the model gave.
        rejects: rows (answers, where nothing could be read) rejected, by reason.
        surplus: good rows beyond a label's quota.
        usage: of the answers that the corpus was made from.
        models: the models' names as the server gave them, and how JSON was asked for: answers of each.
        rounds: rounds of requests.
        stopped: the limit that ended it, or None.
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
        """Whether every label has its rows."""
        return len(self.rows) == sum(self.quotas)


@dataclass(frozen=True)
class Estimate:
    """What a corpus will take, before anything is asked.

    Attributes:
        calls: requests if every row is good.
        done: of these, answered in the journal.
        tokens_in: prompt tokens of the rest.
        tokens_out: answer tokens of the rest, if generated rows are as long as real ones.
        tokens_out_most: the same at the longest answers allowed.
        cost: money for the rest, or None without prices.
        cost_most: the same at the longest answers allowed.
    """

    calls: int
    done: int
    tokens_in: int
    tokens_out: int
    tokens_out_most: int
    cost: float | None
    cost_most: float | None


def journal_of(out: Path) -> Path:
    """The journal beside a corpus."""
    return out.with_suffix(".journal.jsonl")


def generate(
    settings: Generation, benchmark: Benchmark, out: Path, today: date, *,
    cache: Path | None = None, environ: Mapping[str, str] = os.environ, observer: Observer | None = None,
) -> Corpus:  # fmt: skip
    """Writes ``out`` (JSON lines), its card (``.md``) and its journal (``.journal.jsonl``).

    FixedWeights the journal, rows and card are determined: the same settings write the same bytes again.

    Args:
        settings: what is wanted.
        benchmark: the task; a ``generated`` split need not exist yet.
        out: the corpus, ``NAME.jsonl``.
        today: for the card.
        cache: folder for prepared splits.
        environ: where the API key is read.
        observer: hears how it goes.

    Raises:
        UserError: a mistake in settings, prompts or benchmark, a missing key, a request that failed for good, or no
            row at all. What was answered is in the journal.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: a corpus is a file NAME.jsonl; its card and journal get the same name.")
    key = read_key(settings.server, environ)
    author = RequestBuilder(settings, benchmark, tasks.real_splits(benchmark, cache))
    watcher = observer or Silent()

    async def work(journal: Journal) -> Corpus:
        client = Client(
            settings.server, settings.sampling, settings.limits, journal, key, watcher, settings.seed
        )  # fmt: skip
        async with client:
            return await _Run(author, client, watcher).corpus()

    with Journal(journal_of(out)) as journal:
        corpus = asyncio.run(work(journal))
        if not corpus.rows:
            why = f"{corpus.stopped} was reached" if corpus.stopped else f"rejected: {dict(corpus.rejects)}"
            raise UserError(f"no row was written ({why}). Nothing is put at {out}.")
        card.write(out, _lines(corpus, benchmark))
        card.write(out.with_suffix(".md"), card.text(corpus, author, out, today))
    return corpus


def estimate(settings: Generation, benchmark: Benchmark, out: Path, *, cache: Path | None = None) -> Estimate:
    """What ``generate`` will take; nothing is asked, no key is needed. Token counts are estimates on the high side.

    Raises:
        UserError: what ``generate`` raises before it asks.
    """
    author = RequestBuilder(settings, benchmark, tasks.real_splits(benchmark, cache))
    answers = read_journal(journal_of(out))[0]
    attributes = [author.attribute(name) for name in settings.attributes]
    known = {name: _known_values(author, name, answers) for name in settings.attributes}
    values = {name: found or author.placeholders()[name] for name, found in known.items()}
    calls = [
        author.call(label, sample, values)
        for label, wanted in enumerate(author.quotas)
        for sample in range(math.ceil(wanted / settings.rows_per_call))
    ]
    requests = [*attributes, *(call.request for call in calls)]
    rest = [request for request in requests if request.key(settings.sampling) not in answers]
    sample = author.real["real_small"]
    size = sum(len(tasks.shown(benchmark, sample, row)) for row in range(len(sample))) / len(sample)
    most = settings.sampling.max_tokens
    each = min(most, math.ceil(settings.rows_per_call * size / 3) + 8)
    tokens_in = sum(request.tokens() for request in rest)
    tokens_out, tokens_most = each * len(rest), most * len(rest)
    return Estimate(
        len(requests), len(requests) - len(rest), tokens_in, tokens_out, tokens_most,
        cost(settings.limits, tokens_in, tokens_out), cost(settings.limits, tokens_in, tokens_most),
    )  # fmt: skip


def preview(settings: Generation, benchmark: Benchmark, *, cache: Path | None = None) -> list[tuple[str, str]]:
    """(title, prompt) of each kind of request: the attributes, and the first for each label. Nothing is asked."""
    author = RequestBuilder(settings, benchmark, tasks.real_splits(benchmark, cache))
    requests = {f"step one, {name}": author.attribute(name) for name in settings.attributes}
    for label, name in enumerate(benchmark.labels):
        requests[f"rows, {name}"] = author.call(label, 0, author.placeholders()).request
    out = [("system", next(iter(requests.values())).system)]
    return out + [(title, request.user) for title, request in requests.items()]


def _known_values(author: RequestBuilder, name: str, answers: Mapping[str, Answer]) -> list[str]:
    """The values that the journal has for an attribute; [] where it has none."""
    for sample in range(ATTRIBUTE_TRIES):
        answer = answers.get(author.attribute(name, sample).key(author.settings.sampling))
        values = values_in(answer, author.settings.values) if answer else []
        if values:
            return values
    return []


class _Run:
    """One run of the two steps."""

    def __init__(self, author: RequestBuilder, client: Client, observer: Observer) -> None:
        self._author, self._client, self._observer = author, client, observer
        self._answers: dict[str, Answer] = {}

    async def corpus(self) -> Corpus:
        """Both steps, round after round until every label has its rows."""
        author, settings = self._author, self._author.settings
        values = {name: await self._values(name) for name in settings.attributes}
        sieve = RowFilter(author.quotas, author.real, author.benchmark.near_duplicate or 1.0)
        asked = [0] * len(author.quotas)
        got = [0] * len(author.quotas)
        rounds = 0
        while any(sieve.missing) and rounds < settings.max_rounds and self._client.meter.reached is None:
            calls = []
            for label, missing in enumerate(sieve.missing):
                share = got[label] / (asked[label] * settings.rows_per_call) if asked[label] else 1.0
                count = math.ceil(missing / (settings.rows_per_call * max(share, _LEAST_YIELD)))
                calls += [author.call(label, asked[label] + i, values) for i in range(count)]
                asked[label] += count
            await self._round(calls, sieve)
            got = [quota - missing for quota, missing in zip(author.quotas, sieve.missing, strict=True)]
            rounds += 1
        models = Counter((answer.model, answer.form) for answer in self._answers.values())
        return Corpus(
            _in_turn(sieve.kept, len(author.quotas)), tuple(author.quotas), values,
            {reason: count for reason, count in sieve.rejects.most_common() if count}, sieve.surplus,
            Usage.of(self._answers.values()), dict(sorted(models.items())), rounds, self._client.meter.reached,
        )  # fmt: skip

    async def _round(self, calls: list[Call], sieve: RowFilter) -> None:
        answers = await self._client.ask([call.request for call in calls])
        self._answers |= answers
        rows: list[Row] = []
        rejects: Counter[str] = Counter()
        for call in calls:  # in the order of the requests, whatever the order of the answers
            answer = answers.get(call.request.key(self._author.settings.sampling))
            if answer is not None:
                good, bad = parse(answer, self._author.benchmark, call.label, call.attributes)
                rows += good
                rejects += bad
        sieve.add(rows, rejects)

    async def _values(self, name: str) -> list[str]:
        for sample in range(ATTRIBUTE_TRIES):
            answers = await self._client.ask([self._author.attribute(name, sample)])
            self._answers |= answers
            if self._client.meter.reached is not None:
                raise UserError(f"{self._client.meter.reached} was reached before the first row was asked for.")
            values = [found for answer in answers.values() for found in values_in(answer, self._author.settings.values)]
            if values:
                return values
        raise UserError(
            f"the model gave no usable list of values for the attribute {name!r} in {ATTRIBUTE_TRIES} tries. "
            "Choose another attribute by --attribute, edit the prompt `attributes`, or use --no-attributes."
        )


def _in_turn(rows: list[Row], classes: int) -> tuple[Row, ...]:
    """Labels taking turns, so that the first rows of the file are balanced as well."""
    of_class = [[row for row in rows if row.label == label] for label in range(classes)]
    place = [(i / len(group), label, i) for label, group in enumerate(of_class) for i in range(len(group))]
    return tuple(of_class[label][i] for _, label, i in sorted(place))


def _lines(corpus: Corpus, benchmark: Benchmark) -> str:
    width = max(4, len(str(len(corpus.rows))))
    records = (
        {"id": f"generated-{number:0{width}}"}
        | dict(zip(tasks.columns(benchmark), row.texts, strict=True))
        | {benchmark.label: benchmark.labels[row.label]}
        | dict(row.attributes)
        for number, row in enumerate(corpus.rows, start=1)
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
