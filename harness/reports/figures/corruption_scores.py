"""Distributions of both checkers' scores and of the weight, by kind of corruption (the paper's Figures 4 and 5)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from harness.reports import formatting
from harness.reports.corruption_tables import COLUMNS, kinds_of, scored_cells
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.style import COLORS, GREY, INK, Drawing, Palette, panels
from harness.reports.grid import Key
from harness.reports.results import Results


class CorruptionScoresFigure(ReportFigure):
    """Box plots of P', Q' and w, a row of panels for each benchmark and method that uses both checkers."""

    name = "corruption_scores"
    section = "Weights"
    order = 2

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = scored_cells(results)
        if not cells:
            return []
        kinds = kinds_of(cells)
        figure, axes = panels(len(cells) * len(COLUMNS), 3.2, 0.9 + 0.3 * len(kinds), columns=len(COLUMNS))
        for number, (key, rows) in enumerate(cells.items()):
            for place, (column, title) in enumerate(COLUMNS.items()):
                ax = axes[number * len(COLUMNS) + place]
                _draw_boxes(ax, rows, column, kinds)
                ax.set(xlabel=title, title=_title(key, cells) if place == 0 else " ")
                if place:
                    ax.tick_params(labelleft=False)
        caption = (
            "Probability of the given label according to both checkers, and the weight of the last epoch, for clean "
            "rows and each kind of corruption, all seeds together. Box: quartiles and median; whiskers: 5th and 95th "
            "percentile; dot: mean."
        )
        return [Drawing("corruption_scores", "Scores and weights by kind of row", caption, figure)]


def _draw_boxes(ax: Axes, rows: pd.DataFrame, column: str, kinds: list[str]) -> None:
    parts = [rows.loc[rows["corruption"] == kind, column].to_numpy(np.float64) for kind in kinds]
    colors = [COLORS[0] if kind == "" else GREY for kind in kinds]
    for y, (values, color) in enumerate(zip(parts, colors, strict=True)):
        if not len(values):
            continue
        low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        ax.plot([low, high], [y, y], color=color, linewidth=1.0)
        ax.barh(y, third - first, 0.56, left=first, color=color, alpha=0.55)
        ax.plot([middle, middle], [y - 0.28, y + 0.28], color=INK, linewidth=1.2)
        ax.plot(values.mean(), y, marker="o", markersize=3.5, color=INK)
    ax.set_yticks(range(len(kinds)), [kind or "clean" for kind in kinds])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(kinds) - 0.4, -0.6)
    ax.set_xlim(0.0, 1.0 if column != "weight" else None)
    ax.grid(axis="x")


def _title(key: Key, cells: dict[Key, pd.DataFrame]) -> str:
    parts = [key.benchmark, *filter(None, [key.variant])]
    if len({k.source for k in cells}) > 1:
        parts.append(key.source)
    return f"{', '.join(parts)}: {formatting.name(key)}"
