"""Comparisons over all benchmarks of an experiment: methods against CE, and the last epoch against the best one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.metrics import PRIMARY
from harness.reports.grid import (
    BASELINE,
    COLUMNS,
    Cells,
    Key,
    at_largest_fraction,
    baseline_of,
    cells_of,
    finished,
    is_complete,
    pairs_of,
    requested,
)
from harness.reports.pooled_statistics import (
    Improvement,
    SignFlipTest,
    average_ranks,
    improvement,
    pool,
    sign_flip_test,
)
from harness.reports.resampling import ResampledScores
from harness.reports.results import Results
from harness.reports.statistics import Estimate, estimate, holm
from harness.seeds import generator

METRIC = PRIMARY.column("test")
#: The identity of a pooled row: a key without its benchmark.
EVERY = ""


@dataclass(frozen=True)
class Pooled:
    """A method of a source over several benchmarks.

    Attributes:
        key: its cells, without the benchmark.
        benchmarks: the benchmarks, each with complete cells of the method and of CE.
        mean: mean over benchmarks of the mean over seeds.
        rank: average rank among the methods of the source.
        pairs: pairs of trials in all benchmarks; 0 for CE itself.
        gain: over CE.
        rows_known: whether ``gain`` covers the variation between test rows, on every benchmark.
        improvement: probability that a trial is better than one of CE.
        p: of the sign-flip test, Holm-corrected over all methods and sources.
        smallest_p: the smallest that the test could give, before correction.
    """

    key: Key
    benchmarks: tuple[str, ...]
    mean: float
    rank: float
    pairs: int
    gain: Estimate
    rows_known: bool
    improvement: Improvement
    p: float
    smallest_p: float


@dataclass(frozen=True)
class EpochChoice:
    """Test scores at the last evaluation and at the one with the best validation accuracy, over benchmarks and seeds.

    Attributes:
        key: the cells, without the benchmark.
        n: trials.
        last: mean over benchmarks at the last evaluation.
        best: mean over benchmarks at the evaluation with the best validation accuracy.
        gain: of the best over the last, over seeds alone.
    """

    key: Key
    n: int
    last: float
    best: float
    gain: Estimate


def pooled(results: Results) -> list[Pooled]:
    """The methods of every source with at least two benchmarks on which CE and another method are complete.

    A source's benchmarks are those on which its CE is complete; methods that are incomplete on any of them are left
    out, so that all methods are ranked on the same benchmarks. Of several fractions, the largest counts.
    """
    cells = requested(results.trials)
    rows: list[Pooled] = []
    for methods, benchmarks in _groups(cells):
        rows += _compared(cells, methods, benchmarks, results.resampled)
    adjusted = holm([row.p for row in rows])
    return [replace(row, p=p) for row, p in zip(rows, adjusted, strict=True)]


def _groups(cells: Cells) -> list[tuple[list[Key], tuple[str, ...]]]:
    """The methods and the benchmarks of each source and variant."""
    complete = {key: None for key in at_largest_fraction(cells) if is_complete(cells[key])}
    keys = list(dict.fromkeys(key._replace(benchmark=EVERY) for key in complete))
    groups = []
    for base in (key for key in keys if key.method == BASELINE):
        benchmarks = tuple(key.benchmark for key in complete if key._replace(benchmark=EVERY) == base)
        methods = [
            key for key in keys
            if (key.source, key.variant) == (base.source, base.variant)
            and all(key._replace(benchmark=name) in complete for name in benchmarks)
        ]  # fmt: skip
        if len(benchmarks) > 1 and len(methods) > 1:
            groups.append((methods, benchmarks))
    return groups


def _compared(
    cells: Cells, methods: list[Key], benchmarks: tuple[str, ...], resampled: ResampledScores
) -> list[Pooled]:
    means = np.array([[float(cells[m._replace(benchmark=b)][METRIC].mean()) for b in benchmarks] for m in methods])
    ranks = average_ranks(means)
    rows = []
    for key, mean, rank in zip(methods, means.mean(axis=1), ranks, strict=True):
        if key.method == BASELINE:
            nothing, unknown = pool([]), float("nan")
            chance = Improvement(unknown, (unknown, unknown))
            rows.append(Pooled(key, benchmarks, mean, rank, 0, nothing, True, chance, unknown, unknown))
        else:
            rows.append(_against_baseline(cells, key, benchmarks, mean, rank, resampled))
    return rows


def _against_baseline(
    cells: Cells, key: Key, benchmarks: tuple[str, ...], mean: float, rank: float, resampled: ResampledScores
) -> Pooled:
    pairs = []
    for name in benchmarks:
        cell = key._replace(benchmark=name)
        base = baseline_of(cell, at_largest_fraction(cells))
        assert base is not None, "the source's benchmarks are those of CE"
        pairs.append(pairs_of(cells, cell, base, METRIC, resampled))
    differences = [pair.first - pair.second for pair in pairs]
    rows = [None if pair.resampled is None else pair.resampled[0] - pair.resampled[1] for pair in pairs]
    gain = pool([estimate(*each) for each in zip(differences, rows, strict=True)])
    count = sum(len(values) for values in differences)
    test, chance = SignFlipTest(float("nan"), float("nan")), Improvement(float("nan"), (float("nan"), float("nan")))
    if all(len(values) for values in differences):
        rng = generator(0, "pooled", *key)
        test = sign_flip_test(differences, rng)
        sides = [pair.first for pair in pairs], [pair.second for pair in pairs]
        chance = improvement(*sides, rng, [pair.resampled for pair in pairs])
    known = all(row is not None for row in rows)
    return Pooled(key, benchmarks, mean, rank, count, gain, known, chance, *test)


def epoch_choices(results: Results) -> list[EpochChoice]:
    """Every source and method whose trials have several evaluations, with validation accuracies."""
    epochs = results.epochs
    needed = {"validation_accuracy", METRIC, *COLUMNS}
    if not needed <= set(epochs.columns):
        return []
    done = finished(results.trials[results.trials["requested"].astype(bool)])["trial"]
    ordered = epochs[epochs["trial"].isin(done)].dropna(subset=["validation_accuracy", METRIC]).sort_values("epoch")
    if ordered.empty:
        return []
    by_trial = ordered.groupby(["trial", "variant"], sort=False)
    last = ordered.loc[by_trial.tail(1).index].set_index(["trial", "variant"])
    best = ordered.loc[by_trial["validation_accuracy"].idxmax()].set_index(["trial", "variant"])  # the first of ties
    frame = last.assign(best=best[METRIC], evaluations=by_trial.size()).reset_index()
    order = results.trials[["trial", "variant"]].drop_duplicates()
    frame = order.merge(frame[frame["evaluations"] > 1], on=["trial", "variant"])
    cells = cells_of(frame)
    choices = []
    for key in dict.fromkeys(cell._replace(benchmark=EVERY) for cell in cells):
        groups = [rows for cell, rows in cells.items() if cell._replace(benchmark=EVERY) == key]
        at_last, at_best = (float(np.mean([rows[column].mean() for rows in groups])) for column in (METRIC, "best"))
        gains = [(rows["best"] - rows[METRIC]).to_numpy(dtype=np.float64) for rows in groups]
        choices.append(EpochChoice(key, sum(map(len, groups)), at_last, at_best, pool([estimate(g) for g in gains])))
    return choices
