"""Pictures with a row for each method: accuracy of every seed, cost by phase, the spread of the weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from harness.reports import costs, formatting
from harness.reports.figures.style import COLORS, GREY, INK, PALE, Drawing, Palette, heading, panels
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    baseline_of,
    by_seed,
    cells_of,
    finished,
    in_order,
    panels_of,
)
from harness.reports.results import Results

Row = Key | str


def accuracy(cells: Cells, palette: Palette) -> list[Drawing]:
    """Each seed's test accuracy as a dot and the mean as a bar, a row for each source and method."""
    if not any(len(by_seed(rows, "test_accuracy")) for rows in cells.values()):
        return []
    rows = _rows(cells)
    where = panels_of(cells)
    figure, axes = panels(len(where), 4.4, 0.8 + 0.23 * len(rows), share_y=True)
    for ax, (benchmark, variant) in zip(axes, where, strict=True):
        for y, row in enumerate(rows):
            if isinstance(row, Key):
                _dots(ax, y, row._replace(benchmark=benchmark, variant=variant), cells, palette)
        ax.set(title=heading((benchmark, variant)), xlabel="test accuracy, %")
        ax.grid(axis="x")
        _label_rows(ax, rows, {key.fraction for key in cells})
    caption = (
        "Test accuracy: a dot for each seed, a bar for the mean, a dashed line for the mean of CE on the same source. "
        "Trials without a result are counted at the right. The axis does not start at zero."
    )
    return [Drawing("accuracy", "Accuracy of every seed", caption, figure)]


def cost(results: Results, cells: Cells) -> list[Drawing]:
    """Stand-alone seconds by phase, stacked, at the largest share of real rows."""
    charged = costs.with_costs(cells, results.trials)
    wide = {key: charged[key] for key in at_largest_fraction(cells) if len(by_seed(charged[key], "stand_alone"))}
    if not wide:
        return []
    parts = _parts(results.trials)
    rows = _rows(wide)
    where = panels_of(wide)
    figure, axes = panels(len(where), 4.6, 0.9 + 0.25 * len(rows), share_y=True)
    for ax, (benchmark, variant) in zip(axes, where, strict=True):
        for y, row in enumerate(rows):
            key = row._replace(benchmark=benchmark, variant=variant) if isinstance(row, Key) else None
            if key in wide and key is not None:
                _stack(ax, y, key, wide, parts)
        ax.set(title=heading((benchmark, variant)), xlabel="seconds, stand-alone")
        ax.set_xlim(0, ax.get_xlim()[1] * 1.12)
        ax.grid(axis="x")
        _label_rows(ax, rows, set())
    handles = [Patch(color=color, label=label) for label, (_, color) in parts.items()]
    columns = min(len(handles), max(2, int(figure.get_figwidth() / 2.3)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    caption = (
        "Mean seconds of a trial with each of its checkers and their scoring charged to it, as if nothing else were "
        "run, without evaluation and device warm-up. Beside the bar: times the cost of CE on the same source."
    )
    return [Drawing("cost", "Cost by phase", caption, figure)]


def weights(results: Results, palette: Palette) -> list[Drawing]:
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


def corrupted(results: Results, palette: Palette) -> list[Drawing]:
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


def _rows(cells: Cells) -> list[Row]:
    """Each source as a heading, followed by its methods, whatever the benchmark and variant."""
    rows: list[Row] = []
    for key in in_order(key._replace(benchmark="", variant="") for key in cells):
        if key.source not in rows:
            rows.append(key.source)
        rows.append(key)
    return rows


def _label_rows(ax: Axes, rows: list[Row], fractions: set[float | None]) -> None:
    several = len(fractions - {None}) > 1
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [formatting.name(row, several) if isinstance(row, Key) else row for row in rows])
    for tick, row in zip(ax.yaxis.get_major_ticks(), rows, strict=True):
        tick.label1.set_fontweight("normal" if isinstance(row, Key) else "bold")
    ax.tick_params(axis="y", length=0)
    for y, row in enumerate(rows):
        if isinstance(row, str) and y:
            ax.axhline(y - 0.5, color=PALE, linewidth=0.8)


def _dots(ax: Axes, y: int, key: Key, cells: Cells, palette: Palette) -> None:
    if key not in cells:
        return
    values = 100 * by_seed(cells[key], "test_accuracy").to_numpy()
    if len(values) < len(cells[key]):
        place, note = ax.get_yaxis_transform(), formatting.unfinished(cells[key])
        ax.text(0.99, y, note, transform=place, ha="right", va="center", color=GREY, style="italic", fontsize="small")
    if not len(values):
        return
    color = palette.color(key.method)
    ax.plot(values, np.full(len(values), y), "o", color=color, alpha=0.55, markersize=5, markeredgewidth=0)
    ax.vlines(values.mean(), y - 0.36, y + 0.36, color=color, linewidth=2.4)
    base = baseline_of(key, cells)
    if base is not None and base != key and len(level := by_seed(cells[base], "test_accuracy")):
        ax.vlines(100 * level.mean(), y - 0.5, y + 0.5, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)


def _parts(trials: pd.DataFrame) -> dict[str, tuple[list[str], str]]:
    """The segments of a bar: label -> columns and color. Reading and tokenizing are one."""
    own = costs.own_phases(trials)
    reading = [name for name in own if name in ("load", "tokenize")]
    parts = {"load and tokenize": ([costs.PREFIX + name for name in reading], PALE)} if reading else {}
    rest = [name for name in own if name not in reading]
    labels = {name.replace("_", " "): [costs.PREFIX + name] for name in rest}
    labels |= {name: [name] for name in costs.ROLES.values()} | {"scoring": ["scoring"]}
    own_colors = (COLORS[0], *COLORS[6:], *COLORS[4:6])[: len(rest)]
    colors = (*own_colors, *COLORS[1:4])
    return parts | {label: (columns, color) for (label, columns), color in zip(labels.items(), colors, strict=True)}


def _stack(ax: Axes, y: int, key: Key, cells: Cells, parts: dict[str, tuple[list[str], str]]) -> None:
    left = 0.0
    for columns, color in parts.values():
        width = float(finished(cells[key])[columns].fillna(0.0).sum(axis=1).mean())
        ax.barh(y, width, left=left, color=color, height=0.72)
        left += width
    times = costs.ratio(cells, key, "stand_alone")
    label = f" {formatting.ratio(times)}" if key.method != BASELINE else f" {formatting.seconds(left)} s"
    ax.text(left, y, label, va="center", fontsize="small")


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
