"""Writes a report: an HTML page, the same in Markdown, its tables in LaTeX, figures, and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from harness.files import write_atomically
from harness.metrics import PRIMARY, SCORES
from harness.phases import Phase
from harness.reports import figures, formatting, latex, pooled_tables, tables
from harness.reports.corruption_tables import corruption_scores
from harness.reports.costs import CHECKERS
from harness.reports.figures.style import Drawing
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

__all__ = ["first_page", "render", "report_key", "save", "write"]

INTEGERS = {"seed", "epoch", "threads"}
FIRST_PAGE = (
    "The first page: accuracies and costs from the metrics in the ledger, with intervals over seeds alone. Figures, "
    "findings and tables of weights follow once every trial has been read; reload the page then."
)
EPOCH_RULES = {
    "last": "All numbers are from the last epoch.",
    "best_validation": (
        "All numbers are from the epoch with the best validation accuracy; nothing is selected on the test split."
    ),
}


@dataclass(frozen=True)
class Section:
    """A section of the page: drawings first, then tables."""

    title: str
    drawings: tuple[Drawing, ...]
    tables: tuple[Table, ...]


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
    context = _context(results, sections)
    files["tables.tex"] = latex.document(
        context["name"], [(section.title, section.tables) for section in sections]
    ).encode()
    for name in ("report.md", PAGE):
        page = environment().get_template(f"{name}.j2").render(context)
        files[name] = page.encode()
    return files


def first_page(results: Results) -> dict[str, bytes]:
    """A page of the accuracies, gains, costs and failures alone, without figures: for many trials, before the rest.

    Its key is empty, so that it never counts as the report.

    Args:
        results: see ``harness.reports.load.load_metrics``.
    """
    wanted = {
        "Accuracy": [tables.accuracy(results)],
        "Gain over CE": [tables.gains(results, PRIMARY)],
        "Cost": [tables.cost(results)],
        "Failures": [tables.failures(results)],
    }
    sections = [Section(title, (), tuple(t for t in parts if t.rows)) for title, parts in wanted.items()]
    context = _context(results, [section for section in sections if section.tables])
    context |= {"key": "", "findings": [], "description": FIRST_PAGE}
    page = environment().get_template(f"{PAGE}.j2").render(context)
    return {PAGE: page.encode()}


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


def _context(results: Results, sections: list[Section]) -> dict[str, Any]:
    meta = results.meta
    once = results.trials.drop_duplicates("trial")
    requested = once[once["requested"].astype(bool)]
    counts = once["status"].value_counts().sort_index()
    return {
        "key": meta.get("key", ""),
        "name": meta.get("name", "experiment"),
        "description": meta.get("description", ""),
        "findings": findings(results),
        "sections": sections,
        "counts": ", ".join(f"{count} {status}" for status, count in counts.items()) or "none planned",
        "planned": len(requested),
        "checkers": len(once) - len(requested),
        "seeds": ", ".join(str(seed) for seed in sorted(results.trials["seed"].unique())) or formatting.NONE,
        "epoch_rule": EPOCH_RULES[meta.get("epoch_rule", "last")],
        "command": meta.get("command", ""),
        "facts": _facts(meta),
        "settings": yaml.safe_dump(meta.get("settings", {}), sort_keys=False, allow_unicode=True, width=100),
    }


def _facts(meta: dict[str, Any]) -> dict[str, str]:
    """Provenance, label -> value; unknown values are left out."""
    dirty = " with uncommitted changes" if meta.get("dirty") else ""
    memory = meta.get("driver_peak_memory_mb")
    wall = meta.get("wall_seconds")
    facts = {
        "Commit": f"{meta['commit']}{dirty}" if meta.get("commit") else "",
        "Started": str(meta.get("started") or ""),
        "Wall time (without killed runs)": formatting.duration(float(wall)) if wall is not None else "",
        "Hardware": str(meta.get("hardware") or ""),
        "Peak memory of the driver": f"{memory:,.0f} MB" if memory is not None else "",
        "Versions": ", ".join(f"{package} {version}" for package, version in meta.get("versions", {}).items()),
    }
    return {label: value for label, value in facts.items() if value}


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
