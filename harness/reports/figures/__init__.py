"""All figures of a report."""

from __future__ import annotations

from harness.reports.figures import bars, curves
from harness.reports.figures.style import Drawing, Palette, style
from harness.reports.grid import requested
from harness.reports.results import Results


def draw(results: Results) -> dict[str, list[Drawing]]:
    """The drawings by subject: accuracy, dynamics, fractions, cost, weights. Without data there are none."""
    cells = requested(results.trials)
    palette = Palette(cells)
    with style():
        return {
            "accuracy": bars.accuracy(cells, palette),
            "dynamics": curves.dynamics(results, palette),
            "fractions": curves.fractions(results, cells, palette),
            "cost": bars.cost(results, cells),
            "weights": [*bars.weights(results, palette), *bars.corrupted(results, palette)],
        }
