"""What all figures share: colors, panels, and files that are the same for the same data."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.methods import methods
from harness.reports.grid import BASELINE, Key

INK = "#24292f"
GREY = "#6e7781"
PALE = "#d0d7de"
# Okabe and Ito's colors without the yellow, which is too pale on white, and two of Tol's
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": INK,
    "text.parse_math": False,
    "svg.hashsalt": "harness",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with a file name, a title, and a caption that also serves those who cannot see it."""

    name: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, the same bytes for the same data."""
        return self._rendered("svg", {"Date": None})

    def save(self, folder: Path) -> None:
        """Write ``name.svg`` and ``name.png``."""
        (folder / f"{self.name}.svg").write_bytes(self.svg)
        (folder / f"{self.name}.png").write_bytes(self._rendered("png", {}))

    def _rendered(self, kind: str, metadata: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.figure.savefig(buffer, format=kind, metadata=metadata, dpi=160)
        return buffer.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for the time of the block."""
    with mpl.rc_context(STYLE):
        yield


class Palette:
    """A color and a marker for each method, CE in grey; the same in every figure of every report.

    A method has the place of its name among all methods there are; one with other settings, or from elsewhere, the next
    free place. Methods of a report never share both color and marker.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        known = [name for name in methods.entries if name != BASELINE]
        others = [method for method in dict.fromkeys(key.method for key in keys) if method != BASELINE]
        self._place = {method: known.index(method) for method in others if method in known}
        for method in others:
            self._place.setdefault(method, max([len(known) - 1, *self._place.values()]) + 1)

    def color(self, method: str) -> str:
        """The method's color."""
        return GREY if method == BASELINE else COLORS[self._place[method] % len(COLORS)]

    def marker(self, method: str) -> str:
        """The method's marker; it changes more slowly than the color once those are used up."""
        place = self._place.get(method, 0)
        return MARKERS[(place + place // len(COLORS)) % len(MARKERS)]


def panels(
    count: int, width: float, height: float, columns: int = 3, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes of ``width`` × ``height`` inches, at most ``columns`` side by side."""
    across = min(count, columns)
    down = math.ceil(count / across)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(down, across, squeeze=False, sharey=share_y).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def heading(panel: tuple[str, str]) -> str:
    """The title of the panel of a benchmark and variant."""
    return ", ".join(part for part in panel if part)


def legend(axes: list[Axes]) -> None:
    """One legend for all panels, outside of them."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure = axes[0].figure
    figure.legend(entries.values(), entries.keys(), loc="outside right upper")
