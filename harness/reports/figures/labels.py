"""Labels of points that overlap neither each other nor the points and lines of their panel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from harness.reports.figures.style import GREY

#: Half the side of the square around a point that labels keep free, in points of 1/72 inch.
CLEARANCE = 4.0
#: Distances of a label's nearest edge from its point that are tried, in points; beyond ``NEAR`` a line leads to it.
DISTANCES = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0)
NEAR = 9.0
DIRECTIONS = tuple(math.radians(angle) for angle in (0, 180, 90, 270, 45, 315, 135, 225, *range(15, 360, 30)))
#: Penalties of a place; a place without any is free.
OVER_LABEL, OVER_POINT, OVER_LINE, LEADER_OVER_LABEL, PER_DISTANCE = 100.0, 30.0, 3.0, 10.0, 0.1

Point = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """The text of a point; ``x`` and ``y`` are in the units of the axes."""

    x: float
    y: float
    text: str
    color: str
    bold: bool = False


def place_labels(ax: Axes, labels: Sequence[Label], lines: Sequence[tuple[Point, Point]] = ()) -> None:
    """Write ``labels`` at free places near their points, inside the axes.

    The layout must be settled: call ``figure.draw_without_rendering()`` once before, when all else is drawn. A label
    without any free place is written where it covers the least.

    Args:
        ax: with its final limits.
        labels: in order of importance: the first ones choose first.
        lines: segments to keep free, in the units of the axes.
    """
    figure = ax.figure
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    scale = figure.dpi / 72
    points = [_pixels(ax, (label.x, label.y)) for label in labels]
    side = 2 * CLEARANCE * scale
    segments = [Path([_pixels(ax, start), _pixels(ax, end)]) for start, end in lines]
    panel = _Panel(scale, ax.get_window_extent(), [_around(point, side, side) for point in points], segments)
    for label, point in zip(labels, points, strict=True):
        weight = "bold" if label.bold else "normal"
        text = ax.text(label.x, label.y, label.text, fontsize="small", fontweight=weight)
        extent = text.get_window_extent(canvas.get_renderer())  # type: ignore[no-untyped-call]
        text.remove()
        center, distance = panel.place(point, (extent.width + 2 * scale, extent.height + scale))
        arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": CLEARANCE}
        annotation = ax.annotate(
            label.text, (label.x, label.y), ((center[0] - point[0]) / scale, (center[1] - point[1]) / scale),
            textcoords="offset points", ha="center", va="center", fontsize="small", fontweight=weight,
            color=label.color, arrowprops=arrow if distance > NEAR else None,
        )  # fmt: skip
        annotation.set_in_layout(False)  # the layout is settled


@dataclass
class _Panel:
    """What is in a panel already, in pixels."""

    scale: float
    frame: Bbox
    points: list[Bbox]
    lines: list[Path]
    labels: list[Bbox] = field(default_factory=list)

    def place(self, point: Point, size: Point) -> tuple[Point, float]:
        """Takes the place with the smallest penalty; its center, and its distance from the point."""
        center, distance, least = point, 0.0, math.inf
        for place, reach in _places(point, size, self.scale):
            if least <= PER_DISTANCE * reach:
                break  # a farther place has a larger penalty
            if self._is_inside(_around(place, *size)) and (penalty := self._penalty(point, size, place, reach)) < least:
                center, distance, least = place, reach, penalty
        self.labels.append(_around(center, *size))
        if distance > NEAR:
            self.lines.append(Path([point, center]))
        return center, distance

    def _is_inside(self, box: Bbox) -> bool:
        frame = self.frame
        return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)

    def _penalty(self, point: Point, size: Point, center: Point, distance: float) -> float:
        box = _around(center, *size)
        penalty = OVER_LABEL * sum(box.overlaps(other) for other in self.labels)
        penalty += OVER_POINT * sum(box.overlaps(other) for other in self.points)
        penalty += OVER_LINE * sum(_crossings(line, [box]) for line in self.lines)
        if distance > NEAR:
            leader = Path([point, center])
            penalty += LEADER_OVER_LABEL * _crossings(leader, self.labels)
            penalty += OVER_LINE * _crossings(leader, [box for box in self.points if not box.contains(*point)])
        return float(penalty + PER_DISTANCE * distance)


def _places(point: Point, size: Point, scale: float) -> Iterator[tuple[Point, float]]:
    """Centers to try, the nearest first, with their distance."""
    for distance, angle in itertools.product(DISTANCES, DIRECTIONS):
        x, y = math.cos(angle), math.sin(angle)
        reach_x, reach_y = size[0] / 2 + distance * scale, size[1] / 2 + distance * scale
        yield (point[0] + x * reach_x, point[1] + y * reach_y), distance


def _crossings(line: Path, boxes: Sequence[Bbox]) -> int:
    return sum(bool(line.intersects_bbox(box, filled=False)) for box in boxes)


def _around(center: Point, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(center[0] - width / 2, center[1] - height / 2, width, height)


def _pixels(ax: Axes, point: Point) -> Point:
    x, y = ax.transData.transform(point)
    return float(x), float(y)
