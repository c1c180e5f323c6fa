"""The grid of a report. A cell holds the trials that differ only in their seed; cells are ordered and compared here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from harness.config.sources import SOURCES
from harness.reports.resampling import ResampledScores
from harness.reports.statistics import FloatArray, Paired, holm, near_best, paired, summarize

BASELINE = "ce"
COLUMNS = ["benchmark", "source", "method", "fraction", "variant"]


class Key(NamedTuple):
    """Identifies a cell. ``fraction`` is None if the cell does not depend on it."""

    benchmark: str
    source: str
    method: str
    fraction: float | None
    variant: str


Cells = dict[Key, pd.DataFrame]


def cells_of(frame: pd.DataFrame) -> Cells:
    """The rows of ``frame`` by cell.

    Benchmarks, variants and methods keep the frame's order, sources that of the configuration; fractions are ascending.
    """
    if frame.empty:
        return {}
    cells: Cells = {}
    for names, rows in frame.groupby(COLUMNS, dropna=False, sort=False):
        benchmark, source, method, fraction, variant = cast("tuple[str, str, str, float, str]", names)
        cells[Key(benchmark, source, method, None if math.isnan(fraction) else fraction, variant)] = rows
    return {key: cells[key] for key in in_order(cells)}


def in_order(keys: Iterable[Key]) -> list[Key]:
    """Distinct ``keys`` by benchmark, variant, source, method, fraction, each axis in the order explained above."""
    distinct = list(dict.fromkeys(keys))
    benchmarks, methods, variants = (list(dict.fromkeys(key[axis] for key in distinct)) for axis in (0, 2, 4))
    sources = [*SOURCES, *(key.source for key in distinct)]
    return sorted(
        distinct,
        key=lambda key: (
            benchmarks.index(key.benchmark),
            variants.index(key.variant),
            sources.index(key.source),
            methods.index(key.method),
            key.fraction or 0.0,
        ),
    )


def requested(trials: pd.DataFrame) -> Cells:
    """The requested cells, without trials that are planned only as checkers."""
    return cells_of(trials[trials["requested"].astype(bool)])


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """The finished trials of ``rows``."""
    return rows[rows["status"] == "finished"]


def by_seed(rows: pd.DataFrame, column: str) -> pd.Series[float]:
    """The known values of ``column`` in finished trials, indexed by seed, in ascending order."""
    done = finished(rows)
    series = pd.Series(done[column].to_numpy(dtype=np.float64), index=done["seed"].to_numpy(dtype=np.int64))
    return series.dropna().sort_index()


def is_complete(rows: pd.DataFrame) -> bool:
    """Whether every planned trial of a cell has finished."""
    return bool((rows["status"] == "finished").all())


def baseline_of(key: Key, cells: Iterable[Key], method: str = BASELINE) -> Key | None:
    """The cell of ``method`` to compare ``key`` with: the same benchmark, source and variant.

    Among several fractions: the same one, else a cell that does not depend on it, else the largest.
    """
    target = key._replace(method=method, fraction=None)
    candidates = [other for other in cells if other._replace(fraction=None) == target]
    return max(
        candidates,
        key=lambda other: (other.fraction == key.fraction, other.fraction is None, other.fraction or 0.0),
        default=None,
    )


def at_largest_fraction(cells: Iterable[Key]) -> list[Key]:
    """Of the cells that differ only in their fraction, the one with the largest; order kept."""
    best: dict[Key, Key] = {}
    for key in cells:
        group = key._replace(fraction=None)
        if group not in best or (key.fraction or 0.0) >= (best[group].fraction or 0.0):
            best[group] = key
    return list(best.values())


def bold_cells(cells: Cells, metric: str) -> set[Key]:
    """The complete cells within the margin of the best complete one of their benchmark, source and variant.

    A cell that depends on the fraction is compared with its own fraction and with cells that do not depend on it.
    """
    means = {key: summarize(by_seed(rows, metric).to_numpy()).mean for key, rows in cells.items() if is_complete(rows)}
    bold = set()
    for key in means:
        rivals = [other for other in means if _comparable(key, other) and other != key]
        if near_best([means[key], *(means[other] for other in rivals)])[0]:
            bold.add(key)
    return bold


class Pairs(NamedTuple):
    """The values of two cells on the seeds that finished in both, in ascending order of seeds.

    Attributes:
        first: values of the first cell [n].
        second: values of the second cell [n].
        resampled: both on resampled test rows, each [n, draws]; None if predictions are unknown.
    """

    first: FloatArray
    second: FloatArray
    resampled: tuple[FloatArray, FloatArray] | None


def pairs_of(cells: Cells, first: Key, second: Key, metric: str, resampled: ResampledScores | None = None) -> Pairs:
    """The values of ``first`` and ``second``, paired by the seeds that finished in both."""
    joined = pd.concat([by_seed(cells[first], metric), by_seed(cells[second], metric)], axis=1, join="inner")
    values = [joined.iloc[:, side].to_numpy() for side in (0, 1)]
    if resampled is None or joined.empty:
        return Pairs(values[0], values[1], None)
    rows = []
    for key in (first, second):
        trials = finished(cells[key]).set_index("seed")["trial"]
        rows.append(resampled.of(key.benchmark, trials.loc[joined.index].tolist(), metric))
    known = [row for row in rows if row is not None]
    return Pairs(values[0], values[1], (known[0], known[1]) if len(known) == 2 else None)


def compare(cells: Cells, first: Key, second: Key, metric: str, resampled: ResampledScores | None = None) -> Paired:
    """``first`` against ``second``, paired by the seeds that finished in both.

    Args:
        cells: contain both.
        first: the method.
        second: what it is compared with.
        metric: a column of results.
        resampled: the scores on resampled test rows; without them, the hierarchical interval is over seeds alone.
    """
    pairs = pairs_of(cells, first, second, metric, resampled)
    rows = None if pairs.resampled is None else pairs.resampled[0] - pairs.resampled[1]
    return paired(pairs.first, pairs.second, rows)


def differences(cells: Cells, metric: str, resampled: ResampledScores | None = None) -> dict[Key, Paired]:
    """Every cell against CE of its benchmark, source and variant; ``p`` Holm-corrected over all of them."""
    pairs = {}
    for key in cells:
        base = baseline_of(key, cells)
        if base is not None and key.method != BASELINE:
            pairs[key] = compare(cells, key, base, metric, resampled)
    adjusted = holm([pair.p for pair in pairs.values()])
    return {key: replace(pair, p=p) for (key, pair), p in zip(pairs.items(), adjusted, strict=True)}


def with_corruption(weights: pd.DataFrame) -> pd.DataFrame:
    """``weights`` with a complete column ``corruption``: "" for a clean row, as are all rows if it was not recorded."""
    if "corruption" not in weights:
        return weights.assign(corruption="")
    return weights.assign(corruption=weights["corruption"].fillna(""))


def _comparable(first: Key, second: Key) -> bool:
    same = (first.benchmark, first.source, first.variant) == (second.benchmark, second.source, second.variant)
    return same and (first.fraction == second.fraction or first.fraction is None or second.fraction is None)


def panels_of(cells: Iterable[Key]) -> list[tuple[str, str]]:
    """The (benchmark, variant) pairs, each once, in order."""
    return list(dict.fromkeys((key.benchmark, key.variant) for key in cells))
