"""What the numbers say, in sentences computed from them, with the doubts that they leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.reports import costs, formatting
from harness.reports.grid import (
    BASELINE,
    Cells,
    Key,
    at_largest_fraction,
    baseline_of,
    by_seed,
    compare,
    differences,
    is_complete,
    panels_of,
    requested,
)
from harness.reports.results import Results
from harness.reports.statistics import Paired, summarize

METRIC = "test_accuracy"
FEW = 5
#: What a reading is about: the first of these sources that is there, and what its rows are called.
SUBJECTS = {"generated": "generated rows", "noisy": "noisy rows", "real_large": "the large real set"}
#: Simple ways that a weighting has to beat: (source, method) -> what it uses. None is the weighting's own source.
CONTROLS = {
    (None, "prior"): "prior (label shares alone)",
    (None, "imp_quality"): "imp_quality (the quality score alone)",
    ("both", BASELINE): "CE on real and generated rows together",
    ("real_small", BASELINE): "CE on the few real rows alone",
}


@dataclass(frozen=True)
class Reading:
    """A few sentences about one benchmark (and variant)."""

    subject: str
    sentences: tuple[str, ...]


def read(results: Results) -> list[Reading]:
    """What each benchmark says about its generated source, or without one about its noisy or large real one."""
    cells = requested(results.trials)
    cell_costs = costs.with_costs(cells, results.trials)
    gains = differences(cells, METRIC)
    readings = []
    for benchmark, variant in panels_of(cells):
        mine = {k: rows for k, rows in cells.items() if (k.benchmark, k.variant) == (benchmark, variant)}
        subject = ", ".join(part for part in (benchmark, variant) if part)
        readings.append(Reading(subject, tuple(_sentences(mine, gains, cell_costs))))
    return readings


def _sentences(cells: Cells, gains: dict[Key, Paired], cell_costs: Cells) -> list[str]:
    source = next((name for name in SUBJECTS if any(key.source == name for key in cells)), "generated")
    means = {
        key: summarize(by_seed(cells[key], METRIC).to_numpy())
        for key in at_largest_fraction(cells)
        if key.source == source
    }
    ranked = [key for key, summary in means.items() if summary.n]
    if not ranked:
        return [f"No trial on {SUBJECTS[source]} has a result: nothing can be said yet.", *_missing(cells)]
    complete = [key for key in ranked if is_complete(cells[key])]
    best = max(complete or ranked, key=lambda key: means[key].mean)
    share = f", with {formatting.fraction(best.fraction)} of the real rows" if _several_fractions(cells) else ""
    out = [
        f"Best mean test accuracy on {SUBJECTS[source]}: {best.method}, {formatting.spread(means[best])} % "
        f"({_count(cells[best])}){share}."
    ]
    if best in gains:
        out += [*_gain(gains[best], len(ranked)), *_cost(cell_costs, best)]
    elif best.method == BASELINE:
        out.append("That is plain CE: no weighting beat it here.")
    else:
        out.append(f"CE on {SUBJECTS[source]} was not run: there is nothing to compare with.")
    return [*out, *_controls(cells, best), *_missing(cells)]


def _gain(pair: Paired, candidates: int) -> list[str]:
    if not pair.n:
        return ["No seed has finished both for it and for CE: no gain can be given."]
    gain = f"Against CE on the same seeds: {formatting.points(pair.mean)} points"
    if np.isnan(pair.interval[0]):
        return [f"{gain}, from {_seeds(pair.n)}: too little to give an interval, so take it as an anecdote."]
    out = [
        f"{gain} (95 % interval {formatting.point_interval(pair.interval)}; better on {pair.wins} of {pair.n} seeds; "
        f"p {_equals(formatting.p_value(pair.p))} after correction for all comparisons)."
    ]
    if not pair.excludes_zero:
        out.append("The interval includes zero: these seeds do not show a difference.")
    if pair.n < FEW:
        size = formatting.percent(pair.detectable)
        out.append(
            f"{_seeds(pair.n)} are few: to be found four times in five, a true gain must be about {size} points."
        )
    if candidates > 2:
        out.append(f"It was picked as the best of {candidates} by the same numbers, which flatters its gain a little.")
    return out


def _cost(cell_costs: Cells, best: Key) -> list[str]:
    alone, shared = (costs.ratio(cell_costs, best, account) for account in ("stand_alone", "marginal"))
    if np.isnan(alone):
        return []
    return [
        f"Its cost is {formatting.ratio(alone)} that of CE with its checkers charged, "
        f"{formatting.ratio(shared)} within this grid."
    ]


def _controls(cells: Cells, best: Key) -> list[str]:
    """How the controls compare with the best method, grouped by verdict."""
    groups: dict[str, list[str]] = {}
    absent = []
    for (given, method), label in CONTROLS.items():
        source = given or best.source
        if source == "both" and best.source != "generated":
            continue
        if (best.source, best.method) == (source, method):
            groups.setdefault("themselves the best", []).append(label)
            continue
        key = baseline_of(best._replace(source=source), cells, method)
        pair = compare(cells, key, best, METRIC) if key else None
        if pair is None or not pair.n:
            absent.append(label)
            continue
        gap = f"{formatting.points(pair.mean)} points"
        verdict = "on too few seeds to tell"
        if not np.isnan(pair.interval[0]):
            gap += f", {formatting.point_interval(pair.interval)}"
            verdict = "not told apart from it by these seeds"
        if pair.excludes_zero:
            verdict = "better than it" if pair.mean > 0 else "worse than it"
        groups.setdefault(verdict, []).append(f"{label} ({gap})")
    if absent:
        groups["not run, or without a result"] = absent
    return [f"Simple controls, {verdict}: {'; '.join(labels)}." for verdict, labels in groups.items()]


def _missing(cells: Cells) -> list[str]:
    planned = sum(len(rows) for rows in cells.values())
    done = sum(int((rows["status"] == "finished").sum()) for rows in cells.values())
    return [f"{planned - done} of {planned} trials have no result; the tables name them."] if done < planned else []


def _count(rows: pd.DataFrame) -> str:
    n = len(by_seed(rows, METRIC))
    return f"n = {n}" if n == len(rows) else f"n = {n} of {len(rows)} planned"


def _several_fractions(cells: Cells) -> bool:
    return len({key.fraction for key in cells} - {None}) > 1


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def _equals(value: str) -> str:
    return value if value.startswith("<") else f"= {value}"
