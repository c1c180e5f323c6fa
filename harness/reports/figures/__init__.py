"""All figures of a report: plugin discovery of ``ReportFigure`` classes, one file a figure."""

from __future__ import annotations

from harness.registry import Registry
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.style import Drawing, Palette, style
from harness.reports.grid import requested
from harness.reports.results import Results

figures: Registry[ReportFigure] = Registry("figure", ReportFigure, "harness.reports.figures", "harness.figures")  # type: ignore[type-abstract]


def draw(results: Results) -> dict[str, list[Drawing]]:
    """The drawings by section of the report; sections without drawings are left out."""
    palette = Palette(key.method for key in requested(results.trials))
    sections: dict[str, list[Drawing]] = {}
    with style():
        for figure in sorted(figures.entries.values(), key=lambda figure: (figure.order, figure.name)):
            if drawings := figure().draw(results, palette):
                sections.setdefault(figure.section, []).extend(drawings)
    return sections


__all__ = ["Drawing", "Palette", "ReportFigure", "draw", "figures"]
