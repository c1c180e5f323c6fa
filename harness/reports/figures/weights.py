"""Distribution of the weights of generated rows, a row for each method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from harness.reports import formatting
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.rows import label_methods, method_rows, panel_cells
from harness.reports.figures.style import GREY, Drawing, Palette, heading, panels
from harness.reports.grid import (
    Key,
    at_largest_fraction,
    cells_of,
    panels_of,
)
from harness.reports.results import Results


class WeightsFigure(ReportFigure):
    """Histograms of the weights of generated rows, on a logarithmic axis, a row for each method."""

    name = "weights"
    section = "Weights"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        all_cells = cells_of(results.weights)
        chosen = [key for key in at_largest_fraction(all_cells) if results.role(key.source) == "generated"]
        weights = {key: all_cells[key]["weight"].dropna() for key in chosen}
        cells = {key: values for key, values in weights.items() if values.max() - values.min() > 1e-9}
        if not cells:
            return []
        rows = method_rows(cells)
        where = panels_of(cells)
        figure, axes = panels(len(where), 4.4, 0.9 + 0.5 * len(rows), share_y=True)
        for ax, panel in zip(axes, where, strict=True):
            _draw_histograms(ax, rows, panel_cells(cells, panel), palette)
            ax.set(title=heading(panel), xlabel="weight of a row, last epoch (log scale)")
        caption = (
            "Weights of the generated rows in the last epoch, all seeds together, each histogram scaled to the same "
            "height; methods with one weight for all rows are left out. Dotted: weight 1, that of CE. Rows with weight "
            "zero cannot be shown on a logarithmic axis: their share is written at the left."
        )
        return [Drawing("weights", "Distribution of the weights", caption, figure)]


def _draw_histograms(ax: Axes, rows: list[Key], weights: dict[Key, pd.Series[float]], palette: Palette) -> None:
    positive = np.concatenate([values[values > 0].to_numpy() for values in weights.values()])
    low, high = positive.min() / 1.1, positive.max() * 1.1
    bins = np.geomspace(low, high, 49)
    for y, row in enumerate(rows):
        if row not in weights:
            continue
        counts, _ = np.histogram(weights[row], bins=bins)
        top = y - 0.85 * counts / max(counts.max(), 1)
        color = palette.color(row.method)
        ax.stairs(top, bins, baseline=y, fill=True, color=color, alpha=0.75)
        if zeros := float((weights[row] == 0).mean()):
            place = ax.get_yaxis_transform()
            ax.text(
                0.01, y - 0.3, f"{formatting.percent(zeros, 0)} % are 0", transform=place, ha="left", fontsize="small"
            )
    ax.axvline(1.0, color=GREY, linestyle=":", linewidth=1)
    ax.set_xscale("log")
    if high / low < 100:  # few powers of ten: label 2 and 5 as well
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(min(low, 0.9), max(high, 1.1))
    label_methods(ax, rows)
    ax.set_ylim(len(rows) - 0.8, -1.0)
    ax.grid(axis="x")
