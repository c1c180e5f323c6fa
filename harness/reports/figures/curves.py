"""Accuracy over epochs, and over the share of real rows that train the quality checker."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from harness.reports.figures.style import GREY, INK, Drawing, Palette, heading, panels
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    baseline_of,
    by_seed,
    cells_of,
    finished,
    panels_of,
)
from harness.reports.results import Results

CROWD = 5


def dynamics(results: Results, palette: Palette) -> list[Drawing]:
    """Test accuracy per epoch, a drawing for each source with two methods and two epochs or more.

    Up to five methods share their axes; a crowd gets small multiples, each method against CE.
    """
    asked = results.trials.loc[results.trials["requested"].astype(bool), "trial"]
    cells = cells_of(results.epochs[results.epochs["trial"].isin(asked)])
    drawings = []
    for source in dict.fromkeys(key.source for key in cells):
        chosen = {
            k: cells[k] for k in at_largest_fraction(cells) if k.source == source and cells[k]["epoch"].nunique() > 1
        }
        methods = {key.method for key in chosen}
        if len(methods) < 2:
            continue
        crowded = len(methods) > CROWD
        groups = [{k: chosen[k] for k in chosen if (k.benchmark, k.variant) == panel} for panel in panels_of(chosen)]
        for group in groups if crowded else [chosen]:
            draw = _multiples if crowded else _overlay
            drawings.append(draw(group, source, len(groups) > 1, palette))
    return drawings


def fractions(results: Results, cells: Cells, palette: Palette) -> list[Drawing]:
    """Test accuracy against the share of real rows, with the quality checker's own accuracy."""
    shares = {
        key: key.fraction for key in cells if key.fraction is not None and results.role(key.source) == "generated"
    }
    if len(set(shares.values())) < 2:
        return []
    where = panels_of(shares)
    figure, axes = panels(len(where), 4.2, 3.4)
    for ax, panel in zip(axes, where, strict=True):
        mine = [key for key in shares if (key.benchmark, key.variant) == panel]
        for method in dict.fromkeys(key.method for key in mine):
            points = {key.fraction or 0.0: by_seed(cells[key], "test_accuracy") for key in mine if key.method == method}
            _line(ax, points, palette.color(method), method, palette.marker(method))
        _line(ax, _checker_accuracy(results.trials, mine, cells), INK, "quality checker itself", ".", "--")
        base = baseline_of(mine[0], cells)
        if base is not None and base.fraction is None and len(by_seed(cells[base], "test_accuracy")):
            level = 100 * by_seed(cells[base], "test_accuracy").mean()
            ax.axhline(level, color=GREY, linestyle=":", label="ce (needs no real rows)")
        ticks = sorted({key.fraction or 0.0 for key in mine})
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(title=heading(panel), xlabel="share of real rows used, % (log scale)")
        ax.grid(axis="y")
    axes[0].set_ylabel("test accuracy, %")
    _legend(axes)
    caption = (
        "Test accuracy of methods trained on generated rows against the share of the real rows that train the quality "
        "checker: mean and range over seeds. Dashed: the quality checker's own accuracy; dotted: CE. The axis of "
        "accuracy does not start at zero."
    )
    return [Drawing("fractions", "Accuracy and the size of the real set", caption, figure)]


def _overlay(group: Cells, source: str, _: bool, palette: Palette) -> Drawing:
    where = panels_of(group)
    figure, axes = panels(len(where), 4.2, 3.4)
    for ax, panel in zip(axes, where, strict=True):
        for key in [k for k in group if (k.benchmark, k.variant) == panel]:
            _epochs(ax, key, group[key], palette, key.method)
        _epoch_axes(ax, heading(panel))
    axes[0].set_ylabel("test accuracy, %")
    _legend(axes)
    return Drawing(f"dynamics_{source}", f"Training dynamics on {source}", _caption(source), figure)


def _multiples(group: Cells, source: str, named: bool, palette: Palette) -> Drawing:
    base = next((key for key in group if key.method == BASELINE), None)
    others = [key for key in group if key is not base]
    figure, axes = panels(len(others), 2.3, 2.2, columns=4, share_y=True)
    for ax, key in zip(axes, others, strict=True):
        if base is not None:
            _epochs(ax, base, group[base], palette, BASELINE)
        _epochs(ax, key, group[key], palette, key.method)
        _epoch_axes(ax, key.method)
        ax.title.set_color(palette.color(key.method))
    figure.supylabel("test accuracy, %", fontsize="medium")
    panel = heading(panels_of(group)[0])
    slug = "".join(c if c.isalnum() else "-" for c in panel)
    name = f"dynamics_{source}_{slug}" if named else f"dynamics_{source}"
    return Drawing(
        name, f"Training dynamics on {source}: {panel}", _caption(source) + " Grey in every panel: CE.", figure
    )


def _epochs(ax: Axes, key: Key, rows: pd.DataFrame, palette: Palette, label: str) -> None:
    by_epoch = rows.groupby("epoch")["test_accuracy"].agg(["mean", "min", "max"]) * 100
    x = by_epoch.index.to_numpy()
    color = palette.color(key.method)
    marker = "" if key.method == BASELINE else palette.marker(key.method)
    ax.plot(x, by_epoch["mean"], color=color, marker=marker, markersize=3.5, linewidth=1.6, label=label)
    ax.fill_between(x, by_epoch["min"], by_epoch["max"], color=color, alpha=0.16, linewidth=0)


def _epoch_axes(ax: Axes, title: str) -> None:
    ax.set(title=title, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.grid(axis="y")


def _caption(source: str) -> str:
    return (
        f"Test accuracy after each epoch of training on {source}: mean (line) and range from least to greatest over "
        "seeds (band), at the largest share of real rows. The axis of accuracy does not start at zero."
    )


def _line(
    ax: Axes, points: dict[float, pd.Series[float]], color: str, label: str, marker: str, line: str = "-"
) -> None:
    known = {x: 100 * values.to_numpy() for x, values in sorted(points.items()) if len(values)}
    means = [float(np.mean(values)) for values in known.values()]
    ax.plot(list(known), means, line, color=color, marker=marker, markersize=5, linewidth=1.6, label=label)
    lows, highs = ([float(end(values)) for values in known.values()] for end in (np.min, np.max))
    ax.vlines(list(known), lows, highs, color=color, alpha=0.5)


def _checker_accuracy(trials: pd.DataFrame, keys: list[Key], cells: Cells) -> dict[float, pd.Series[float]]:
    """The test accuracy of the quality checkers that the cells name, by fraction."""
    checkers = finished(trials).set_index("trial")["test_accuracy"].dropna()
    found: dict[float, pd.Series[float]] = {}
    for key in keys:
        ids = cells[key]["quality_checker"].dropna().unique()
        if len(ids):
            found[key.fraction or 0.0] = checkers[checkers.index.isin(ids)].astype(float)
    return found


def _legend(axes: list[Axes]) -> None:
    """One legend for all panels, outside of them."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure = axes[0].figure
    figure.legend(entries.values(), entries.keys(), loc="outside right upper")
