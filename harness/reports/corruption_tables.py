"""Scores of both checkers and the resulting weights, by kind of corruption (the paper's Figures 4 and 5)."""

from __future__ import annotations

import pandas as pd

from harness.data.corruptions import KINDS
from harness.reports import formatting
from harness.reports.grid import Cells, at_largest_fraction, cells_of, with_corruption
from harness.reports.results import Results
from harness.reports.tables import NAMES, Table, names, table

#: Column -> its name in tables and figures.
COLUMNS = {"quality": "quality score P'", "diversity": "diversity score Q'", "weight": "weight"}


def scored_cells(results: Results) -> Cells:
    """Weighed rows of cells with corrupted rows and scores of both checkers, at the largest share of real rows."""
    weights = with_corruption(results.weights)
    if not {"quality", "diversity"} <= set(weights.columns):
        return {}
    cells = cells_of(weights.dropna(subset=["quality", "diversity", "weight"]))
    cells = {key: rows for key, rows in cells.items() if rows["corruption"].nunique() > 1}
    return {key: cells[key] for key in at_largest_fraction(cells)}


def kinds_of(cells: Cells) -> list[str]:
    """The kinds of rows in some cells, clean ones ("") first, then in the order in which corruptions are applied."""
    present = {str(kind) for rows in cells.values() for kind in rows["corruption"].unique()}
    return [kind for kind in ("", *KINDS, *sorted(present - {"", *KINDS})) if kind in present]


def corruption_scores(results: Results) -> Table:
    """Means of both scores and of the weight, for clean rows and each kind of corruption."""
    cells = scored_cells(results)
    rows = []
    for key, frame in cells.items():
        for kind in kinds_of({key: frame}):
            part = frame[frame["corruption"] == kind]
            by_seed = part.groupby("seed")[list(COLUMNS)].mean()
            ids, seeds = part["id"].nunique(), len(by_seed)
            rows.append(
                [key.benchmark, *names(key), kind or "clean", str(ids), str(seeds), *map(_spread, by_seed.items())]
            )
    note = (
        "Probability of the given label according to the quality checker and to the diversity checker, and the weight "
        "of the last epoch: mean over the rows of a kind, ± standard deviation of this mean over seeds. Swapped: two "
        "rows of different classes exchanged their labels. Unrelated: the text of another row, drawn without regard to "
        "labels. Duplicate: the added copies."
    )
    columns = ["benchmark", *NAMES, "rows are", "rows", "n", *COLUMNS.values()]
    return table("Scores and weights by kind of row", columns, rows, 2 + len(NAMES), note)


def _spread(column: tuple[object, pd.Series[float]]) -> str:
    values = column[1]
    return f"{formatting.number(values.mean(), 3)} ± {formatting.number(values.std(), 3)}"
