"""Writes a report: an HTML page, the same in Markdown, its tables in LaTeX, figures, and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.files import write_atomically
from harness.metrics import PRIMARY, SCORES
from harness.phases import Phase
from harness.reports import figures, latex, pooled_tables, tables
from harness.reports.context import Section, page_context
from harness.reports.corruption_tables import corruption_scores
from harness.reports.costs import CHECKERS
from harness.reports.findings import findings
from harness.reports.folder import EXPERIMENT, IDENTITY, PAGE, RUNTIME, TRIALS
from harness.reports.reference import reference
from harness.reports.rendering import environment
from harness.reports.results import (
    DIAGNOSTIC,
    LANGUAGE_MODEL,
    MACHINE,
    OUTCOMES,
    RESUMED,
    TEMPERATURES,
    WEIGHT_STATISTICS,
    Results,
)
from harness.reports.state import report_key
from harness.reports.tables import Table

__all__ = ["render", "report_key", "save", "write"]

INTEGERS = {"seed", "epoch", "threads"}


def write(results: Results, folder: Path) -> Path:
    """Write the report into ``folder`` and return the path of its page; see ``render`` and ``save``."""
    return save(render(results), folder)


def save(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files of a report into ``folder``, each atomically, and return the path of its page."""
    for name, content in files.items():
        write_atomically(folder / name, content)
    return folder / PAGE


def render(results: Results) -> dict[str, bytes]:
    """The files of a report, by their path in its folder.

    ``report.html`` needs no other file and no network; it is the last file, so that once it is written, its key (see
    ``report_key``) stands for a complete report. ``trials.csv`` holds no times and no paths: two runs of the same
    experiment with the same numbers give the same bytes. Times and memory are in ``runtime.csv``.
    """
    sections = _sections(results)
    files: dict[str, bytes] = {}
    for section in sections:
        for drawing in section.drawings:
            files |= {f"figures/{name}": content for name, content in drawing.files().items()}
    order = results.trials.sort_values(IDENTITY[:7], kind="stable", na_position="first")
    times = [phase.key for phase in Phase if phase.key in order]
    more = [name for name in map(str, order) if name in TEMPERATURES or name.startswith(DIAGNOSTIC)]
    files[TRIALS] = _csv(order, [*IDENTITY, *CHECKERS, *OUTCOMES, *WEIGHT_STATISTICS, *sorted(more)])
    measured = [name for name in (*LANGUAGE_MODEL, RESUMED) if name in order and order[name].notna().any()]
    files[RUNTIME] = _csv(order, [*IDENTITY, *times, *MACHINE, *measured])
    if results.meta.get("experiment"):
        files[EXPERIMENT] = results.meta["experiment"].encode()
    context = page_context(results, sections, findings(results))
    files["tables.tex"] = latex.document(
        context["name"], [(section.title, section.tables) for section in sections]
    ).encode()
    for name in ("report.md", PAGE):
        page = environment().get_template(f"{name}.j2").render(context)
        files[name] = page.encode()
    return files


def _sections(results: Results) -> list[Section]:
    drawings = figures.draw(results)
    section_tables: dict[str, list[Table]] = {
        "Accuracy": [tables.accuracy(results), reference(results)],
        "Gain over CE": [
            pooled_tables.pooled_gains(results),
            *(tables.gains(results, metric, folded=metric is not PRIMARY) for metric in SCORES),
        ],
        "Training dynamics": [pooled_tables.epoch_choice(results)],
        "How many real rows": [],
        "Cost": [tables.cost(results), tables.language_model(results)],
        "Weights": [tables.weights(results), tables.corrupted_rows(results), corruption_scores(results)],
        "Rows with the highest and lowest weights": tables.extreme_rows(results),
        "Data": [tables.splits(results), tables.distributions(results)],
        "Failures": [tables.failures(results)],
    }
    sections = [
        Section(title, tuple(drawings.get(title, ())), tuple(t for t in section_tables.get(title, ()) if t.rows))
        for title in dict.fromkeys((*section_tables, *drawings))
    ]
    return [section for section in sections if section.drawings or section.tables]


def _csv(frame: pd.DataFrame, columns: list[str]) -> bytes:
    """Floats by ``repr``, which reads back to the same bits; unknown values are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for values in zip(*(frame[column] for column in columns), strict=True):
        writer.writerow([_field(column, value) for column, value in zip(columns, values, strict=True)])
    return buffer.getvalue().encode()


def _field(column: str, value: Any) -> str:
    if pd.isna(value):
        return ""
    if column in INTEGERS:
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)
