"""The tables of a report: functions from results to tables of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import pandas as pd

from harness.data.corruptions import KINDS
from harness.metrics import SCORES, Metric
from harness.reports import costs, formatting
from harness.reports.grid import (
    Key,
    at_largest_fraction,
    bold_cells,
    by_seed,
    cells_of,
    differences,
    finished,
    in_order,
    requested,
    with_corruption,
)
from harness.reports.results import LANGUAGE_MODEL, RESUMED, Results
from harness.reports.statistics import Interval

ROW_TEXTS = 10
#: The columns that name a row; a benchmark comes first where there is one.
NAMES = ("variant", "source", "method", "real rows used")
#: Marks an interval over seeds and test rows that is over seeds alone, and explains the mark.
SEEDS_ALONE = " (seeds alone)"
ROWS_UNKNOWN = " Seeds alone: the ledger has no predictions of some trials, so test rows are taken as fixed."


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text. The first ``words`` columns hold words (left-aligned), the rest numbers (right-aligned)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int
    note: str = ""
    folded: bool = False

    def markdown(self) -> str:
        """The table in Markdown, with every text escaped."""
        rule = ["---" if i < self.words else "---:" for i in range(len(self.columns))]
        lines = [[formatting.markdown(column) for column in self.columns], rule]
        for row in self.rows:
            lines.append([f"**{formatting.markdown(c.text)}**" if c.bold else formatting.markdown(c.text) for c in row])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def frame(self) -> pd.DataFrame:
        """The texts of the table as a frame."""
        return pd.DataFrame([[cell.text for cell in row] for row in self.rows], columns=list(self.columns))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], words: int, note: str = ""
) -> Table:
    """A table from texts and cells. Of the first ``words`` columns, those without a text in any row are left out."""
    cells = [tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows]
    kept = [
        i for i in range(len(columns)) if i >= words or any(row[i].text not in ("", formatting.NONE) for row in cells)
    ]
    return Table(
        title,
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in cells),
        sum(i < words for i in kept),
        note,
    )


def interval_text(interval: Interval, rows_known: bool) -> str:
    """An interval over seeds and test rows, marked if it is over seeds alone."""
    text = formatting.point_interval(interval)
    return text if rows_known or text == formatting.NONE else text + SEEDS_ALONE


def names(key: Key) -> list[str]:
    """The texts of the columns ``NAMES``."""
    return [key.variant, key.source, key.method, formatting.fraction(key.fraction)]


def accuracy(results: Results) -> Table:
    """All scores: a row per source, method, fraction and variant, a column per benchmark and metric."""
    cells = requested(results.trials)
    benchmarks = list(dict.fromkeys(key.benchmark for key in cells))
    bold = {metric.column("test"): bold_cells(cells, metric.column("test")) for metric in SCORES}
    rows: list[list[str | Cell]] = []
    for row in in_order(key._replace(benchmark="") for key in cells):
        rows.append([*names(row)])
        for key, marked in product((row._replace(benchmark=name) for name in benchmarks), bold.items()):
            metric, chosen = marked
            rows[-1].append(
                Cell(formatting.score(cells[key], metric), key in chosen) if key in cells else "not planned"
            )
    columns = [f"{benchmark} {title}" for benchmark in benchmarks for title in _TITLES]
    note = (
        "Percent: mean ± standard deviation over seeds (n). Bold: within 0.5 points of the best of the same benchmark, "
        "training source and share of real rows, among complete cells. A cell without all of its "
        "trials states their status."
    )
    return table(_join(_TITLES), [*NAMES, *columns], rows, len(NAMES), note)


def gains(results: Results, metric: Metric, folded: bool = False) -> Table:
    """Gain of every method over CE on the same source in a metric of the test split, paired by seed."""
    cells = requested(results.trials)
    rows = [
        [
            key.benchmark,
            *names(key),
            str(pair.n),
            formatting.points(pair.mean),
            formatting.point_interval(pair.interval),
            interval_text(pair.hierarchical, pair.rows_known),
            f"{pair.wins}/{pair.n}" + (f", {pair.ties} equal" if pair.ties else ""),
            formatting.p_value(pair.p),
            formatting.points(pair.detectable).removeprefix("+"),
        ]
        for key, pair in differences(cells, metric.column("test"), results.resampled).items()
    ]
    columns = ["pairs", "mean gain", "95 % (t)", "95 % (seeds and rows)", "better", "p (Holm)", "detectable"]
    note = (
        "Percentage points, method minus CE with the same seed, benchmark and source. 95 % (t): over seeds, on these "
        "test rows. 95 % (seeds and rows): over seeds and test rows together, so for other test rows of the same kind "
        "too; it can be the narrower one, since few seeds do not estimate their own spread well. p: "
        "paired t test over seeds, corrected over this whole table; a permutation test of so few pairs could "
        "not give a small p, so it is used for the pooled table alone. Detectable: the true gain that this number of "
        "pairs would detect with 80 % power on these test rows. A dash: fewer than two pairs, or no spread."
    ) + ROWS_UNKNOWN * any(row[-4].endswith(SEEDS_ALONE) for row in rows)
    gain_table = table(f"Paired gain in {metric.title}", ["benchmark", *NAMES, *columns], rows, 1 + len(NAMES), note)
    return replace(gain_table, folded=folded)


def cost(results: Results) -> Table:
    """Mean seconds by phase and method, both accounts, and peak memory."""
    trials = results.trials
    cells = requested(trials)
    phases = costs.phases(trials)
    memory = {column: title for column, title in _MEMORY.items() if trials[column].notna().any()}
    cell_costs = costs.with_costs(cells, trials)
    rows = []
    for key, frame in cell_costs.items():
        if finished(frame).empty:
            continue
        row = [key.benchmark, *names(key)]
        row += [formatting.seconds(by_seed(frame, phase.key).mean()) for phase in phases]
        for account in _ACCOUNTS:
            row += [
                formatting.seconds(by_seed(frame, account).mean()),
                formatting.ratio(costs.ratio(cell_costs, key, account)),
            ]
        row += [formatting.number(by_seed(frame, "rows_per_second").mean(), 0)]
        row += [formatting.number(by_seed(frame, name).max(), 0) for name in memory]
        rows.append(row)
    columns = [f"{phase.label} s" for phase in phases]
    columns += ["stand-alone s", "stand-alone × CE", "marginal s", "marginal × CE", "rows/s", *memory.values()]
    return table("Cost", ["benchmark", *NAMES, *columns], rows, 1 + len(NAMES), _cost_note(results))


def language_model(results: Results) -> Table:
    """Calls, tokens and cost of the trials in which a language model classifies."""
    rows = []
    for key, frame in requested(results.trials).items():
        means = {name: by_seed(frame, name) for name in LANGUAGE_MODEL}
        if len(means["llm_calls"]):
            row = [key.benchmark, *names(key), str(len(means["llm_calls"]))]
            whole = ("llm_calls", "llm_unparsable", "llm_tokens_in", "llm_tokens_out")
            row += [formatting.number(means[name].mean(), 1 if name == "llm_unparsable" else 0) for name in whole]
            rows.append(
                [*row, formatting.number(means["llm_cost"].mean(), 4), formatting.seconds(means["llm_seconds"].mean())]
            )
    columns = ["n", "calls", "unparsable", "tokens in", "tokens out", "cost", "seconds in calls"]
    note = (
        "Means per trial. An answer that names no label counts as wrong. Answers are cached by content: calls are all "
        "those that the result rests on, each paid for once. Cost is in the currency of the configured prices. "
        "Seconds are summed over calls, many of which run at the same time."
    )
    return table("Language model", ["benchmark", *NAMES, *columns], rows, 1 + len(NAMES), note)


def weights(results: Results) -> Table:
    """Statistics of the weights of each method at the reported epoch."""
    rows = []
    for key, frame in requested(results.trials).items():
        means = {name: by_seed(frame, f"weight_{name}") for name in ("mean", "min", "max", "clipped", "ess")}
        if len(means["mean"]):
            row = [key.benchmark, *names(key), str(len(means["mean"])), formatting.number(means["mean"].mean())]
            row += [formatting.number(means["min"].min()), formatting.number(means["max"].max())]
            rows.append([*row, formatting.percent(means["clipped"].mean()), formatting.percent(means["ess"].mean())])
    columns = ["n", "mean", "minimum", "maximum", "clipped %", "effective sample size %"]
    note = (
        "Weights of the training rows at the reported epoch: mean of means, smallest and largest over all seeds, mean "
        "share clipped, mean effective sample size (Σw)²/Σw² as a share of the rows."
    )
    return table("Weights", ["benchmark", *NAMES, *columns], rows, 1 + len(NAMES), note)


def corrupted_rows(results: Results) -> Table:
    """How well the weights of each method separate clean from corrupted rows, for sources that have both."""
    from sklearn.metrics import roc_auc_score  # slow to import

    rows = []
    weights = with_corruption(results.weights)
    present = set(weights["corruption"])
    kinds = [name for name in ("", *KINDS, *sorted(present - {*KINDS, ""})) if name in present]
    for key, frame in cells_of(weights).items() if len(kinds) > 1 else ():
        known = frame.dropna(subset="weight")
        groups = known["corruption"]
        if known["weight"].nunique() < 2 or groups.nunique() < 2:
            continue
        seeds = [seed for _, seed in known.groupby("seed")]
        separations = []
        for column in ("weight", "mean_weight"):
            areas = pd.Series([roc_auc_score(seed["corruption"] == "", seed[column]) for seed in seeds])
            separations.append(f"{formatting.number(areas.mean(), 3)} ± {formatting.number(areas.std(), 3)}")
        means = known.groupby(groups)["mean_weight"].mean().reindex(kinds)
        rows.append(
            [key.benchmark, *names(key), str(len(seeds)), *separations, *(formatting.number(value) for value in means)]
        )
    columns = ["n", "AUROC, last epoch", "AUROC, all epochs"]
    columns += [f"mean weight, {name or 'clean'}" for name in kinds]
    note = (
        "AUROC: the probability that a clean row has a greater weight than a corrupted one (0.5: no separation), mean "
        "± standard deviation over seeds, of the weights of the last epoch and of each row's mean weight over all "
        "epochs. Mean weights are over all epochs. Methods with one weight for all rows are left out. In a generated "
        "source, clean rows are as the language model wrote them, with correct or wrong labels."
    )
    return table("Weights of clean and corrupted rows", ["benchmark", *NAMES, *columns], rows, 1 + len(NAMES), note)


def extreme_rows(results: Results) -> list[Table]:
    """The rows of the generated source with the highest and lowest weights of each method, at the largest fraction.

    Methods with fewer than twenty distinct weights (e.g. one per label) give no order of rows and are left out.
    """
    cells = cells_of(results.weights)
    tables = []
    for key in at_largest_fraction(cells):
        if results.role(key.source) != "generated":
            continue
        order = _ordered_by_weight(cells[key])
        if order["weight"].round(9).nunique() < min(20, len(order)):
            continue
        count = min(ROW_TEXTS, len(order) // 2)
        ends = (("highest", order.head(count)), ("lowest", order.tail(count)))
        body = [
            (Cell(end), Cell(str(label)), Cell(formatting.clip(str(row))), Cell(formatting.number(weight, 3)))
            for end, rows in ends
            for label, row, weight in zip(rows["label"], rows["text"], rows["weight"], strict=True)
        ]
        title = ", ".join(part for part in (key.benchmark, key.variant, key.method) if part)
        seeds = cells[key]["seed"].nunique()
        note = f"Weight of the last epoch, mean over {seeds} seed{'s' * (seeds != 1)}."
        tables.append(Table(title, ("end", "label", "text", "weight"), tuple(body), 3, note, folded=True))
    return tables


def splits(results: Results) -> Table:
    """Sizes, label shares and digests of the data."""
    rows = [
        [
            benchmark,
            str(split["split"]),
            ", ".join(f"{label} {count}" for label, count in split["counts"].items()),
            str(split["digest"])[:16],
            str(split["rows"]),
        ]
        for benchmark, parts in results.meta.get("splits", {}).items()
        for split in parts
    ]
    return table("Splits", ["benchmark", "split", "labels", "digest", "rows"], rows, 4)


def distributions(results: Results) -> Table:
    """Distances between the label distributions of real and generated rows, according to the checkers."""
    frame = results.distances
    measures = ("entropy_real", "entropy_generated", "kl_real_generated", "kl_generated_real")
    rows = []
    axes = ["benchmark", "variant", "source", "fraction"]
    for names, group in [] if frame.empty else frame.groupby(axes, dropna=False, sort=False):
        benchmark, variant, source, fraction = cast("tuple[str, str, str, float]", names)
        row = [benchmark, variant, source, formatting.fraction(None if math.isnan(fraction) else fraction)]
        cells = [
            f"{formatting.number(group[name].mean(), 3)} ± {formatting.number(group[name].std(), 3)}"
            for name in measures
        ]
        rows.append([*row, str(len(group)), *cells])
    columns = ["benchmark", "variant", "source", "real rows used", "n"]
    note = (
        "Nats, mean ± standard deviation over seeds. P: the quality checker, Q: the diversity checker; H(Y|X) of P and "
        "KL(P‖Q) on the test rows, H(Y|X) of Q and KL(Q‖P) on the source's rows, on which the diversity checker "
        "was trained. Errors of the checkers affect these numbers too."
    )
    return table(
        "Distance of real and generated labels", [*columns, "H of P", "H of Q", "KL(P‖Q)", "KL(Q‖P)"], rows, 4, note
    )


def failures(results: Results) -> Table:
    """Every trial that failed or was interrupted, with its error."""
    broken = results.trials[results.trials["status"].isin(["failed", "interrupted"])]
    rows = [
        [key.benchmark, *names(key), str(seed), str(trial), str(status), formatting.clip(_text(error), 2000)]
        for key, frame in cells_of(broken).items()
        for seed, trial, status, error in zip(*(frame[c] for c in ("seed", "trial", "status", "error")), strict=True)
    ]
    columns = ["benchmark", *NAMES, "seed", "trial", "status", "error"]
    return table("Failures", columns, rows, len(columns))


_MEMORY = {"peak_memory_mb": "peak MB", "peak_gpu_memory_mb": "peak GPU MB"}
_ACCOUNTS = ("stand_alone", "marginal")
_TITLES = tuple(metric.title for metric in SCORES)


def _join(titles: Sequence[str]) -> str:
    """ "Accuracy and macro F1"."""
    text = " and ".join(filter(None, (", ".join(titles[:-1]), titles[-1])))
    return text[:1].upper() + text[1:]


def _ordered_by_weight(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an id, with its mean weight over seeds, the greatest first; ties by id."""
    merged = rows.groupby("id", sort=True).agg({"label": "first", "text": "first", "weight": "mean"})
    return merged.sort_values("weight", kind="stable", ascending=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cost_note(results: Results) -> str:
    trials, driver = results.trials, results.meta.get("driver_peak_memory_mb")
    devices = finished(trials)[["device", "threads"]].drop_duplicates().itertuples(index=False)
    where = "; ".join(f"{device}, {threads:.0f} thread{'s' * (threads != 1)}" for device, threads in devices)
    requested_costs = costs.accounts(trials).reindex(trials.loc[trials["requested"].astype(bool), "trial"].unique())
    alone, shared = (float(requested_costs[account].sum()) for account in _ACCOUNTS)
    resumed = int(finished(trials).drop_duplicates("trial")[RESUMED].notna().sum()) if RESUMED in trials else 0
    return (
        f"Mean seconds of a trial, over finished seeds{f' ({where})' if where else ''}. Stand-alone: the trial, each "
        "of its checkers and their scoring, as if nothing else were run. Marginal: a checker that is also "
        "a requested trial costs only its scoring, any other is shared by the trials that use it; the column sums to "
        "the cost of the grid. "
        "Neither includes evaluation or device warm-up. Trials on a shared device slow each other down. "
        f"All finished trials together: {formatting.duration(costs.total_seconds(trials))} of trial time; "
        f"charged to the requested trials: {formatting.duration(shared)} marginal, "
        f"{formatting.duration(alone)} stand-alone."
        + (f" Peak memory of the driver: {formatting.number(driver, 0)} MB." if driver else "")
        + (
            f" {resumed} of the trials went on from a checkpoint: seconds are summed over their parts."
            if resumed
            else ""
        )
    )
