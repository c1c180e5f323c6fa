"""What all figures share: colors, panels, and files that are the same for the same data."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.methods import methods
from harness.reports.grid import BASELINE

INK = "#24292f"
GREY = "#6e7781"
PALE = "#d0d7de"
# Okabe and Ito's colors without the yellow, which is too pale on white, then some of Tol's and three others
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933",
    "#332288", "#117733", "#AA4499", "#661100", "#44AA99", "#FF6F61", "#5D6D1E", "#B8860B",
)  # fmt: skip
#: What replaces a color where the reader prefers a dark page: lighter tones of the same hue.
DARK_PAGE = "#0d1117"
DARK = {
    "#ffffff": DARK_PAGE, INK: "#e6edf3", GREY: "#9198a1", PALE: "#3d444d",
    **dict(zip(COLORS, (
        "#4aa3df", "#f0803c", "#2bc48f", "#e39cc3", "#f2b632", "#7cc7f2", "#d1649b", "#c2c25a",
        "#8f86e8", "#4fb36c", "#d16fc4", "#d9755f", "#5fcfbe", "#ff8f82", "#a3b84f", "#dba62e",
    ), strict=True)),
}  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d", "8", "H")
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
    """A drawn figure: file name, title, and a caption that also serves as alternative text."""

    name: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, the same bytes for the same data; a browser shows it dark on a dark page."""
        return with_dark_colors(self._rendered("svg", {"Date": None}))

    def files(self) -> dict[str, bytes]:
        """``name.svg`` and ``name.png``."""
        return {f"{self.name}.svg": self.svg, f"{self.name}.png": self._rendered("png", {})}

    def _rendered(self, kind: str, metadata: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.figure.savefig(buffer, format=kind, metadata=metadata, dpi=160)
        return buffer.getvalue()


def with_dark_colors(svg: bytes) -> bytes:
    """``svg`` with a style sheet that replaces its colors (see ``DARK``) for readers who prefer dark pages.

    The colors stay as they are in programs that read no style sheets, such as image converters.
    """
    used = [light for light in DARK if light.lower().encode() in svg]
    rules = [
        f'[style*="{name}: {light.lower()}"] {{ {name}: {DARK[light]} !important }}\n'
        for light in used
        for name in ("fill", "stroke")
    ]
    sheet = f"<style>@media (prefers-color-scheme: dark) {{\n{''.join(rules)}}}</style>\n"
    head, defs, rest = svg.partition(b"<defs>\n")
    return head + defs + sheet.encode() + rest


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all figures inside the block."""
    with mpl.rc_context(STYLE):
        yield


class Palette:
    """A color and a marker for each method of a report; CE is grey.

    The color depends on the base name alone, the part of a label before its settings: ``imp(clip=5.0)`` has the color
    of ``imp``. A registered method takes the color at its place among all registered methods, sorted by name; any other
    name takes one by its checksum. So a method has the same color in every figure of every report that this
    installation writes, whatever else the report shows. Methods that share a color differ in their marker: first come
    registered methods with their own marker, then other labels, sorted, each with the next free one.

    Args:
        labels: display labels of all methods of the report, in any order.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._known = [name for name in methods.entries if name != BASELINE]
        self._markers: dict[str, str] = {}
        others = sorted(set(labels) - {BASELINE}, key=lambda label: (label not in self._known, label))
        used: set[tuple[str, str]] = set()
        for label in others:
            color, first = self.color(label), self._place(label) + self._place(label) // len(COLORS)
            candidates = [MARKERS[(first + i) % len(MARKERS)] for i in range(len(MARKERS))]
            # with more labels than looks, the numbered marker stays unique
            free = (marker for marker in candidates if (color, marker) not in used)
            self._markers[label] = next(free, f"${len(self._markers)}$")
            used.add((color, self._markers[label]))

    def color(self, label: str) -> str:
        """The color of a method by its label."""
        return GREY if base_name(label) == BASELINE else COLORS[self._place(label) % len(COLORS)]

    def marker(self, label: str) -> str:
        """The marker of a method of this report."""
        return self._markers.get(label, MARKERS[0])

    def _place(self, label: str) -> int:
        name = base_name(label)
        return self._known.index(name) if name in self._known else zlib.crc32(name.encode()) % len(COLORS)


def base_name(label: str) -> str:
    """The method's name without its settings: ``imp`` of ``imp(clip=5.0)``."""
    return label.partition("(")[0].strip()


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
