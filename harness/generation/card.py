"""The card of a corpus: what a careful reader wants to know before training on it."""

from __future__ import annotations

import os
import tempfile
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


def text(corpus: Corpus, author: RequestBuilder, out: Path, today: date) -> str:
    """The card in Markdown. It holds no key and no real row: of the prompts it has the templates."""
    settings, benchmark = author.settings, author.benchmark
    title = f"# {out.name}: {len(corpus.rows)} rows written by a language model"
    what = f"For the benchmark `{benchmark.name}`: {benchmark.description.strip() or 'no description'}"
    parts = [
        f"{title}\n\n{what} The label of a row is the one that the model was told to aim at; no person has checked it.",
        f"**License:** {settings.license}.\n\n**Date:** {today.isoformat()}.",
        _notes(corpus),
        "## How it was written\n\n" + _table(_model(corpus, author)),
        "## Counts\n\n" + _table(_counts(corpus, author), ("label", "rows", "wanted")),
        _values(corpus),
        "## Rejected\n\n" + _rejects(corpus),
        "## Usage\n\n" + _table(_usage(corpus, author)),
        "## Prompts\n\n" + _prompts(author),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(path: Path, content: str) -> None:
    """Puts a text at ``path`` in one step: readers see the old or the new, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
        stream.write(content.encode())
        stream.flush()
        os.fsync(stream.fileno())
    Path(stream.name).chmod(0o644)
    Path(stream.name).replace(path)


def _notes(corpus: Corpus) -> str:
    if corpus.complete:
        return ""
    why = f"{corpus.stopped} was reached" if corpus.stopped else f"{corpus.rounds} rounds were not enough"
    return f"**Incomplete:** {len(corpus.rows)} of {sum(corpus.quotas)} rows; {why}."


def _model(corpus: Corpus, author: RequestBuilder) -> list[tuple[str, ...]]:
    settings, sampling = author.settings, author.settings.sampling
    answered = [f"{model} ({count} answers, JSON by {form})" for (model, form), count in corpus.models.items()]
    examples = f"{settings.shots} rows of {settings.shots_from}, drawn for each call, half of them of its label"
    return [
        ("model", sampling.model),
        ("model as the server called it", "; ".join(answered)),
        ("server", settings.server.base_url),
        ("temperature", "the server's default" if sampling.temperature is None else f"{sampling.temperature:g}"),
        ("top_p", "the server's default" if sampling.top_p is None else f"{sampling.top_p:g}"),
        ("longest answer", f"{sampling.max_tokens} tokens"),
        ("rows in a call", str(settings.rows_per_call)),
        ("examples", examples if settings.shots else "none (zero-shot)"),
        ("balance", settings.balance),
        ("seed of the draws", str(settings.seed)),
        ("rounds", str(corpus.rounds)),
    ]


def _counts(corpus: Corpus, author: RequestBuilder) -> list[tuple[str, ...]]:
    found = Counter(row.label for row in corpus.rows)
    wanted = enumerate(zip(author.benchmark.labels, corpus.quotas, strict=True))
    return [(name, str(found[label]), str(quota)) for label, (name, quota) in wanted]


def _values(corpus: Corpus) -> str:
    if not corpus.values:
        return ""
    lines = []
    for name, values in corpus.values.items():
        found = Counter(row.attributes[name] for row in corpus.rows)
        lines.append(f"- {name}: " + ", ".join(f"{value} {found[value]}" for value in values))
    return "## Attributes\n\nNamed by the model, drawn at random for each call; rows of each:\n\n" + "\n".join(lines)


def _rejects(corpus: Corpus) -> str:
    rows = [(reason, str(count)) for reason, count in corpus.rejects.items()]
    surplus = f"Good rows beyond a label's quota, left out: {corpus.surplus}."
    if not rows:
        return f"No row was rejected. {surplus}"
    note = "Rows by reason; an answer in which nothing could be read counts once. Real rows are never removed."
    return f"{note} {surplus}\n\n{_table(rows, ('reason', 'rows'))}"


def _usage(corpus: Corpus, author: RequestBuilder) -> list[tuple[str, ...]]:
    usage, limits = corpus.usage, author.settings.limits
    money = cost(limits, usage.tokens_in, usage.tokens_out)
    rows: list[tuple[str, ...]] = [
        ("answers", str(usage.calls)),
        ("prompt tokens", str(usage.tokens_in)),
        ("answer tokens", str(usage.tokens_out)),
        ("rows kept for each answer", f"{len(corpus.rows) / max(1, usage.calls):.2f}"),
    ]
    if usage.estimated_calls:
        rows.append(("answers without usage, estimated", str(usage.estimated_calls)))
    prices = f"at {limits.price_in:g} and {limits.price_out:g} for a million" if money is not None else ""
    rows.append(
        ("cost", f"{money:.4f} ({prices} prompt and answer tokens)" if money is not None else "no prices given")
    )
    return rows


def _prompts(author: RequestBuilder) -> str:
    used = ["system", *(["attributes"] if author.settings.attributes else []), "rows"]
    blocks = [f"`{name}`:\n\n{_FENCE}\n{author.prompts.sources[name].strip()}\n{_FENCE}" for name in used]
    described = [f"- {label}: {text}" for label, text in author.settings.descriptions.items()]
    if described:
        blocks.append("Labels were described as:\n\n" + "\n".join(described))
    return "\n\n".join(blocks)


def _table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("", "")) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
