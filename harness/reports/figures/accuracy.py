"""Accuracy of every seed: a row for each source and method."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from harness.metrics import PRIMARY
from harness.reports import formatting
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.rows import label_rows, rows_of
from harness.reports.figures.style import GREY, Drawing, Palette, heading, panels
from harness.reports.grid import (
    Cells,
    Key,
    baseline_of,
    by_seed,
    panels_of,
    requested,
)
from harness.reports.results import Results

TEST = PRIMARY.column("test")


class AccuracyFigure(ReportFigure):
    """Each seed's test accuracy as a dot and the mean as a bar, a row for each source and method."""

    name = "accuracy"
    section = "Accuracy"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        if not any(len(by_seed(rows, TEST)) for rows in cells.values()):
            return []
        rows = rows_of(cells)
        where = panels_of(cells)
        figure, axes = panels(len(where), 4.4, 0.8 + 0.23 * len(rows), share_y=True)
        for ax, (benchmark, variant) in zip(axes, where, strict=True):
            for y, row in enumerate(rows):
                if isinstance(row, Key):
                    _draw_seeds(ax, y, row._replace(benchmark=benchmark, variant=variant), cells, palette)
            ax.set(title=heading((benchmark, variant)), xlabel=f"test {PRIMARY.title}, %")
            ax.grid(axis="x")
            label_rows(ax, rows, {key.fraction for key in cells})
        caption = (
            f"Test {PRIMARY.title}: a dot for each seed, a bar for the mean, a dashed line for the mean of CE on the "
            "same source. Trials without a result are counted beside the axis. The axis does not start at zero."
        )
        return [Drawing("accuracy", f"{PRIMARY.title.capitalize()} of every seed", caption, figure)]


def _draw_seeds(ax: Axes, y: int, key: Key, cells: Cells, palette: Palette) -> None:
    if key not in cells:
        return
    values = 100 * by_seed(cells[key], TEST).to_numpy()
    if len(values) < len(cells[key]):
        place, note = ax.get_yaxis_transform(), formatting.unfinished(cells[key])
        ax.text(1.01, y, note, transform=place, ha="left", va="center", color=GREY, style="italic", fontsize="small")
    if not len(values):
        return
    color = palette.color(key.method)
    ax.plot(values, np.full(len(values), y), "o", color=color, alpha=0.55, markersize=5, markeredgewidth=0)
    ax.vlines(values.mean(), y - 0.36, y + 0.36, color=color, linewidth=2.4)
    base = baseline_of(key, cells)
    if base is not None and base != key and len(level := by_seed(cells[base], TEST)):
        ax.vlines(100 * level.mean(), y - 0.5, y + 0.5, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
