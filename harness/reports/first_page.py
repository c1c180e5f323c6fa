"""The first page of the report of many trials, from metrics alone, before every trial has been read."""

from __future__ import annotations

from pathlib import Path

from harness.files import write_atomically
from harness.metrics import PRIMARY
from harness.reports import tables
from harness.reports.context import Section, page_context
from harness.reports.folder import PAGE
from harness.reports.rendering import environment
from harness.reports.results import Results

DESCRIPTION = (
    "The first page: accuracies and costs from the metrics in the ledger, with intervals over seeds alone. Figures, "
    "findings and tables of weights follow once every trial has been read; reload the page then."
)


def write(results: Results, folder: Path) -> Path:
    """Writes a page of the accuracies, gains, costs and failures, without figures; returns its path.

    It has no key, so that it never counts as the report.

    Args:
        results: see ``harness.reports.load.load_metrics``.
        folder: of the report.
    """
    wanted = {
        "Accuracy": [tables.accuracy(results)],
        "Gain over CE": [tables.gains(results, PRIMARY)],
        "Cost": [tables.cost(results)],
        "Failures": [tables.failures(results)],
    }
    sections = [Section(title, (), tuple(t for t in parts if t.rows)) for title, parts in wanted.items()]
    context = page_context(results, [section for section in sections if section.tables], [])
    context["description"] = DESCRIPTION
    write_atomically(folder / PAGE, environment().get_template(f"{PAGE}.j2").render(context).encode())
    return folder / PAGE
