"""What the command line shows: plans, trials, methods, benchmarks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.progress import duration
from harness.config.schema import FrozenModel
from harness.data import benchmarks as catalogue
from harness.errors import UserError, unknown
from harness.ledger.mlflow_ledger import Entry, Ledger
from harness.methods import methods as registry
from harness.paths import Paths
from harness.planning.plan import Plan, missing, work
from harness.reports import page
from harness.reports.load import load
from harness.store import Store
from harness.training.speed import rows_per_second

if TYPE_CHECKING:  # it imports Ray, which showing a plan does not need
    from harness.driver import Summary


def plan(plan: Plan, places: Paths, out: Console) -> None:
    """The trials by row of the grid, checkers shared, what is done, an estimate of the rest."""
    store, ledger = Store(places.store), Ledger(places.tracking_uri, places.home)
    entries = ledger.trials()
    finished = {id_ for id_, entry in entries.items() if entry.status == "FINISHED"}
    todo = {job.trial.id for job in missing(plan, finished, store)}
    out.print(_overview(plan, todo))
    for line in _checkers(plan):
        out.print(line)
    failed = [i for i in todo if (e := entries.get(i)) is not None and e.status == "FAILED"]
    if failed:
        out.print(f"{len(failed)} trials failed before and will be tried again.")
    out.print(f"To run: {len(todo)} of {len(plan.jobs)} trials. {_estimate(plan, todo, entries, store)}")


def _overview(plan: Plan, todo: set[str]) -> Table:
    """A row for each cell of the grid, in the grid's order; columns that say nothing are left out."""
    names = ("benchmark", "source", "method", "real rows", "variant")
    cells: dict[tuple[str, ...], list[str]] = {}
    for job in plan.jobs:
        trial = job.trial
        fraction = "" if trial.fraction is None else f"{trial.fraction:.0%}"
        method = job.label + ("" if job.requested else " (checker only)")
        for variant in job.variants:
            cells.setdefault((trial.task.name, trial.source, method, fraction, variant), []).append(trial.id)
    shown = [i for i in range(len(names)) if any(cell[i] for cell in cells)]
    table = Table(title=f"{plan.experiment.name}: {len(plan.jobs)} trials")
    for i in shown:
        table.add_column(names[i])
    for name in ("seeds", "done", "to run"):
        table.add_column(name, justify="right")
    sources = [row.source for row in plan.experiment.grid]
    for cell in sorted(cells, key=lambda cell: (cell[0], cell[4], sources.index(cell[1]) if cell[1] in sources else 9)):
        left = sum(id_ in todo for id_ in cells[cell])
        counts = (len(cells[cell]), len(cells[cell]) - left, left)
        table.add_row(*(escape(cell[i]) for i in shown), *map(str, counts))
    return table


def _checkers(plan: Plan) -> list[str]:
    users = Counter(checker for job in plan.jobs for checker in job.trial.checkers)
    if not users:
        return ["No method needs a checker."]
    extra = sum(not plan.trials[checker].requested for checker in users)
    rows = f"{extra} of them only as checkers" if extra else "all of them rows of the grid anyway"
    served = sum(bool(job.trial.checkers) for job in plan.jobs)
    return [f"Checkers: {len(users)} trials are checkers of {served} others, {rows}."]


