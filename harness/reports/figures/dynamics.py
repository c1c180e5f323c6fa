"""Accuracy over epochs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.reports.figures.style import Drawing, Palette, heading, legend, panels
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    cells_of,
    panels_of,
)
from harness.reports.results import Results

SECTION, ORDER = "Training dynamics", 0


#: More methods than this get a panel each.
CROWD = 5


def draw(results: Results, cells: Cells, palette: Palette) -> list[Drawing]:
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


def _overlay(group: Cells, source: str, _: bool, palette: Palette) -> Drawing:
    where = panels_of(group)
    figure, axes = panels(len(where), 4.2, 3.4)
    for ax, panel in zip(axes, where, strict=True):
        for key in [k for k in group if (k.benchmark, k.variant) == panel]:
            _epochs(ax, key, group[key], palette, key.method)
        _epoch_axes(ax, heading(panel))
    axes[0].set_ylabel("test accuracy, %")
    legend(axes)
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
