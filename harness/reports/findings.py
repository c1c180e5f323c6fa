"""Findings: sentences computed from the numbers, with the limits of what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.config.sources import SOURCES
from harness.metrics import PRIMARY
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
from harness.reports.pooling import Pooled, pooled
from harness.reports.results import Results
from harness.reports.statistics import Paired, summarize

METRIC = PRIMARY.column("test")
#: Below this number of pairs, findings state the detectable gain.
FEW_PAIRS = 5
#: Roles of the source that findings are about, the first one present.
SUBJECTS = ("generated", "corrupted", "large_real")
#: Simple alternatives to the best method: (role of the source, method) -> what it uses. None: the same source.
CONTROLS = {
    (None, "prior"): "prior (label shares alone)",
    (None, "imp_quality"): "imp_quality (the quality score alone)",
    ("mixed", BASELINE): "CE on {}",
    ("real", BASELINE): "CE on {} alone",
}


@dataclass(frozen=True)
class Findings:
    """Sentences about one benchmark (and variant)."""

    subject: str
    sentences: tuple[str, ...]


def findings(results: Results) -> list[Findings]:
    """Findings over all benchmarks on each source, then of each benchmark and variant.

    Those of a benchmark are on its generated source, else the corrupted, else the large real one.
    """
    cells = requested(results.trials)
    cell_costs = costs.with_costs(cells, results.trials)
    gains = differences(cells, METRIC, results.resampled)
    out = _pooled_findings(results)
    for benchmark, variant in panels_of(cells):
        panel = {k: rows for k, rows in cells.items() if (k.benchmark, k.variant) == (benchmark, variant)}
        subject = ", ".join(part for part in (benchmark, variant) if part)
        out.append(Findings(subject, tuple(_sentences(results, panel, gains, cell_costs))))
    return out


def _pooled_findings(results: Results) -> list[Findings]:
    """A sentence for every source with several methods on several benchmarks."""
    sentences: dict[str, list[str]] = {}
    groups: dict[tuple[str, str], list[Pooled]] = {}
    for row in pooled(results):
        groups.setdefault((row.key.variant, row.key.source), []).append(row)
    for (variant, source), rows in groups.items():
        sentences.setdefault(variant, []).append(_pooled_sentence(results.title(source), rows))
    return [
        Findings(", ".join(part for part in ("All benchmarks", variant) if part), tuple(lines))
        for variant, lines in sentences.items()
    ]


def _pooled_sentence(title: str, rows: list[Pooled]) -> str:
    compared = [row for row in rows if not np.isnan(row.gain.mean)]
    where = f"On {title}, over {len(rows[0].benchmarks)} benchmarks"
    if not compared:
        return f"{where}, no method has a seed in common with CE."
    best = max(compared, key=lambda row: row.gain.mean)
    gain, probability = best.gain, best.improvement.probability
    text = f"{where}, the best mean gain over CE is that of {best.key.method}: {formatting.points(gain.mean)} points"
    if np.isnan(gain.interval[0]):
        return f"{text}, from too few seeds for an interval."
    text += (
        f" (95 % interval over {_over(best.rows_known)} {formatting.point_interval(gain.interval)}; permutation p "
        f"{_equals(formatting.p_value(best.p))} after correction for all methods and sources; better than CE with "
        f"probability {formatting.number(probability)}; average rank {formatting.number(best.rank)} of {len(rows)})."
    )
    low, high = gain.interval
    if low <= 0.0 <= high:
        text += (
            " The interval includes zero; only a true gain of about "
            f"{formatting.percent(gain.detectable)} points would be detected with 80 % power."
        )
    return text


def _sentences(results: Results, cells: Cells, gains: dict[Key, Paired], cell_costs: Cells) -> list[str]:
    sources = [key.source for role in SUBJECTS for key in cells if results.role(key.source) == role]
    if not sources:
        return [
            "No source with generated, corrupted or many real rows was planned: there is nothing to compare.",
            *_missing(cells),
        ]
    source, title = sources[0], results.title(sources[0])
    means = {
        key: summarize(by_seed(cells[key], METRIC).to_numpy())
        for key in at_largest_fraction(cells)
        if key.source == source
    }
    ranked = [key for key, summary in means.items() if summary.n]
    if not ranked:
        return [f"No trial on {title} has a result yet.", *_missing(cells)]
    complete = [key for key in ranked if is_complete(cells[key])] or ranked
    most = max(means[key].n for key in complete)
    alike = [key for key in complete if means[key].n == most]  # few seeds are lucky more easily
    best = max(alike, key=lambda key: means[key].mean)
    of_seeds = "" if len(alike) == len(complete) else " among methods with as many seeds"
    share = f", with {formatting.fraction(best.fraction)} of the real rows" if _several_fractions(cells) else ""
    out = [
        f"Best mean test {PRIMARY.title} on {title}{of_seeds}: {best.method}, {formatting.spread(means[best])} % "
        f"({_count(cells[best])}){share}."
    ]
    if best in gains:
        out += [*_gain(gains[best], len(ranked)), *_cost(cell_costs, best)]
    elif best.method == BASELINE:
        out.append("This is plain CE: no other method has a higher mean.")
    else:
        out.append(f"CE on {title} has no result to compare with.")
    return [*out, *_controls(results, cells, best), *_missing(cells)]


def _gain(pair: Paired, candidates: int) -> list[str]:
    if not pair.n:
        return ["No seed has finished for both this method and CE: the gain is unknown."]
    gain = f"Gain over CE on the same seeds: {formatting.points(pair.mean)} points"
    if np.isnan(pair.hierarchical[0]):
        return [f"{gain}, from {_seeds(pair.n)}: too few for an interval, so this is not evidence of a difference."]
    interval = f"95 % interval over {_over(pair.rows_known)} {formatting.point_interval(pair.hierarchical)}"
    facts = [interval, f"better on {pair.wins} of {pair.n} seeds"]
    if not np.isnan(pair.p):
        facts.append(f"p {_equals(formatting.p_value(pair.p))} after correction for all comparisons")
    out = [f"{gain} ({'; '.join(facts)})."]
    if not pair.excludes_zero:
        out.append("The interval includes zero: no significant difference.")
    if pair.n < FEW_PAIRS and not np.isnan(pair.detectable):
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
        f"Its cost is {formatting.ratio(alone)} that of CE if all its checkers are charged, "
        f"{formatting.ratio(shared)} if the grid shares them."
    ]


def _controls(results: Results, cells: Cells, best: Key) -> list[str]:
    """Comparison of the controls with the best method, grouped by outcome."""
    groups: dict[str, list[str]] = {}
    missing = []
    for source, method, label in _candidates(results, cells, best):
        if (best.source, best.method) == (source, method):
            groups.setdefault("the best method itself", []).append(label)
            continue
        key = baseline_of(best._replace(source=source), cells, method)
        pair = compare(cells, key, best, METRIC, results.resampled) if key else None
        if pair is None or not pair.n:
            missing.append(label)
            continue
        gap = f"{formatting.points(pair.mean)} points"
        outcome = "too few seeds to compare"
        if not np.isnan(pair.hierarchical[0]):
            gap += f", {formatting.point_interval(pair.hierarchical)}"
            outcome = "not significantly different from it"
        if pair.excludes_zero:
            outcome = "better than it" if pair.mean > 0 else "worse than it"
        groups.setdefault(outcome, []).append(f"{label} ({gap})")
    if missing:
        groups["not run, or without a result"] = missing
    return [f"Simple controls, {outcome}: {'; '.join(labels)}." for outcome, labels in groups.items()]


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
    return [f"{planned - done} of {planned} trials have no result; see the tables."] if done < planned else []


def _count(rows: pd.DataFrame) -> str:
    n = len(by_seed(rows, METRIC))
    return f"n = {n}" if n == len(rows) else f"n = {n} of {len(rows)} planned"


def _several_fractions(cells: Cells) -> bool:
    return len({key.fraction for key in cells} - {None}) > 1


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def _over(rows_known: bool) -> str:
    return "seeds and test rows" if rows_known else "seeds alone"


def _equals(value: str) -> str:
    return value if value.startswith("<") else f"= {value}"
