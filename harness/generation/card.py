"""The card of a corpus: how it was written, for readers who consider training on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from harness.generation.requests import RequestBuilder
from harness.llm.limits import cost

if TYPE_CHECKING:
    from harness.generation.corpus import Corpus

_FENCE = "````"


def text(corpus: Corpus, builder: RequestBuilder, out: Path, today: date) -> str:
    """The card in Markdown. It contains neither a key nor a real row: prompts are shown as templates."""
    settings, task = builder.settings, builder.task
    title = f"# {out.name}: {len(corpus.rows)} rows written by a language model"
    what = f"For the benchmark `{task.name}`: {task.description.strip() or 'no description'}"
    parts = [
        f"{title}\n\n{what} The label of a row is the one that the model was asked for; no person has checked it.",
        f"**License:** {settings.license}.\n\n**Date:** {today.isoformat()}.",
        _notes(corpus),
        "## How it was written\n\n" + _table(_model(corpus, builder)),
        "## Counts\n\n" + _table(_counts(corpus, builder), ("label", "rows", "requested")),
        _values(corpus),
        "## Rejected\n\n" + _rejects(corpus),
        "## Usage\n\n" + _table(_usage(corpus, builder)),
        "## Prompts\n\n" + _prompts(builder),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _notes(corpus: Corpus) -> str:
    if corpus.complete:
        return ""
    why = f"{corpus.stopped} was reached" if corpus.stopped else f"{corpus.rounds} rounds were not enough"
    return f"**Incomplete:** {len(corpus.rows)} of {sum(corpus.quotas)} rows; {why}."


def _model(corpus: Corpus, builder: RequestBuilder) -> list[tuple[str, ...]]:
    settings, sampling = builder.settings, builder.settings.sampling
    models = [f"{model} ({count} answers, JSON by {form})" for (model, form), count in corpus.models.items()]
    examples = f"{settings.shots} rows of {settings.shots_from}, drawn for each call, half of them of its label"
    return [
        ("model", sampling.model),
        ("model as the server reported it", "; ".join(models)),
        ("server", settings.server.base_url),
        ("temperature", "the server's default" if sampling.temperature is None else f"{sampling.temperature:g}"),
        ("top_p", "the server's default" if sampling.top_p is None else f"{sampling.top_p:g}"),
        ("longest answer", f"{sampling.max_tokens} tokens"),
        ("rows per call", str(settings.rows_per_call)),
        ("examples", examples if settings.shots else "none (zero-shot)"),
        ("balance", settings.balance),
        ("seed of the draws", str(settings.seed)),
        ("rounds", str(corpus.rounds)),
    ]


def _counts(corpus: Corpus, builder: RequestBuilder) -> list[tuple[str, ...]]:
    counts = Counter(row.label for row in corpus.rows)
    quotas = enumerate(zip(builder.task.labels, corpus.quotas, strict=True))
    return [(name, str(counts[label]), str(quota)) for label, (name, quota) in quotas]


def _values(corpus: Corpus) -> str:
    if not corpus.values:
        return ""
    lines = []
    for name, values in corpus.values.items():
        counts = Counter(row.attributes[name] for row in corpus.rows)
        lines.append(f"- {name}: " + ", ".join(f"{value} {counts[value]}" for value in values))
    return (
        "## Attributes\n\nListed by the model, drawn at random for each call; number of rows of each:\n\n"
        + "\n".join(lines)
    )


def _rejects(corpus: Corpus) -> str:
    rows = [(reason, str(count)) for reason, count in corpus.rejects.items()]
    surplus = f"Valid rows beyond a label's quota, left out: {corpus.surplus}."
    if not rows:
        return f"No row was rejected. {surplus}"
    note = "Rows by reason; an answer that could not be parsed counts as one. Real rows are never removed."
    return f"{note} {surplus}\n\n{_table(rows, ('reason', 'rows'))}"


def _usage(corpus: Corpus, builder: RequestBuilder) -> list[tuple[str, ...]]:
    usage, limits = corpus.usage, builder.settings.limits
    total = cost(limits, usage.tokens_in, usage.tokens_out)
    rows: list[tuple[str, ...]] = [
        ("answers", str(usage.calls)),
        ("prompt tokens", str(usage.tokens_in)),
        ("answer tokens", str(usage.tokens_out)),
        ("rows kept per answer", f"{len(corpus.rows) / max(1, usage.calls):.2f}"),
    ]
    if usage.estimated_calls:
        rows.append(("answers without usage, estimated", str(usage.estimated_calls)))
    prices = f"at {limits.price_in:g} and {limits.price_out:g} per million" if total is not None else ""
    rows.append(
        ("cost", f"{total:.4f} ({prices} prompt and answer tokens)" if total is not None else "no prices given")
    )
    return rows


def _prompts(builder: RequestBuilder) -> str:
    names = ["system", *(["attributes"] if builder.settings.attributes else []), "rows"]
    blocks = [f"`{name}`:\n\n{_FENCE}\n{builder.prompts.sources[name].strip()}\n{_FENCE}" for name in names]
    descriptions = [f"- {label}: {text}" for label, text in builder.settings.descriptions.items()]
    if descriptions:
        blocks.append("Labels were described as:\n\n" + "\n".join(descriptions))
    return "\n\n".join(blocks)


def _table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("", "")) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