def _estimate(plan: Plan, todo: set[str], entries: Mapping[str, Entry], store: Store) -> str:
    if not todo:
        return "Nothing is left to do."
    jobs = [job for job in plan.jobs if job.trial.id in todo and job.trial.encoder]
    if not jobs:
        return "No estimate of time: what is left waits for a language model."
    trial = jobs[0].trial
    same = {
        "encoder": trial.encoder,
        "threads": str(trial.threads),
        "device": trial.device,
        "benchmark": trial.task.name,
    }
    seen = [
        entry.metrics["rows_per_second"]
        for entry in entries.values()
        if "rows_per_second" in entry.metrics and all(entry.tags.get(k) == v for k, v in same.items())
    ]
    if seen:
        rate: float | None = sorted(seen)[len(seen) // 2]
        basis = "from the speed of finished trials"
    else:
        source = plan.splits[trial.task.name].get("generated") or plan.splits[trial.task.name]["real_small"]
        rate = rows_per_second(trial, source, store)
        basis = "from a few training steps on this machine"
    if rate is None:
        return "No estimate of time: no trial has finished on such a device yet."
    total = sum(map(work(plan), jobs)) / (3.0 * rate)
    return f"About {duration(total)} of computing one trial at a time ({basis}), less by what runs side by side."


def trial(prefix: str, places: Paths, out: Console) -> None:
    """One trial of the ledger.

    Raises:
        UserError: no trial, or several, begin with these digits.
    """
    ledger = Ledger(places.tracking_uri, places.home)
    entries = ledger.trials()
    found = [id_ for id_ in entries if id_.startswith(prefix)]
    if len(found) != 1:
        if found:
            raise UserError(f"{len(found)} trials begin with {prefix!r}: {', '.join(sorted(found)[:5])}")
        raise unknown("trial", prefix, entries)
    entry = entries[found[0]]
    out.print(f"[bold]{entry.tags.get('mlflow.runName', found[0])}[/bold]  {found[0]}  {entry.status.lower()}")
    if entry.error:
        whole = ledger.artifact(entry.run, "error.txt")
        out.print(whole.decode() if whole else entry.error, style="red", markup=False)
    history = json.loads(ledger.artifact(entry.run, "history.json") or b"[]")
    if history:
        table = Table("epoch", "train loss", "validation accuracy", "test accuracy", "test F1", "mean weight", "ESS")
        for point in history:
            keys = ("train_loss", "validation_accuracy", "test_accuracy", "test_f1", "weight_mean", "weight_ess")
            table.add_row(str(int(point["epoch"])), *(f"{point[key]:.4f}" if key in point else "–" for key in keys))
        out.print(table)
    runtime = {
        k: v for k, v in sorted(entry.metrics.items()) if k.startswith(("seconds_", "llm_")) or k.endswith("_mb")
    }
    for key, value in runtime.items():
        out.print(f"  {key.replace('_', ' ')}: {value:.2f}")
    settings = ledger.artifact(entry.run, "trial.json")
    if settings:
        out.print(settings.decode(), markup=False)


def methods(out: Console) -> None:
    """The methods, what they need, their settings."""
    table = Table("method", "weight", "needs", "settings", title="Methods")
    for name, kind in registry.entries.items():
        fields = kind.settings_type().model_fields
        settings = ", ".join(
            f"{field} (must be given)" if info.is_required() else f"{field}={info.default}"
            for field, info in fields.items()
            if not isinstance(info.default, dict | FrozenModel)
        )
        first = (kind.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, escape(first), ", ".join(sorted(kind.needs)) or "nothing", escape(settings))
    out.print(table)


def benchmarks(places: Paths, out: Console) -> None:
    """The benchmarks of the catalogue, with the rows of those that can be read here."""
    for name in catalogue.catalogue():
        spec = catalogue.resolve(name)
        out.print(f"[bold]{name}[/bold]  {escape(spec.description.strip())}", soft_wrap=True)
        out.print(f"  labels: {', '.join(spec.labels)}; license: {spec.license}; origin: {spec.origin}", soft_wrap=True)
        try:
            rows = catalogue.summary(spec, places.cache)
        except UserError as error:
            out.print(f"  not readable here: {error}", style="yellow", markup=False, soft_wrap=True)
            continue
        table = Table("split", "rows", "labels", "digest")
        for row in rows:
            counts = ", ".join(f"{label} {n}" for label, n in row.counts.items())
            table.add_row(row.split, str(row.rows), counts, row.digest[:12])
        out.print(table)


def report(plan: Plan, places: Paths, results: Path) -> Path:
    """Writes the report; where its page is."""
    ledger = Ledger(places.tracking_uri, places.home)
    return page.write(load(plan, ledger), results / plan.experiment.name)


def farewell(summary: Summary, report: Path, ui: str, out: Console) -> None:
    """How the run went, and where to look."""
    out.print(f"{summary.finished} trials run, {summary.reused} done before, {len(summary.failed)} failed.")
    for name, error in summary.failed.items():
        out.print(f"  failed: {name}: {error.splitlines()[-1]}", style="red", markup=False, soft_wrap=True)
    out.print(f"Report: {report.resolve()}  ·  MLflow: {ui}", soft_wrap=True, markup=False)
