"""What the numbers say, in sentences computed from them, with the doubts that they leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.config.sources import SOURCES
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
#: What findings are about: the sources with the first of these roles that is there.
SUBJECTS = ("generated", "corrupted", "large_real")
#: Simple alternatives to a weighting: (role of the source, method) -> what it uses. None is the weighting's own source.
CONTROLS = {
    (None, "prior"): "prior (label shares alone)",
    (None, "imp_quality"): "imp_quality (the quality score alone)",
    ("mixed", BASELINE): "CE on {}",
    ("real", BASELINE): "CE on {} alone",
}


@dataclass(frozen=True)
class Reading:
    """A few sentences about one benchmark (and variant)."""

    subject: str
    sentences: tuple[str, ...]


def read(results: Results) -> list[Reading]:
    """What each benchmark says about its generated source, or without one about its corrupted or large real one."""
    cells = requested(results.trials)
    cell_costs = costs.with_costs(cells, results.trials)
    gains = differences(cells, METRIC)
    readings = []
    for benchmark, variant in panels_of(cells):
        mine = {k: rows for k, rows in cells.items() if (k.benchmark, k.variant) == (benchmark, variant)}
        subject = ", ".join(part for part in (benchmark, variant) if part)
        readings.append(Reading(subject, tuple(_sentences(results, mine, gains, cell_costs))))
    return readings


def _sentences(results: Results, cells: Cells, gains: dict[Key, Paired], cell_costs: Cells) -> list[str]:
    sources = [key.source for role in SUBJECTS for key in cells if results.role(key.source) == role]
    if not sources:
        return ["No source with rows to be judged was planned: there is nothing to compare.", *_missing(cells)]
    source, title = sources[0], results.title(sources[0])
    means = {
        key: summarize(by_seed(cells[key], METRIC).to_numpy())
        for key in at_largest_fraction(cells)
        if key.source == source
    }
    ranked = [key for key, summary in means.items() if summary.n]
    if not ranked:
        return [f"No trial on {title} has a result: nothing can be said yet.", *_missing(cells)]
    complete = [key for key in ranked if is_complete(cells[key])]
    best = max(complete or ranked, key=lambda key: means[key].mean)
    share = f", with {formatting.fraction(best.fraction)} of the real rows" if _several_fractions(cells) else ""
    out = [
        f"Best mean test accuracy on {title}: {best.method}, {formatting.spread(means[best])} % "
        f"({_count(cells[best])}){share}."
    ]
    if best in gains:
        out += [*_gain(gains[best], len(ranked)), *_cost(cell_costs, best)]
    elif best.method == BASELINE:
        out.append("That is plain CE: no weighting beat it here.")
    else:
        out.append(f"CE on {title} was not run: there is nothing to compare with.")
    return [*out, *_controls(results, cells, best), *_missing(cells)]


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
        out.append(f"With {_seeds(pair.n)}, only a true gain of about {size} points would be detected with 80 % power.")
    if candidates > 2:
        out.append(
            f"It is the best of {candidates} methods on the same test results, so its gain is optimistically biased."
        )
    return out


def _cost(cell_costs: Cells, best: Key) -> list[str]:
    alone, shared = (costs.ratio(cell_costs, best, account) for account in ("stand_alone", "marginal"))
    if np.isnan(alone):
        return []
    return [
        f"Its cost is {formatting.ratio(alone)} that of CE with its checkers charged, "
        f"{formatting.ratio(shared)} within this grid."
    ]


def _controls(results: Results, cells: Cells, best: Key) -> list[str]:
    """How the controls compare with the best method, grouped by verdict."""
    groups: dict[str, list[str]] = {}
    absent = []
    for source, method, label in _candidates(results, cells, best):
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
            verdict = "not significantly different from it"
        if pair.excludes_zero:
            verdict = "better than it" if pair.mean > 0 else "worse than it"
        groups.setdefault(verdict, []).append(f"{label} ({gap})")
    if absent:
        groups["not run, or without a result"] = absent
    return [f"Simple controls, {verdict}: {'; '.join(labels)}." for verdict, labels in groups.items()]


def _candidates(results: Results, cells: Cells, best: Key) -> list[tuple[str, str, str]]:
    """The controls of this grid: source, method and what it uses."""
    out = []
    planned = list(dict.fromkeys(key.source for key in cells))
    for (role, method), label in CONTROLS.items():
        if role is None:
            out.append((best.source, method, label))
            continue
        if role == "mixed" and results.role(best.source) != "generated":
            continue
        sources = [name for name in planned if results.role(name) == role]
        sources = sources or [name for name, source in SOURCES.items() if source.role == role][:1]
        out += [(name, method, label.format(results.title(name))) for name in sources]
    return out


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
