"""What a figure of the report is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from harness.reports.figures.style import Drawing, Palette
from harness.reports.results import Results


class ReportFigure(ABC):
    """A figure of the report. Adding one is one new file in this folder, or an entry point in ``harness.figures``.

    Attributes:
        name: unique; drawings are called by it, or begin with it.
        section: title of the section of the report that shows it; a new title is a new section.
        order: place within the section, the smallest first; equal ones by name.
    """

    name: ClassVar[str]
    section: ClassVar[str]
    order: ClassVar[int] = 0

    @abstractmethod
    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        """The drawings, in order; none if ``results`` lack the data for it."""
