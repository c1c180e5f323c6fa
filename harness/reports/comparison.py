"""Compares the results of two experiments cell by cell: which got better, worse, faster or slower."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.metrics import Metric
from harness.reports.costs import with_costs
from harness.reports.grid import Cells, Key, by_seed, finished, in_order, requested
from harness.reports.resampling import ResampledScores
from harness.reports.statistics import FloatArray, Paired, Summary, holm, paired, summarize

#: A difference counts if its p value, corrected for all cells, is below this, and its interval excludes zero.
LEVEL = 0.05


@dataclass(frozen=True)
class CellComparison:
    """A cell of both experiments, the second against the first.

    Attributes:
        key: benchmark, source, method, share of real rows, variant.
        first: the metric over all finished seeds of the first experiment.
        second: the same of the second one.
        score: differences of the metric on shared seeds, second minus first; ``p`` corrected over all cells.
        seconds: mean stand-alone seconds on shared seeds of the first and the second; NaN if unknown.
        time: differences of the logarithm of stand-alone seconds on shared seeds; ``p`` corrected over all cells.
    """

    key: Key
    first: Summary
    second: Summary
    score: Paired
    seconds: tuple[float, float]
    time: Paired

    @property
    def outcome(self) -> str:
        """ "better", "worse", "same", "unclear", "untested" (no p) or "unpaired" (no shared seed).

        Unclear: p is too large, or the interval contains zero.
        """
        return _outcome(self.score, "worse", "better")

    @property
    def speed(self) -> str:
        """ "faster", "slower", or what ``outcome`` has for the other cases."""
        return _outcome(self.time, "faster", "slower")

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Geometric mean of second over first stand-alone seconds, and its 95 % interval."""
        mean, low, high = np.exp([self.time.mean, *self.time.interval])
        return float(mean), float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two experiments.

    Attributes:
        metric: the compared one, of the test split.
        cells: planned in both.
        only_first: cells that only the first experiment planned.
        only_second: cells that only the second one planned.
        devices: of the finished trials of the first and of the second, with their threads.
    """

    metric: Metric
    cells: tuple[CellComparison, ...]
    only_first: tuple[Key, ...]
    only_second: tuple[Key, ...]
    devices: tuple[tuple[str, ...], tuple[str, ...]]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values; an unknown number is None."""
        rows = [
            cell.key._asdict()
            | {name: asdict(value) for name, value in (("first", cell.first), ("second", cell.second))}
            | {"difference": asdict(cell.score), "outcome": cell.outcome}
            | {"seconds": cell.seconds, "time_ratio": cell.ratio[0], "time_interval": cell.ratio[1:]}
            | {"time_p": cell.time.p, "speed": cell.speed}
            for cell in self.cells
        ]
        plain: dict[str, Any] = _plain(
            {
                "metric": self.metric.column("test"), "cells": rows, "devices": self.devices,
                "only_first": [key._asdict() for key in self.only_first],
                "only_second": [key._asdict() for key in self.only_second],
            }
        )  # fmt: skip
        return plain


def compare_trials(
    first: pd.DataFrame, second: pd.DataFrame, metric: Metric, resampled: ResampledScores | None = None
) -> Comparison:
    """Compare two experiments by their trials, in a metric of the test split.

    Cells are paired by the seeds that finished in both. p values are those of the paired t test, corrected with Holm's
    method over all cells, scores and times apart.

    Args:
        first: see ``Results.trials``.
        second: the same of the other experiment.
        metric: the score.
        resampled: the scores of both on resampled test rows; without them, intervals are over seeds alone.
    """
    cells = with_costs(requested(first), first), with_costs(requested(second), second)
    shared = [key for key in in_order([*cells[0], *cells[1]]) if key in cells[0] and key in cells[1]]
    compared = [_compare(key, cells[0], cells[1], metric, resampled) for key in shared]
    scores, times = holm([cell.score.p for cell in compared]), holm([cell.time.p for cell in compared])
    corrected = [
        replace(cell, score=replace(cell.score, p=score), time=replace(cell.time, p=time))
        for cell, score, time in zip(compared, scores, times, strict=True)
    ]
    only = [tuple(key for key in mine if key not in other) for mine, other in (cells, cells[::-1])]
    return Comparison(metric, tuple(corrected), only[0], only[1], (_devices(first), _devices(second)))


def _compare(
    key: Key, first: Cells, second: Cells, metric: Metric, resampled: ResampledScores | None
) -> CellComparison:
    column = metric.column("test")
    before, after = by_seed(first[key], column), by_seed(second[key], column)
    seconds = _joined(by_seed(first[key], "stand_alone"), by_seed(second[key], "stand_alone"))
    seconds = seconds[(seconds > 0).all(axis=1)]
    means = seconds.mean()
    scores = _joined(before, after)
    rows = (
        None if resampled is None else _on_resampled_rows(key, (first, second), list(scores.index), column, resampled)
    )
    return CellComparison(
        key, summarize(before.to_numpy()), summarize(after.to_numpy()), _paired(scores, rows),
        (float(means.iloc[0]), float(means.iloc[1])), _paired(seconds.apply(np.log)),
    )  # fmt: skip


def _joined(first: pd.Series[float], second: pd.Series[float]) -> pd.DataFrame:
    return pd.concat([first, second], axis=1, join="inner", keys=["first", "second"])


def _on_resampled_rows(
    key: Key, sides: tuple[Cells, Cells], seeds: list[int], column: str, resampled: ResampledScores
) -> FloatArray | None:
    """The differences of a cell on resampled test rows [seeds, draws]; None where predictions are unknown."""
    scores = []
    for cells in sides:
        trials = finished(cells[key]).set_index("seed")["trial"]
        scores.append(resampled.of(key.benchmark, trials.loc[seeds].tolist(), column))
    before, after = scores
    return None if before is None or after is None else after - before


def _paired(values: pd.DataFrame, resampled: FloatArray | None = None) -> Paired:
    return paired(values["second"].to_numpy(), values["first"].to_numpy(), resampled)


def _outcome(pair: Paired, lower: str, higher: str) -> str:
    if not pair.n:
        return "unpaired"
    if pair.ties == pair.n:
        return "same"
    if math.isnan(pair.p):
        return "untested"
    if pair.p >= LEVEL or not pair.excludes_zero:
        return "unclear"
    return higher if pair.mean > 0 else lower


def _devices(trials: pd.DataFrame) -> tuple[str, ...]:
    done = finished(trials)
    if not {"device", "threads"} <= set(done):
        return ()
    names = {
        f"{device}, {threads:.0f} thread{'s' * (threads != 1)}"
        for device, threads in zip(done["device"], done["threads"], strict=True)
        if isinstance(device, str) and device and not math.isnan(threads)
    }
    return tuple(sorted(names))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
