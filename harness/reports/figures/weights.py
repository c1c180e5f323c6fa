"""The spread of the weights: a row for each method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from harness.reports import formatting
from harness.reports.figures.style import GREY, Drawing, Palette, heading, panels
from harness.reports.grid import (
    Cells,
    at_largest_fraction,
    cells_of,
    in_order,
    panels_of,
)
from harness.reports.results import Results

SECTION, ORDER = "Weights", 0


def draw(results: Results, cells: Cells, palette: Palette) -> list[Drawing]:
    """Histograms of the weights on the generated source, on a logarithmic axis, a row for each method."""
    every = cells_of(results.weights)
    cells = {key: every[key] for key in at_largest_fraction(every) if results.role(key.source) == "generated"}
    cells = {key: rows for key, rows in cells.items() if rows["weight"].max() - rows["weight"].min() > 1e-9}
    if not cells:
        return []
    methods = [key.method for key in in_order(key._replace(benchmark="", variant="") for key in cells)]
    where = panels_of(cells)
    figure, axes = panels(len(where), 4.4, 0.9 + 0.5 * len(methods), share_y=True)
    for ax, panel in zip(axes, where, strict=True):
        mine = {key.method: rows["weight"] for key, rows in cells.items() if (key.benchmark, key.variant) == panel}
        _ridges(ax, methods, mine, palette)
        ax.set(title=heading(panel), xlabel="weight of a row, last epoch (log scale)")
    caption = (
        "Weights of the generated rows in the last epoch, all seeds together, each histogram scaled to the same "
        "height; methods with one weight for all rows are left out. Dotted: weight 1, that of CE. Rows with weight "
        "zero have no place on the axis: their share is written beside it."
    )
    return [Drawing("weights", "Distribution of the weights", caption, figure)]


def _ridges(ax: Axes, methods: list[str], mine: dict[str, pd.Series[float]], palette: Palette) -> None:
    positive = np.concatenate([values[values > 0].to_numpy() for values in mine.values()])
    low, high = positive.min() / 1.1, positive.max() * 1.1
    bins = np.geomspace(low, high, 49)
    for y, method in enumerate(methods):
        if method not in mine:
            continue
        counts, _ = np.histogram(mine[method], bins=bins)
        top = y - 0.85 * counts / max(counts.max(), 1)
        color = palette.color(method)
        ax.stairs(top, bins, baseline=y, fill=True, color=color, alpha=0.75)
        if zeros := float((mine[method] == 0).mean()):
            place = ax.get_yaxis_transform()
            ax.text(
                0.01, y - 0.3, f"{formatting.percent(zeros, 0)} % are 0", transform=place, ha="left", fontsize="small"
            )
    ax.axvline(1.0, color=GREY, linestyle=":", linewidth=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(min(low, 0.9), max(high, 1.1))
    ax.set_yticks(range(len(methods)), methods)
    ax.set_ylim(len(methods) - 0.8, -1.0)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
