"""Accuracy against the share of real rows that train the quality checker."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from harness.metrics import PRIMARY
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.style import GREY, INK, Drawing, Palette, heading, legend, panels
from harness.reports.grid import (
    Cells,
    Key,
    baseline_of,
    by_seed,
    finished,
    panels_of,
    requested,
)
from harness.reports.results import Results

TEST = PRIMARY.column("test")


class FractionsFigure(ReportFigure):
    """The primary metric on the test split against the share of real rows, with the quality checker itself."""

    name = "fractions"
    section = "How many real rows"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        shares = {
            key: key.fraction for key in cells if key.fraction is not None and results.role(key.source) == "generated"
        }
        if len(set(shares.values())) < 2:
            return []
        where = panels_of(shares)
        figure, axes = panels(len(where), 4.2, 3.4)
        for ax, panel in zip(axes, where, strict=True):
            keys = [key for key in shares if (key.benchmark, key.variant) == panel]
            for method in dict.fromkeys(key.method for key in keys):
                points = {key.fraction or 0.0: by_seed(cells[key], TEST) for key in keys if key.method == method}
                _draw_line(ax, points, palette.color(method), method, palette.marker(method))
            _draw_line(ax, _checker_accuracy(results.trials, keys, cells), INK, "quality checker itself", ".", "--")
            base = baseline_of(keys[0], cells)
            if base is not None and base.fraction is None and len(by_seed(cells[base], TEST)):
                level = 100 * by_seed(cells[base], TEST).mean()
                ax.axhline(level, color=GREY, linestyle=":", label="ce (needs no real rows)")
            ticks = sorted({key.fraction or 0.0 for key in keys})
            ax.set_xscale("log")
            ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set(title=heading(panel), xlabel="share of real rows used, % (log scale)")
            ax.grid(axis="y")
        axes[0].set_ylabel(f"test {PRIMARY.title}, %")
        legend(axes)
        caption = (
            f"Test {PRIMARY.title} of methods trained on generated rows against the share of the real rows that train "
            "the quality checker: mean and range over seeds. Dashed: the quality checker itself; dotted: CE. The "
            "vertical axis does not start at zero."
        )
        return [Drawing("fractions", f"{PRIMARY.title.capitalize()} and the size of the real set", caption, figure)]


def _draw_line(
    ax: Axes, points: dict[float, pd.Series[float]], color: str, label: str, marker: str, line: str = "-"
) -> None:
    known = {x: 100 * values.to_numpy() for x, values in sorted(points.items()) if len(values)}
    if not known:
        return
    means = [float(np.mean(values)) for values in known.values()]
    ax.plot(list(known), means, line, color=color, marker=marker, markersize=5, linewidth=1.6, label=label)
    lows, highs = ([float(end(values)) for values in known.values()] for end in (np.min, np.max))
    ax.vlines(list(known), lows, highs, color=color, alpha=0.5)


def _checker_accuracy(trials: pd.DataFrame, keys: list[Key], cells: Cells) -> dict[float, pd.Series[float]]:
    """The test accuracy of the quality checkers that the cells name, by fraction."""
    checkers = finished(trials).set_index("trial")[TEST].dropna()
    by_fraction: dict[float, pd.Series[float]] = {}
    for key in keys:
        ids = cells[key]["quality_checker"].dropna().unique()
        if len(ids):
            by_fraction[key.fraction or 0.0] = checkers[checkers.index.isin(ids)].astype(float)
    return by_fraction
