"""Shared by figures with a row for each source and method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from matplotlib.axes import Axes

from harness.reports import formatting
from harness.reports.figures.style import PALE
from harness.reports.grid import Cells, Key, in_order

Row = Key | str
T = TypeVar("T")


def rows_of(cells: Cells) -> list[Row]:
    """Each source as a heading, followed by its methods; benchmarks and variants share the rows."""
    rows: list[Row] = []
    for key in in_order(key._replace(benchmark="", variant="") for key in cells):
        if key.source not in rows:
            rows.append(key.source)
        rows.append(key)
    return rows


def label_rows(ax: Axes, rows: list[Row], fractions: set[float | None]) -> None:
    """Label the rows of an axis; sources are headings."""
    several = len(fractions - {None}) > 1
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [formatting.name(row, several) if isinstance(row, Key) else row for row in rows])
    for tick, row in zip(ax.yaxis.get_major_ticks(), rows, strict=True):
        tick.label1.set_fontweight("normal" if isinstance(row, Key) else "bold")
    ax.tick_params(axis="y", length=0)
    for y, row in enumerate(rows):
        if isinstance(row, str) and y:
            ax.axhline(y - 0.5, color=PALE, linewidth=0.8)


def method_rows(cells: Iterable[Key]) -> list[Key]:
    """A row for each source and method, in order; benchmarks, variants and fractions share it."""
    return list(dict.fromkeys(key._replace(benchmark="", variant="", fraction=None) for key in in_order(cells)))


def panel_cells(cells: Mapping[Key, T], panel: tuple[str, str]) -> dict[Key, T]:
    """What the cells of a (benchmark, variant) hold, by row of ``method_rows``."""
    chosen = {key: value for key, value in cells.items() if (key.benchmark, key.variant) == panel}
    return {key._replace(benchmark="", variant="", fraction=None): value for key, value in chosen.items()}


def label_methods(ax: Axes, rows: list[Key]) -> None:
    """Label the rows of an axis by method, with the source where there are several."""
    several = len({row.source for row in rows}) > 1
    ax.set_yticks(range(len(rows)), [f"{row.source}: {row.method}" if several else row.method for row in rows])
    ax.tick_params(axis="y", length=0)
