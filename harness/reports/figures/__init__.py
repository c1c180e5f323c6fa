"""All figures of a report, found by being here: every module with a ``draw``.

A figure's module says its section of the report (``SECTION``), its place there (``ORDER``), and draws itself:
``draw(results, cells, palette)`` gives drawings, none without data.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from harness.reports.figures.style import Drawing, Palette, style
from harness.reports.grid import requested
from harness.reports.results import Results


@cache
def modules() -> dict[str, ModuleType]:
    """The figures by name, in the order of their places."""
    found = {info.name: importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)}
    figures = {name: module for name, module in found.items() if hasattr(module, "draw")}
    return dict(sorted(figures.items(), key=lambda item: (item[1].ORDER, item[0])))


def draw(results: Results) -> dict[str, list[Drawing]]:
    """The drawings by section of the report."""
    cells = requested(results.trials)
    palette = Palette(cells)
    out: dict[str, list[Drawing]] = {}
    with style():
        for module in modules().values():
            out.setdefault(module.SECTION, []).extend(module.draw(results, cells, palette))
    return out
