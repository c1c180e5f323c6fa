"""The command ``harness data check``: the figures of ``harness.data.check`` as tables or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.table import Table

if TYPE_CHECKING:  # `harness --help` reads no data
    from harness.data.check import Check


def check_data(
    benchmark: Annotated[str, typer.Argument(help="A benchmark of the catalogue, or the path of its YAML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
    home: Annotated[Path, typer.Option("--home", envvar="HARNESS_HOME", help="Folder for caches.")] = Path(".harness"),
) -> None:
    """Check a benchmark's data without training: sizes, variety, duplicates, distance from real text."""
    from harness.data.benchmarks import resolve
    from harness.data.check import check

    result = check(resolve(benchmark), home.expanduser().resolve() / "benchmarks")
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=2, ensure_ascii=False))
        return
    out = Console(highlight=False)
    for table in tables(result):
        out.print(table)


def tables(result: Check) -> list[RenderableType]:
    """The figures as rich tables; those without rows are left out."""
    every = (_sizes(result), _variety(result), _overlaps(result), _transfers(result), _distance(result))
    return [table for table in every if table.row_count]


def _sizes(result: Check) -> Table:
    table = Table("split", "rows", "label: share, mean words", "words: least, median, mean, 95 %, most",
                  title=f"{result.benchmark}: sizes")  # fmt: skip
    for row in result.splits:
        labels = [f"{label}: {share:.0%}, {row.words_by_label[label]:.1f}" for label, share in row.shares.items()]
        length = row.words
        span = f"{length.least}, {length.median:g}, {length.mean:.1f}, {length.p95:g}, {length.most}"
        table.add_row(row.split, str(row.rows), "\n".join(labels), span)
    return table


def _variety(result: Check) -> Table:
    title = f"Variety and duplicates (distinct-n and self-BLEU on {result.sample} rows of each split)"
    table = Table("split", "vocabulary", "distinct-1, 2, 3", "self-BLEU", "equal rows", "near-duplicate groups",
                  "words shared in a pair", title=title)  # fmt: skip
    for row in result.splits:
        table.add_row(
            row.split,
            str(row.vocabulary),
            ", ".join(f"{value:.2f}" for value in row.distinct.values()),
            "–" if row.self_bleu is None else f"{row.self_bleu:.3f}",
            str(row.equal),
            _near(row.near),
            "\n".join(f"{label}: {value:.2f}" for label, value in row.pair_overlap.items()) or "–",
        )
    return table


def _overlaps(result: Check) -> Table:
    table = Table("real split", "generated words in it: different, running", "its running words in generated",
                  "equal rows", "near-duplicates", title="Generated rows against real ones")  # fmt: skip
    for row in result.overlaps:
        shared = f"{row.types:.0%}, {row.tokens:.0%}"
        table.add_row(row.split, shared, f"{row.covered:.0%}", str(row.equal), _near(row.near))
    return table


def _transfers(result: Check) -> Table:
    table = Table("trained on", "tested on", "accuracy", "macro F1", title="A bag-of-words classifier")
    for row in result.transfers:
        table.add_row(row.trained, row.tested, f"{row.accuracy:.3f}", f"{row.f1:.3f}")
    return table


def _distance(result: Check) -> Table:
    title = "Label distributions in nats, P real, Q generated (bag-of-words checkers, rows they have not seen)"
    table = Table("H(Y|X) of P", "H(Y|X) of Q", "KL(P‖Q)", "KL(Q‖P)", title=title)
    if result.distance is not None:
        table.add_row(*(f"{value:.3f}" for value in asdict(result.distance).values()))
    return table


def _near(counts: dict[float, int]) -> str:
    return ", ".join(f"{count} at {threshold:g}" for threshold, count in counts.items())
