"""How often the 95 % intervals of a gain contain the true gain: simulated paired experiments with a known difference.

Two methods are trained with the same seeds and tested on the same rows. Whether a row is classified correctly depends
on four independent normal effects: of the row, of the row with the method, of the seed with the method, and of all
three. With the sizes below, two seeds of a method differ on about 10 % of the rows and two methods on about 20 %, as in
real trials. Seeds and rows are drawn anew in every experiment: the true difference is that over all seeds and all rows.

The intervals are of the accuracy of one benchmark, and of its mean over three benchmarks (``pooled``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import stats
from threadpoolctl import threadpool_limits

from harness.reports.pooled_statistics import pool
from harness.reports.resampling import DRAWS, row_counts
from harness.reports.statistics import Interval, estimate
from harness.seeds import generator

FloatArray = npt.NDArray[np.float64]

SEEDS = (3, 5, 10)
ROWS = (500, 1_000)
SPREADS = (0.005, 0.01, 0.02, 0.03)
#: Accuracy of the baseline, and the gain of the method.
ACCURACY, GAIN = 0.75, 0.02
#: Shares of the variance that come from the row, and from the row with the method.
ROW, ROW_AND_METHOD = 0.7, 0.2
BENCHMARKS = 3
TITLES = {
    "t": "t over seeds",
    "bootstrap": "bootstrap, seeds",
    "crossed_bootstrap": "bootstrap, seeds and rows",
    "hierarchical": "hierarchical",
    "pooled_bootstrap": "pooled: bootstrap, seeds",
    "pooled": "pooled: hierarchical",
}


def differences_of_rows(seeds: int, rows: int, spread: float, rng: np.random.Generator) -> FloatArray:
    """Method minus baseline, of every test row [seeds, rows]: 1, 0 or -1.

    Args:
        seeds: number of seeds.
        rows: number of test rows.
        spread: standard deviation over seeds of the difference of accuracies, on infinitely many rows.
        rng: draws all effects.
    """
    thresholds = stats.norm.ppf([ACCURACY, ACCURACY + GAIN])
    seed_sd = spread / np.sqrt((stats.norm.pdf(thresholds) ** 2).sum())
    rest = 1.0 - ROW - ROW_AND_METHOD - seed_sd**2
    latent = (
        thresholds[:, None, None]
        + rng.normal(0.0, np.sqrt(ROW), rows)
        + rng.normal(0.0, np.sqrt(ROW_AND_METHOD), (2, 1, rows))
        + rng.normal(0.0, seed_sd, (2, seeds, 1))
        + rng.normal(0.0, np.sqrt(rest), (2, seeds, rows))
    )
    correct: FloatArray = (latent > 0).astype(np.float64)
    difference: FloatArray = correct[1] - correct[0]
    return difference


def percentiles(means: FloatArray) -> Interval:
    """The 95 % percentile interval of resampled means."""
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def intervals(tables: list[FloatArray], counts: FloatArray, rng: np.random.Generator) -> Iterator[tuple[str, Interval]]:
    """Every interval of an experiment, by name.

    Args:
        tables: by benchmark, the differences of rows [seeds, rows].
        counts: resamples of the rows [draws, rows].
        rng: draws resamples of the seeds.
    """
    estimates, pooled_means = [], np.zeros(len(counts))
    for table in tables:
        seeds, rows = table.shape
        values = table.mean(axis=1)
        resampled = table.astype(np.float32) @ counts.T / rows
        picks = rng.integers(seeds, size=(seeds, len(counts)))
        means = values[picks].mean(axis=0)
        pooled_means += means / len(tables)
        estimates.append(estimate(values, resampled))
        yield "t", estimate(values).interval
        yield "bootstrap", percentiles(means)
        yield "crossed_bootstrap", percentiles(np.take_along_axis(resampled, picks, axis=0).mean(axis=0))
        yield "hierarchical", estimates[-1].interval
    yield "pooled_bootstrap", percentiles(pooled_means)
    yield "pooled", pool(estimates).interval


def simulate(seeds: int, rows: int, spread: float, repetitions: int) -> dict[str, Any]:
    """Coverage and mean width of every interval over ``repetitions`` experiments of three benchmarks each.

    An undefined interval (all seeds have the same difference) does not cover, and does not count in the width.
    """
    rng = generator(0, "coverage", seeds, rows, spread)
    counts = np.concatenate(list(row_counts(rows, DRAWS, rng)))
    observed: dict[str, list[Interval]] = {name: [] for name in TITLES}
    for _ in range(repetitions):
        tables = [differences_of_rows(seeds, rows, spread, rng) for _ in range(BENCHMARKS)]
        for name, interval in intervals(tables, counts, rng):
            observed[name].append(interval)
    facts: dict[str, Any] = {"seeds": seeds, "rows": rows, "sd_over_seeds_points": 100 * spread}
    for name, values in observed.items():
        low, high = np.array(values).T
        facts[name] = {
            "coverage_percent": round(100 * float(((low <= GAIN) & (high >= GAIN)).mean()), 1),
            "mean_width_points": round(100 * float(np.nanmean(high - low)), 2),
        }
    return facts


def main() -> None:
    """Simulates all combinations and prints a table: coverage in percent, mean width in points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400, help="experiments of each combination")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    start = time.perf_counter()
    settings = product(SEEDS, ROWS, SPREADS)
    with threadpool_limits(1):  # the matrices are small
        results = [simulate(seeds, rows, spread, args.repetitions) for seeds, rows, spread in settings]
    table = Table("seeds", "test rows", "sd over seeds", *TITLES.values())
    for facts in results:
        cells = [f"{facts[name]['coverage_percent']} ({facts[name]['mean_width_points']})" for name in TITLES]
        table.add_row(str(facts["seeds"]), str(facts["rows"]), f"{facts['sd_over_seeds_points']:g}", *cells)
    ranges = {}
    for name in TITLES:
        coverages = [facts[name]["coverage_percent"] for facts in results]
        ranges[name] = [min(coverages), max(coverages)]
    table.add_row("all", "", "", *(f"{low} to {high}" for low, high in ranges.values()))
    out = Console(width=170)
    out.print(table)
    out.print(f"{args.repetitions} experiments each, {time.perf_counter() - start:.0f} s")
    if args.json:
        content = {"repetitions": args.repetitions, "coverage_percent_ranges": ranges, "results": results}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
