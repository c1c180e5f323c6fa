"""Weights of clean rows against those of corrupted ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from harness.reports.figures.style import COLORS, GREY, INK, Drawing, Palette, heading, panels
from harness.reports.grid import (
    Cells,
    at_largest_fraction,
    cells_of,
    in_order,
    panels_of,
)
from harness.reports.results import Results

SECTION, ORDER = "Weights", 1


def draw(results: Results, cells: Cells, palette: Palette) -> list[Drawing]:
    """Histograms of the weights of clean rows, and below them of corrupted ones, where it is known which they are."""
    cells = {key: rows.dropna(subset="weight") for key, rows in cells_of(results.weights).items()}
    cells = {key: rows.assign(clean=rows["corruption"] == "") for key, rows in cells.items()}
    cells = {k: rows for k, rows in cells.items() if rows["clean"].nunique() > 1 and rows["weight"].nunique() > 1}
    cells = {key: cells[key] for key in at_largest_fraction(cells)}
    if not cells:
        return []
    methods = list(dict.fromkeys(key.method for key in in_order(k._replace(benchmark="", variant="") for k in cells)))
    where = panels_of(cells)
    figure, axes = panels(len(where), 4.4, 1.0 + 0.7 * len(methods), share_y=True)
    for ax, panel in zip(axes, where, strict=True):
        mine = {key.method: rows for key, rows in cells.items() if (key.benchmark, key.variant) == panel}
        _mirrored(ax, methods, mine, palette)
        ax.set(title=heading(panel), xlabel="weight of a row, last epoch")
    handles = [Patch(color=COLORS[0], label="clean (any color)"), Patch(color=GREY, label="corrupted")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    caption = (
        "Weights of clean rows, above each line, and of corrupted ones, below it, in the last epoch, all seeds "
        "together; both sides of a line are shares of their own rows on one scale. Weights beyond the axis count into "
        "its last bin. Methods with one weight for all rows are left out."
    )
    return [Drawing("corrupted", "Weights of clean and corrupted rows", caption, figure)]


def _mirrored(ax: Axes, methods: list[str], mine: dict[str, pd.DataFrame], palette: Palette) -> None:
    high = max(float(rows["weight"].quantile(0.97)) for rows in mine.values())
    bins = np.linspace(0.0, high, 41)
    for y, method in enumerate(methods):
        if method not in mine:
            continue
        weight, clean = mine[method]["weight"].clip(upper=high), mine[method]["clean"]
        shares = [np.histogram(part, bins=bins)[0] / len(part) for part in (weight[clean], weight[~clean])]
        most = max(share.max() for share in shares)
        for share, color, sign in zip(shares, (palette.color(method), GREY), (-1, 1), strict=True):
            ax.stairs(y + sign * 0.42 * share / most, bins, baseline=y, fill=True, color=color, alpha=0.75)
        ax.axhline(y, color=INK, linewidth=0.6)
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
