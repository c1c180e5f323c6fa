"""Test accuracy over epochs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.metrics import PRIMARY
from harness.reports.figures.base import ReportFigure
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

TEST = PRIMARY.column("test")
#: More methods than this get a panel each.
MAX_OVERLAID = 5


class DynamicsFigure(ReportFigure):
    """The primary test metric per epoch, a drawing for each source with at least two methods and two epochs.

    Up to five methods share their axes; more get small multiples, each method against CE.
    """

    name = "dynamics"
    section = "Training dynamics"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        requested_ids = results.trials.loc[results.trials["requested"].astype(bool), "trial"]
        cells = cells_of(results.epochs[results.epochs["trial"].isin(requested_ids)])
        drawings = []
        for source in dict.fromkeys(key.source for key in cells):
            chosen = {
                k: cells[k]
                for k in at_largest_fraction(cells)
                if k.source == source and cells[k]["epoch"].nunique() > 1
            }
            methods = {key.method for key in chosen}
            if len(methods) < 2:
                continue
            crowded = len(methods) > MAX_OVERLAID
            groups = [
                {k: chosen[k] for k in chosen if (k.benchmark, k.variant) == panel} for panel in panels_of(chosen)
            ]
            draw_group = _draw_multiples if crowded else _draw_overlay
            for group in groups if crowded else [chosen]:
                drawings.append(draw_group(group, source, results.title(source), len(groups) > 1, palette))
        return drawings


def _draw_overlay(group: Cells, source: str, title: str, _: bool, palette: Palette) -> Drawing:
    where = panels_of(group)
    figure, axes = panels(len(where), 4.2, 3.4)
    for ax, panel in zip(axes, where, strict=True):
        for key in [k for k in group if (k.benchmark, k.variant) == panel]:
            _draw_epochs(ax, key, group[key], palette, key.method)
        _set_axes(ax, heading(panel))
    axes[0].set_ylabel(f"test {PRIMARY.title}, %")
    legend(axes)
    return Drawing(f"dynamics_{source}", f"Training dynamics on {title}", _caption(title), figure)


def _draw_multiples(group: Cells, source: str, title: str, several: bool, palette: Palette) -> Drawing:
    base = next((key for key in group if key.method == BASELINE), None)
    others = [key for key in group if key is not base]
    figure, axes = panels(len(others), 2.3, 2.2, columns=4, share_y=True)
    for ax, key in zip(axes, others, strict=True):
        if base is not None:
            _draw_epochs(ax, base, group[base], palette, BASELINE)
        _draw_epochs(ax, key, group[key], palette, key.method)
        _set_axes(ax, key.method)
        ax.title.set_color(palette.color(key.method))
    figure.supylabel(f"test {PRIMARY.title}, %", fontsize="medium")
    panel = heading(panels_of(group)[0])
    slug = "".join(c if c.isalnum() else "-" for c in panel)
    name = f"dynamics_{source}_{slug}" if several else f"dynamics_{source}"
    return Drawing(
        name, f"Training dynamics on {title}: {panel}", _caption(title) + " Grey in every panel: CE.", figure
    )


def _draw_epochs(ax: Axes, key: Key, rows: pd.DataFrame, palette: Palette, label: str) -> None:
    by_epoch = rows.groupby("epoch")[TEST].agg(["mean", "min", "max"]) * 100
    x = by_epoch.index.to_numpy()
    color = palette.color(key.method)
    marker = "" if key.method == BASELINE else palette.marker(key.method)
    ax.plot(x, by_epoch["mean"], color=color, marker=marker, markersize=3.5, linewidth=1.6, label=label)
    ax.fill_between(x, by_epoch["min"], by_epoch["max"], color=color, alpha=0.16, linewidth=0)


def _set_axes(ax: Axes, title: str) -> None:
    ax.set(title=title, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.grid(axis="y")


def _caption(title: str) -> str:
    return (
        f"Test {PRIMARY.title} after each epoch of training on {title}: mean (line) and range from smallest to largest "
        "over seeds (band), at the largest share of real rows. The vertical axis does not start at zero."
    )
