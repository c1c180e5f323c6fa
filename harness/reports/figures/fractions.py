"""Accuracy against the share of real rows that train the quality checker, or that are mixed with generated ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from harness.metrics import PRIMARY
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.style import GREY, INK, Drawing, Palette, heading, legend, panels
from harness.reports.grid import (
    BASELINE,
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
#: Line styles of the sources with real and generated rows, in order.
LINES = ("-", "--", "-.")


class FractionsFigure(ReportFigure):
    """The primary metric on the test split against the share of real rows, beside models of these rows alone."""

    name = "fractions"
    section = "How many real rows"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        shares = {role: _with_shares(results, cells, role) for role in ("generated", "mixed", "real")}
        drawings = []
        if shares["generated"]:
            caption = (
                f"Test {PRIMARY.title} of methods trained on generated rows against the share of the real rows that "
                "train the quality checker: mean and range over seeds. Dashed: the quality checker itself; dotted: CE. "
                "The vertical axis does not start at zero."
            )
            title = f"{PRIMARY.title.capitalize()} and the size of the real set"
            figure, axes = _panels(shares["generated"])
            for ax, keys in axes:
                _draw_checked(ax, keys, cells, results.trials, palette)
            legend([ax for ax, _ in axes])
            drawings.append(Drawing("fractions", title, caption, figure))
        if shares["mixed"]:
            caption = (
                f"Test {PRIMARY.title} of methods trained on real and generated rows against the share of the real "
                "rows that is used: mean and range over seeds. Dotted: CE on these real rows alone. The vertical axis "
                "does not start at zero."
            )
            figure, axes = _panels(shares["mixed"])
            for ax, keys in axes:
                alone = [
                    key
                    for key in shares["real"]
                    if (key.benchmark, key.variant) == (keys[0].benchmark, keys[0].variant) and key.method == BASELINE
                ]
                _draw_mixed(ax, keys, alone, cells, palette)
            legend([ax for ax, _ in axes])
            drawings.append(Drawing("fractions_mixed", "Generated rows beside more real rows", caption, figure))
        return drawings


def _with_shares(results: Results, cells: Cells, role: str) -> list[Key]:
    """The cells of sources with a role that depend on the share of real rows; none if there is one share only."""
    keys = [key for key in cells if key.fraction is not None and results.role(key.source) == role]
    return keys if len({key.fraction for key in keys}) > 1 else []


def _panels(keys: list[Key]) -> tuple[Figure, list[tuple[Axes, list[Key]]]]:
    """A figure, and its axes with their cells, one for each benchmark and variant."""
    where = panels_of(keys)
    figure, axes = panels(len(where), 4.2, 3.4)
    out = []
    for ax, panel in zip(axes, where, strict=True):
        here = [key for key in keys if (key.benchmark, key.variant) == panel]
        ticks = sorted({key.fraction or 0.0 for key in here})
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(title=heading(panel), xlabel="share of real rows used, % (log scale)")
        ax.grid(axis="y")
        out.append((ax, here))
    axes[0].set_ylabel(f"test {PRIMARY.title}, %")
    return figure, out


def _draw_checked(ax: Axes, keys: list[Key], cells: Cells, trials: pd.DataFrame, palette: Palette) -> None:
    """Methods trained on generated rows, the quality checkers themselves, and CE."""
    for method in dict.fromkeys(key.method for key in keys):
        points = _points(cells, (key for key in keys if key.method == method))
        _draw_line(ax, points, palette.color(method), method, palette.marker(method))
    _draw_line(ax, _checker_accuracy(trials, keys, cells), INK, "quality checker itself", ".", "--")
    base = baseline_of(keys[0], cells)
    if base is not None and base.fraction is None and len(by_seed(cells[base], TEST)):
        level = 100 * by_seed(cells[base], TEST).mean()
        ax.axhline(level, color=GREY, linestyle=":", label="ce (needs no real rows)")


def _draw_mixed(ax: Axes, keys: list[Key], alone: list[Key], cells: Cells, palette: Palette) -> None:
    """Methods trained on real and generated rows, a style of line for each source, and CE on the real rows alone."""
    lines = dict(zip(dict.fromkeys(key.source for key in keys), itertools.cycle(LINES), strict=False))
    for source, method in dict.fromkeys((key.source, key.method) for key in keys):
        points = _points(cells, (key for key in keys if (key.source, key.method) == (source, method)))
        color, marker = palette.color(method), palette.marker(method)
        _draw_line(ax, points, color, f"{source}, {method}", marker, lines[source])
    _draw_line(ax, _points(cells, alone), INK, "real rows alone, ce", ".", ":")


def _points(cells: Cells, keys: Iterable[Key]) -> dict[float, pd.Series[float]]:
    """Fraction -> scores by seed."""
    return {key.fraction or 0.0: by_seed(cells[key], TEST) for key in keys}


def _draw_line(
    ax: Axes, points: Mapping[float, pd.Series[float]], color: str, label: str, marker: str, line: str = "-"
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
