"""Cost by phase: a row for each source and method."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from harness.phases import Phase
from harness.reports import costs, formatting
from harness.reports.figures.base import ReportFigure
from harness.reports.figures.rows import label_rows, rows_of
from harness.reports.figures.style import COLORS, PALE, Drawing, Palette, heading, panels
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    by_seed,
    finished,
    panels_of,
    requested,
)
from harness.reports.results import Results

PHASE_COLORS = {
    Phase.TRAIN: COLORS[0],
    Phase.OUTER_ROUNDS: COLORS[4],
    Phase.META_GRADIENT: COLORS[6],
    Phase.CLASSIFY: COLORS[5],
    Phase.EMBED: COLORS[7],
}


class CostFigure(ReportFigure):
    """Stand-alone seconds by phase, stacked, at the largest share of real rows."""

    name = "cost"
    section = "Cost"

    def draw(self, results: Results, palette: Palette) -> list[Drawing]:
        cells = requested(results.trials)
        charged = costs.with_costs(cells, results.trials)
        shown = {key: charged[key] for key in at_largest_fraction(cells) if len(by_seed(charged[key], "stand_alone"))}
        if not shown:
            return []
        parts = _parts(results.trials)
        rows = rows_of(shown)
        where = panels_of(shown)
        figure, axes = panels(len(where), 4.6, 0.9 + 0.25 * len(rows), share_y=True)
        for ax, (benchmark, variant) in zip(axes, where, strict=True):
            for y, row in enumerate(rows):
                key = row._replace(benchmark=benchmark, variant=variant) if isinstance(row, Key) else None
                if key in shown and key is not None:
                    _draw_stack(ax, y, key, shown, parts)
            ax.set(title=heading((benchmark, variant)), xlabel="seconds, stand-alone")
            ax.set_xlim(0, ax.get_xlim()[1] * 1.12)
            ax.grid(axis="x")
            label_rows(ax, rows, set())
        handles = [Patch(color=color, label=label) for label, (_, color) in parts.items()]
        columns = min(len(handles), max(2, int(figure.get_figwidth() / 2.3)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        caption = (
            "Mean seconds of a trial with each of its checkers and their scoring charged to it, as if nothing else "
            "were run, without evaluation and device warm-up. Beside the bar: the ratio to the cost of CE on the same "
            "source."
        )
        return [Drawing("cost", "Cost by phase", caption, figure)]


def _parts(trials: pd.DataFrame) -> dict[str, tuple[list[str], str]]:
    """The segments of a bar: label -> columns and color. Loading and tokenizing share one."""
    own = costs.own_phases(trials)
    loading = [phase for phase in own if phase in (Phase.LOAD, Phase.TOKENIZE)]
    parts = {"load and tokenize": ([phase.key for phase in loading], PALE)} if loading else {}
    parts |= {phase.label: ([phase.key], PHASE_COLORS[phase]) for phase in own if phase not in loading}
    shared = (*costs.CHECKERS.values(), "scoring")
    return parts | {name: ([name], color) for name, color in zip(shared, COLORS[1:4], strict=True)}


def _draw_stack(ax: Axes, y: int, key: Key, cells: Cells, parts: dict[str, tuple[list[str], str]]) -> None:
    left = 0.0
    for columns, color in parts.values():
        width = float(finished(cells[key])[columns].fillna(0.0).sum(axis=1).mean())
        ax.barh(y, width, left=left, color=color, height=0.72)
        left += width
    times = costs.ratio(cells, key, "stand_alone")
    label = f" {formatting.ratio(times)}" if key.method != BASELINE else f" {formatting.seconds(left)} s"
    ax.text(left, y, label, va="center", fontsize="small")
