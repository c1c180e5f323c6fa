"""A map of accuracy over the exponents (a, b) of the weight P'^a · p^b."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from harness.methods.gce import GceSettings
from harness.metrics import PRIMARY
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.style import COLORS, GREY, INK, Drawing, Palette, base_name, heading, panels
from harness.reports.grid import Cells, Key, at_largest_fraction, baseline_of, by_seed, panels_of, requested
from harness.reports.results import Results

TEST = PRIMARY.column("test")
#: Methods that are one point of the map.
POINTS = {"ce": (0.0, 0.0), "imp_quality": (1.0, 0.0), "dimp": (1.0, -1.0)}
WORSE, BETTER = COLORS[1], COLORS[0]

Exponents = tuple[float, float]


class PowersFigure(ReportFigure):
    """The gain over CE at every (a, b) that ran, with the largest share of real rows; a panel for each benchmark."""

    name = "powers"
    section = "Accuracy"
    order = 1

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        maps: dict[tuple[str, str], dict[Exponents, tuple[float, str]]] = {}
        for key in at_largest_fraction(cells):
            point, gain = exponents(key.method), _mean_gain(key, cells)
            if point is not None and gain is not None and results.role(key.source) == "generated":
                maps.setdefault((key.benchmark, key.variant), {}).setdefault(point, (gain, key.method))
        maps = {panel: maps[panel] for panel in panels_of(cells) if _is_map(maps.get(panel, {}))}
        if not maps:
            return []
        a, b = (sorted({point[axis] for points in maps.values() for point in points}) for axis in (0, 1))
        figure, axes = panels(len(maps), 1.2 + 0.85 * len(a), 1.0 + 0.62 * len(b))
        largest = max(abs(gain) for points in maps.values() for gain, _ in points.values()) or 1.0
        for ax, (panel, points) in zip(axes, maps.items(), strict=True):
            for (x, y), (gain, method) in points.items():
                _draw_cell(ax, a.index(x), b.index(y), gain, largest, method)
            ax.set(
                title=heading(panel), xlabel="a, exponent of P'", xlim=(-0.5, len(a) - 0.5), ylim=(-0.5, len(b) - 0.5)
            )
            ax.set_xticks(range(len(a)), [_signed(f"{value:g}") for value in a])
            ax.set_yticks(range(len(b)), [_signed(f"{value:g}") for value in b])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        axes[0].set_ylabel("b, exponent of p")
        caption = (
            f"Mean gain over CE in points of test {PRIMARY.title}, on the same seeds, with the weight P'^a · p^b; P' "
            "is the quality checker's probability of the given label, p that of the model in training. Blue: better "
            "than CE, orange: worse; the stronger, the more."
        )
        return [Drawing("powers", "The map of weights P'^a · p^b", caption, figure)]


def exponents(method: str) -> Exponents | None:
    """(a, b) of a method by its label; None if its weight is of another form. ``gce`` with q is (0, q)."""
    settings = {name: float(value) for name, value in re.findall(r"(\w+)=(-?[\d.]+(?:e-?\d+)?)", method)}
    if method in POINTS:
        return POINTS[method]
    if base_name(method) == "gce":
        return 0.0, settings.get("q", GceSettings().q)
    if base_name(method) == "power" and settings.keys() <= {"a", "b"}:
        return settings.get("a", 0.0), settings.get("b", 0.0)
    return None


def _is_map(points: dict[Exponents, tuple[float, str]]) -> bool:
    """Whether there is a point that only ``power`` reaches."""
    return any(base_name(method) == "power" for _, method in points.values())


def _mean_gain(key: Key, cells: Cells) -> float | None:
    """In points, on the seeds that both have."""
    base = baseline_of(key, cells)
    if base is None:
        return None
    differences = (by_seed(cells[key], TEST) - by_seed(cells[base], TEST)).dropna()
    return 100 * float(differences.mean()) if len(differences) else None


def _draw_cell(ax: Axes, x: int, y: int, gain: float, largest: float, method: str) -> None:
    color = BETTER if gain > 0 else WORSE if gain < 0 else GREY
    strength = float(np.clip(abs(gain) / largest, 0.0, 1.0))
    ax.add_patch(
        Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=color, alpha=0.08 + 0.52 * strength, linewidth=0)
    )
    ax.text(x, y + 0.08, _signed(f"{gain:+.1f}"), ha="center", va="center", color=INK)
    if base_name(method) != "power":
        ax.text(x, y - 0.28, method, ha="center", va="center", color=GREY, fontsize="small")


def _signed(number: str) -> str:
    """With a minus sign in place of a hyphen."""
    return number.replace("-", "−")
