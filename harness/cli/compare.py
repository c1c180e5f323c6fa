"""The command ``harness compare``: where its two experiments are, and the comparison as tables or JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.errors import UserError, unknown
from harness.files import write_atomically
from harness.ledger.entries import open_reader
from harness.metrics import SCORES
from harness.paths import Paths
from harness.reports import formatting
from harness.reports.comparison import CellComparison, Comparison, compare_trials
from harness.reports.folder import TRIALS, read_trials
from harness.reports.load import load_scores
from harness.reports.resampling import ResampledScores, on_the_same_rows
from harness.reports.results import Results

if TYPE_CHECKING:
    from harness.reports.grid import Key

#: The color of an outcome; all others are plain.
COLORS = {"better": "green", "worse": "red", "faster": "green", "slower": "red", "same": "dim"}


def compare(first: str, second: str, metric: str, paths: Paths, file: Path | None, out: Console) -> None:
    """Prints the comparison of two experiments, and writes it to ``file``.

    Raises:
        UserError: an experiment or a folder of results is not there, or the metric is unknown.
    """
    metrics = {score.key: score for score in SCORES}
    if metric not in metrics:
        raise unknown("metric", metric, metrics)
    before, after = results_of(first, paths), results_of(second, paths)
    resampled = ResampledScores(on_the_same_rows(before.predictions, after.predictions))
    comparison = compare_trials(before.trials, after.trials, metrics[metric], resampled)
    if file is not None:
        content = {"first": first, "second": second, **comparison.as_json()}
        write_atomically(file, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    show(comparison, first, second, out)


def results_of(text: str, paths: Paths) -> Results:
    """The trials of a results folder or of an experiment of the ledger; a folder has no predictions.

    A folder is what has a path separator in its name, or is a folder with ``trials.csv`` in it.

    Raises:
        UserError: there is neither such a folder nor such an experiment.
    """
    folder = Path(text)
    if (folder / TRIALS).is_file():
        return _of_folder(folder)
    if folder.name != text:  # "results/quickstart", "./quickstart"
        if not folder.is_dir():
            near = [child.name for child in folder.parent.iterdir() if child.is_dir()] if folder.parent.is_dir() else []
            raise unknown("results folder", folder.name, near, str(folder.parent))
        return _of_folder(folder)
    try:
        return load_scores(text, open_reader(paths.tracking_uri, paths.home))
    except UserError as error:
        raise UserError(f"{error} Nor is {text!r} a folder with {TRIALS}, as in results/NAME.") from None


def _of_folder(folder: Path) -> Results:
    return Results(read_trials(folder), pd.DataFrame(), pd.DataFrame(), {})


def show(comparison: Comparison, first: str, second: str, out: Console) -> None:
    """Prints counts, the cells of both, and the cells that only one has."""
    cells = comparison.cells
    out.print(f"A: {first}\nB: {second}", markup=False, soft_wrap=True)
    if cells:
        out.print(_table(comparison))
    counts = Counter(cell.outcome for cell in cells), Counter(cell.speed for cell in cells)
    outcomes, speeds = (", ".join(f"{n} {outcome}" for outcome, n in count.items()) for count in counts)
    out.print(
        f"Cells in both: {len(cells)}. B against A: {outcomes}. Time: {speeds}." if cells else "Cells in both: 0."
    )
    for name, keys in (("A", comparison.only_first), ("B", comparison.only_second)):
        if keys:
            out.print(f"Cells only in {name}: {len(keys)}")
            for key in keys:
                out.print(f"  {' · '.join(filter(None, _names(key)))}", markup=False, soft_wrap=True)
    before, after = comparison.devices
    if before and after and before != after:
        where = f"A ran on {'; '.join(before)}, B on {'; '.join(after)}"
        out.print(f"Times are from different devices: {where}.", markup=False, soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    """A row for each cell of both, benchmark by benchmark."""
    caption = (
        f"A: mean test {comparison.metric.title}, %. Difference: percentage points, B minus A, on n shared seeds "
        "(95 % interval over seeds and test rows; with * over seeds alone, where predictions are unknown). p: paired t "
        "test, corrected over all cells. Time: stand-alone seconds, B / A."
    )
    table = Table("cell", box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for name in ("A", "n", "difference", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    panel = None
    for cell in comparison.cells:
        if panel != (cell.key.benchmark, cell.key.variant):
            panel = (cell.key.benchmark, cell.key.variant)
            table.add_section()
            table.add_row(f"[bold]{escape(', '.join(filter(None, panel)))}[/bold]")
        table.add_row(escape(" · ".join(filter(None, _names(cell.key)[1:4]))), *_values(cell))
    return table


def _values(cell: CellComparison) -> list[str]:
    score, (ratio, low, high) = cell.score, cell.ratio
    difference = formatting.points(score.mean)
    if not math.isnan(score.hierarchical[0]):
        difference += f" ({formatting.point_interval(score.hierarchical)}{'' if score.rows_known else '*'})"
    time = formatting.ratio(ratio)
    if not math.isnan(low):
        time += f" ({low:.2f} to {high:.2f})"
    return [
        formatting.percent(cell.first.mean), str(score.n), difference, formatting.p_value(score.p),
        _colored(cell.outcome), time, _colored(cell.speed) if cell.time.n else formatting.NONE,
    ]  # fmt: skip


def _colored(outcome: str) -> str:
    color = COLORS.get(outcome)
    return f"[{color}]{outcome}[/{color}]" if color else outcome


def _names(key: Key) -> list[str]:
    fraction = "" if key.fraction is None else formatting.fraction(key.fraction)
    return [key.benchmark, key.source, key.method, fraction, key.variant]
