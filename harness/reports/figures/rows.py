"""Figures with a row for each source and method."""

from __future__ import annotations

from matplotlib.axes import Axes

from harness.reports import formatting
from harness.reports.figures.style import PALE
from harness.reports.grid import Cells, Key, in_order

Row = Key | str


def rows_of(cells: Cells) -> list[Row]:
    """Each source as a heading, followed by its methods, whatever the benchmark and variant."""
    rows: list[Row] = []
    for key in in_order(key._replace(benchmark="", variant="") for key in cells):
        if key.source not in rows:
            rows.append(key.source)
        rows.append(key)
    return rows


def label_rows(ax: Axes, rows: list[Row], fractions: set[float | None]) -> None:
    """Names the rows; sources are headings."""
    several = len(fractions - {None}) > 1
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [formatting.name(row, several) if isinstance(row, Key) else row for row in rows])
    for tick, row in zip(ax.yaxis.get_major_ticks(), rows, strict=True):
        tick.label1.set_fontweight("normal" if isinstance(row, Key) else "bold")
    ax.tick_params(axis="y", length=0)
    for y, row in enumerate(rows):
        if isinstance(row, str) and y:
            ax.axhline(y - 0.5, color=PALE, linewidth=0.8)
