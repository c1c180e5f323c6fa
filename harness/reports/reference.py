"""Published results beside those of an experiment."""

from __future__ import annotations

from collections.abc import Iterator

from harness.metrics import METRICS
from harness.reports import formatting
from harness.reports.grid import BASELINE, Cells, Key, at_largest_fraction, baseline_of, compare, finished, requested
from harness.reports.results import Results
from harness.reports.tables import Table, interval_text, table

Scores = dict[str, dict[str, dict[str, dict[str, float]]]]


def reference(results: Results) -> Table:
    """Scores and gains over CE of an experiment and of the published results in its settings, side by side.

    Without published results the table has no rows. A published cell that the experiment does not have is shown too.
    """
    settings = results.meta.get("settings", {}).get("report", {}).get("reference") or {}
    scores: Scores = settings.get("scores", {})
    cells = requested(results.trials)
    largest = at_largest_fraction(cells)
    rows = []
    for benchmark, source, method, values, base in _published(scores):
        wanted = (benchmark, source, method)
        key = next((key for key in largest if (key.benchmark, key.source, key.method) == wanted), None)
        for name, value in values.items():
            metric = METRICS[name]
            gain = formatting.points((value - base[name]) / 100) if name in base else formatting.NONE
            rows.append(
                [*wanted, metric.title, *_ours(results, cells, key, metric.column("test")), f"{value:.1f}", gain]
            )
    title = settings.get("title", "")
    columns = ["benchmark", "source", "method", "metric", "here", "gain over CE here", "published", "gain published"]
    note = (
        "Percent, and percentage points. Here: mean ± standard deviation over seeds (n), and the mean paired gain with "
        f"its 95 % interval over seeds and test rows. Published: {title}. {settings.get('note', '')}"
    ).strip()
    return table(f"Beside {title}", columns, rows, 4, note)


def _published(scores: Scores) -> Iterator[tuple[str, str, str, dict[str, float], dict[str, float]]]:
    """Benchmark, source, method, its scores, and those of CE to compare them with (none for CE itself)."""
    for benchmark, sources in scores.items():
        for source, methods in sources.items():
            for method, values in methods.items():
                yield benchmark, source, method, values, {} if method == BASELINE else methods.get(BASELINE, {})


def _ours(results: Results, cells: Cells, key: Key | None, column: str) -> tuple[str, str]:
    """The score of a cell and its gain over CE, as texts."""
    if key is None:
        return "not planned", formatting.NONE
    score = formatting.score(cells[key], column)
    base = baseline_of(key, cells)
    if key.method == BASELINE or base is None or finished(cells[key]).empty:
        return score, formatting.NONE
    pair = compare(cells, key, base, column, results.resampled)
    return score, f"{formatting.points(pair.mean)} ({interval_text(pair.hierarchical, pair.rows_known)})"
