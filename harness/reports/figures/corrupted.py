"""Weights of clean and of corrupted rows, a row for each method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from harness.reports.figures.base import ReportFigure
from harness.reports.figures.rows import label_methods, method_rows, panel_cells
from harness.reports.figures.style import COLORS, GREY, INK, Drawing, Palette, heading, panels
from harness.reports.grid import (
    Key,
    at_largest_fraction,
    cells_of,
    panels_of,
    with_corruption,
)
from harness.reports.results import Results


class CorruptedFigure(ReportFigure):
    """Histograms of the weights of clean rows above those of corrupted rows, for sources that have both."""

    name = "corrupted"
    section = "Weights"
    order = 1

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        weights = with_corruption(results.weights)
        cells = cells_of(weights.assign(clean=weights["corruption"] == ""))
        cells = {key: rows.dropna(subset="weight") for key, rows in cells.items()}
        cells = {k: rows for k, rows in cells.items() if rows["clean"].nunique() > 1 and rows["weight"].nunique() > 1}
        cells = {key: cells[key] for key in at_largest_fraction(cells)}
        if not cells:
            return []
        rows = method_rows(cells)
        where = panels_of(cells)
        figure, axes = panels(len(where), 4.4, 1.0 + 0.7 * len(rows), share_y=True)
        for ax, panel in zip(axes, where, strict=True):
            _draw_mirrored(ax, rows, panel_cells(cells, panel), palette)
            ax.set(title=heading(panel), xlabel="weight of a row, last epoch")
        handles = [Patch(color=COLORS[0], label="clean (color of the method)"), Patch(color=GREY, label="corrupted")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        caption = (
            "Weights of clean rows, above each line, and of corrupted ones, below it, in the last epoch, all seeds "
            "together; both sides of a line are shares of their own rows on one scale. Weights beyond the axis are "
            "counted in its last bin. Methods with one weight for all rows are left out."
        )
        return [Drawing("corrupted", "Weights of clean and corrupted rows", caption, figure)]


def _draw_mirrored(ax: Axes, rows: list[Key], cells: dict[Key, pd.DataFrame], palette: Palette) -> None:
    high = max(float(frame["weight"].quantile(0.97)) for frame in cells.values()) or 1.0  # all zeros: any width
    bins = np.linspace(0.0, high, 41)
    for y, row in enumerate(rows):
        if row not in cells:
            continue
        weight, clean = cells[row]["weight"].clip(upper=high), cells[row]["clean"]
        shares = [np.histogram(part, bins=bins)[0] / len(part) for part in (weight[clean], weight[~clean])]
        most = max(share.max() for share in shares)
        for share, color, sign in zip(shares, (palette.color(row.method), GREY), (-1, 1), strict=True):
            ax.stairs(y + sign * 0.42 * share / most, bins, baseline=y, fill=True, color=color, alpha=0.75)
        ax.axhline(y, color=INK, linewidth=0.6)
    label_methods(ax, rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="x")
