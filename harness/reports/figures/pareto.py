"""Accuracy against cost, with the Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from harness.metrics import PRIMARY
from harness.reports import costs
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.labels import Label, place_labels
from harness.reports.figures.style import GREY, INK, MARKERS, Drawing, Palette, heading, panels
from harness.reports.grid import Cells, Key, at_largest_fraction, by_seed, panels_of, requested
from harness.reports.results import Results

TEST = PRIMARY.column("test")
#: From this ratio of the largest to the smallest cost, the axis is logarithmic.
LOG_FROM = 4.0


@dataclass(frozen=True)
class Point:
    """A cell: its mean cost on both accounts, in seconds, and its mean score in percent."""

    key: Key
    alone: float
    marginal: float
    score: float


class ParetoFigure(ReportFigure):
    """The primary metric on the test split against stand-alone seconds, a panel for each benchmark and variant."""

    name = "pareto"
    section = "Cost"
    order = -1

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        shown = {key: cells[key] for key in at_largest_fraction(cells)}
        points = _points(costs.with_costs(shown, results.trials))
        if not points:
            return []
        where = panels_of(point.key for point in points)
        sources = list(dict.fromkeys(point.key.source for point in points))
        groups = [[point for point in points if panels_of([point.key]) == [panel]] for panel in where]
        crowd = max(map(len, groups))
        figure, axes = panels(len(where), 5.2, 3.8 + 0.05 * max(0, crowd - 12), columns=2)
        for ax, panel, group in zip(axes, where, groups, strict=True):
            _draw_points(ax, group, sources, palette)
            ax.set(title=heading(panel), xlabel="seconds of a trial, stand-alone", ylabel=f"test {PRIMARY.title}, %")
        handles = [_sample(MARKERS[i], source) for i, source in enumerate(sources)]
        handles.append(Line2D([], [], color=INK, linewidth=1, label="Pareto front"))
        columns = min(len(handles), 4 * len(axes))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        figure.draw_without_rendering()
        for ax, group in zip(axes, groups, strict=True):
            _label_points(ax, group, palette)
        caption = (
            f"Mean test {PRIMARY.title} against the mean cost of a trial with its checkers charged to it, at the "
            "largest share of real rows. The color is that of the method, the marker that of the source. The line to "
            "the left of a point ends at its marginal cost, where the grid shares the checkers. Pareto front (bold "
            "labels): no other cell has both a higher mean and a lower stand-alone cost. The front is one of means: "
            "see the gains for which differences exceed the variation between seeds. The vertical axis does not start "
            "at zero."
        )
        return [Drawing("pareto", f"{PRIMARY.title.capitalize()} against cost", caption, figure)]


def _points(cells: Cells) -> list[Point]:
    """The cells whose score and stand-alone cost are known."""
    points = []
    for key, rows in cells.items():
        score, alone, marginal = (by_seed(rows, column).mean() for column in (TEST, "stand_alone", "marginal"))
        if not math.isnan(score) and alone > 0:
            points.append(Point(key, float(alone), float(marginal), 100 * float(score)))
    return points


def _front(points: list[Point]) -> list[Point]:
    chosen = costs.pareto_front([point.alone for point in points], [point.score for point in points])
    return [points[i] for i in chosen]


def _draw_points(ax: Axes, points: list[Point], sources: list[str], palette: Palette) -> None:
    for point in points:
        color = palette.color(point.key.method)
        if not math.isnan(point.marginal):
            ax.plot([point.marginal, point.alone], [point.score] * 2, color=color, linewidth=1, alpha=0.45)
        marker = MARKERS[sources.index(point.key.source) % len(MARKERS)]
        ax.plot(point.alone, point.score, marker, color=color, markersize=6, markeredgewidth=0, zorder=3)
    front = _front(points)
    ax.step([p.alone for p in front], [p.score for p in front], where="post", color=INK, linewidth=1, zorder=1)
    shown = [cost for p in points for cost in (p.alone, p.marginal) if cost > 0]
    low, high = min(shown), max(shown)
    if high / low >= LOG_FROM:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        margin = (high / low) ** 0.12
        ax.set_xlim(low / margin, high * margin)
    else:
        ax.set_xlim(0, high * 1.15)
    scores = [p.score for p in points]
    room = max(0.14 * (max(scores) - min(scores)), 0.5)
    ax.set_ylim(min(scores) - room, max(scores) + room)
    ax.grid()


def _label_points(ax: Axes, points: list[Point], palette: Palette) -> None:
    front = _front(points)
    order = sorted(points, key=lambda point: point not in front)
    labels = [Label(p.alone, p.score, p.key.method, palette.color(p.key.method), p in front) for p in order]
    lines = [((p.marginal, p.score), (p.alone, p.score)) for p in points if not math.isnan(p.marginal)]
    for a, b in pairwise(front):
        lines += [((a.alone, a.score), (b.alone, a.score)), ((b.alone, a.score), (b.alone, b.score))]
    place_labels(ax, labels, lines)


def _sample(marker: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=GREY, markersize=6, markeredgewidth=0, label=label)
