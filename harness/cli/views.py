"""What the command line prints of plans, trials, reports and runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cli.progress import duration
from harness.errors import UserError, unknown
from harness.ledger.entries import ERROR, LOG, Entry, finished, open_reader
from harness.ledger.mlflow_pages import table_address, without_password
from harness.ledger.report_artifacts import attach_report
from harness.paths import Paths
from harness.planning.estimate import PAST_KEYS, past_rate, work
from harness.planning.plan import Plan, missing, stored
from harness.store import Store

if TYPE_CHECKING:  # it imports Ray, which showing a plan does not need
    from harness.driver import Summary

#: Trials of an experiment from which a first page is written before the report.
MANY = 500


def plan(plan: Plan, paths: Paths, out: Console, measure: bool = False) -> None:
    """Prints the trials by row of the grid, which are finished, the checkers, and an estimate of the time left.

    With ``measure``, a few training steps are timed if no finished trial gives a rate.
    """
    store = Store(paths.store)
    entries = open_reader(paths.tracking_uri, paths.home).trials(PAST_KEYS)
    todo = {job.trial.id for job in missing(plan, finished(entries), store)}
    out.print(_overview(plan, todo))
    for line in _checkers(plan):
        out.print(line)
    failed = [i for i in todo if (e := entries.get(i)) is not None and e.status == "FAILED"]
    if failed:
        out.print(f"{len(failed)} trials failed before and will be tried again.")
    if not todo:
        return out.print(f"To run: 0 of {len(plan.jobs)} trials. All trials are finished.")
    known = stored(plan, todo, store) if store.local else set()  # a bucket would be asked for each of them
    left = _estimate(plan, todo - known, entries, store, measure)
    out.print(f"To run: {len(todo)} of {len(plan.jobs)} trials. {left}")
    if known:
        out.print(f"{len(known)} of them have their results in the store, so they are recorded, not trained.")


def _overview(plan: Plan, todo: set[str]) -> Table:
    """A row for each cell of the grid, in the grid's order; empty columns are left out."""
    names = ("benchmark", "source", "method", "real rows", "variant")
    cells: dict[tuple[str, ...], list[str]] = {}
    for job in plan.jobs:
        trial = job.trial
        fraction = "" if trial.fraction is None else f"{trial.fraction:.0%}"
        method = job.label + ("" if job.requested else " (checker only)")
        for variant in job.variants:
            cells.setdefault((trial.task.name, trial.source, method, fraction, variant), []).append(trial.id)
    columns = [i for i in range(len(names)) if any(cell[i] for cell in cells)]
    table = Table(title=f"{plan.experiment.name}: {len(plan.jobs)} trials")
    for i in columns:
        table.add_column(names[i])
    for name in ("seeds", "done", "to run"):
        table.add_column(name, justify="right")
    sources = [row.source for row in plan.experiment.grid]
    for cell in sorted(cells, key=lambda cell: (cell[0], cell[4], sources.index(cell[1]) if cell[1] in sources else 9)):
        unfinished = sum(id_ in todo for id_ in cells[cell])
        seeds = {plan.trials[id_].trial.seed for id_ in cells[cell]}  # the folds of a checker are several trials
        counts = (len(seeds), len(cells[cell]) - unfinished, unfinished)
        table.add_row(*(escape(cell[i]) for i in columns), *map(str, counts))
    return table


def _checkers(plan: Plan) -> list[str]:
    users = Counter(checker for job in plan.jobs for checker in job.trial.checkers)
    if not users:
        return ["No method needs a checker."]
    extra = sum(not plan.trials[checker].requested for checker in users)
    rows = f"{extra} of them only as checkers" if extra else "all of them in the grid anyway"
    served = sum(bool(job.trial.checkers) for job in plan.jobs)
    return [f"Checkers: {len(users)} trials are checkers of {served} others, {rows}."]


def _estimate(plan: Plan, todo: set[str], entries: Mapping[str, Entry], store: Store, measure: bool) -> str:
    if not todo:
        return "Nothing is left to train."
    jobs = [job for job in plan.jobs if job.trial.id in todo and job.trial.encoder]
    if not jobs:
        return "No time estimate: the remaining trials query a language model."
    trial = jobs[0].trial
    hint = ""
    rate, basis = past_rate(trial, {i: (e.tags, e.metrics) for i, e in entries.items()}), "from finished trials"
    if rate is None and not measure:
        return "No time estimate: no finished trial gives a rate; `--estimate` times a few training steps."
    if rate is None:
        from harness.data.split_files import save_split
        from harness.training.speed import MUCH_FASTER, in_precision, rows_per_second

        splits = plan.splits[trial.task.name]
        for split in splits.values():
            save_split(split, store)
        source = splits[trial.stages[0].splits[0]]
        rate, basis = rows_per_second(trial, source, store), "from a few training steps on this machine"
        if rate is not None and trial.training.precision == "float32":
            other = rows_per_second(in_precision(trial, "bfloat16"), source, store) or 0.0
            if other > MUCH_FASTER * rate:
                hint = (
                    f" In bfloat16 a step is {other / rate:.1f} times as fast here: --set training.precision=bfloat16."
                )
    if rate is None:
        return "No time estimate: no trial has finished on this kind of device yet."
    total = sum(map(work(plan), jobs)) / (3.0 * rate)
    return f"About {duration(total)} of computing one trial at a time ({basis}); less with several at a time.{hint}"


def failed_before(plan: Plan, paths: Paths, out: Console) -> None:
    """Prints how many trials failed before and will be tried again."""
    if count := len(_failed(plan, open_reader(paths.tracking_uri, paths.home).trials((ERROR,)))):
        trials = "1 trial" if count == 1 else f"{count} trials"
        hint = f"`harness show --failed {plan.experiment.name}`"
        out.print(f"{trials} failed before and will be tried again; {hint} shows the errors", markup=False)


def trials_to_retry(plan: Plan, paths: Paths, text: str | None) -> set[str]:
    """The ids of the failed trials of a plan, and of the unfinished ones that need them as checkers.

    Args:
        plan: the experiment.
        paths: the ledger.
        text: what the last line of the error must contain, in any case; None for every error.

    Raises:
        UserError: trials have failed, but none with this text.
    """
    entries = open_reader(paths.tracking_uri, paths.home).trials((ERROR,))
    failed = _failed(plan, entries)
    ids = {id_ for id_ in failed if (text or "").lower() in entries[id_].error.lower()}
    if failed and not ids:
        errors = sorted({entries[id_].error for id_ in failed})
        more = f" and {len(errors) - 5} others" if len(errors) > 5 else ""
        raise UserError(f"no failed trial has {text!r} in its error; their errors: {'; '.join(errors[:5])}{more}")
    done = finished(entries)
    for job in plan.jobs:  # checkers come first
        if job.trial.id not in done and ids & set(job.trial.checkers):
            ids.add(job.trial.id)
    return ids


def _failed(plan: Plan, entries: Mapping[str, Entry]) -> list[str]:
    return [id_ for id_ in plan.trials if id_ in entries and entries[id_].status == "FAILED"]


def trial(prefix: str, paths: Paths, out: Console) -> None:
    """Prints one trial of the ledger.

    Raises:
        UserError: no trial id, or several, start with ``prefix``.
    """
    reader = open_reader(paths.tracking_uri, paths.home)
    entries = reader.trials()
    matches = [id_ for id_ in entries if id_.startswith(prefix)]
    if not matches:
        raise unknown("trial", prefix, entries)
    if len(matches) > 1:
        raise UserError(
            f"{len(matches)} trial ids start with {prefix!r}; give more digits: {', '.join(sorted(matches)[:5])}"
        )
    entry = entries[matches[0]]
    out.print(f"[bold]{entry.tags.get('mlflow.runName', matches[0])}[/bold]  {matches[0]}  {entry.status.lower()}")
    if entry.error:
        text, log = reader.artifact(entry, "error.txt"), reader.artifact(entry, LOG)
        out.print(text.decode() if text else entry.error, style="red", markup=False, soft_wrap=True)
        if log:
            out.rule(LOG, align="left")
            out.print(log.decode(), markup=False, soft_wrap=True)
            out.rule()
    from harness.ledger.artifacts import History

    content = reader.artifact(entry, History.FILE)
    history = History.from_bytes(content).entries if content else []
    if history:
        table = Table("epoch", "train loss", "validation accuracy", "test accuracy", "test F1", "mean weight", "ESS")
        for point in history:
            keys = ("train_loss", "validation_accuracy", "test_accuracy", "test_f1", "weight_mean", "weight_ess")
            table.add_row(str(int(point["epoch"])), *(f"{point[key]:.4f}" if key in point else "–" for key in keys))
        out.print(table)
    runtime = {
        k: v
        for k, v in sorted(entry.metrics.items())
        if k.startswith(("seconds_", "llm_", "diagnostic_")) or k.endswith(("_mb", "_temperature"))
    }
    for key, value in runtime.items():
        out.print(f"  {key.replace('_', ' ')}: {value:.2f}")
    settings = reader.artifact(entry, "trial.json")
    if settings:
        out.print(settings.decode(), markup=False)


def experiment_name(text: str) -> str:
    """The name of an experiment, from its name or from the path of its YAML file."""
    if not text.endswith((".yaml", ".yml")):
        return text
    from harness.config.schema import read_yaml

    path = Path(text)
    return str(read_yaml(path).get("name", path.stem))


def report(name: str, paths: Paths, results: Path, out: Console, again: bool = False) -> tuple[Path, bool]:
    """Writes the report unless it is up to date (``again``: always), then the index of all reports in ``results``.

    The report is also added to the artifacts of the experiment in the ledger. Prints a warning where this is refused.

    Returns:
        The report's page, and whether it was written.
    """
    from harness.reports.index import write_index
    from harness.reports.state import find_parent, read_plan, report_key, state_key

    reader = open_reader(paths.tracking_uri, paths.home)
    folder = results / name
    parent, entries = find_parent(name, reader), reader.trials()
    planned = read_plan(name, parent, entries, reader)
    key = state_key(parent, planned, entries)
    written = again or report_key(folder) != key
    if written:
        from harness.reports.load import load, load_metrics

        if len(planned.trials) >= MANY and (results_so_far := load_metrics(name, reader, entries)) is not None:
            from harness.reports import first_page

            first = first_page.write(results_so_far, folder).resolve()
            out.print(f"First page, from metrics alone: {first}. The rest follows.", markup=False, soft_wrap=True)
        from harness.reports import page  # with the figures; slow to import

        files = page.render(load(name, reader, entries))
        page.save(files, folder)
        try:
            attach_report(parent, files, paths.tracking_uri, paths.home)
        except UserError as error:
            place = without_password(paths.tracking_uri)
            text = f"The report is in {folder.resolve()}, but not among the artifacts in MLflow at {place}: {error}"
            out.print(text, style="yellow", markup=False, soft_wrap=True)
    write_index(results)
    return folder / "report.html", written


def mlflow_address(name: str, paths: Paths) -> str | None:
    """The address of an experiment's trials on MLflow's pages, or None where no server has the ledger."""
    if not paths.tracking_uri.startswith("http"):
        return None
    from harness.reports.state import find_parent

    parent = find_parent(name, open_reader(paths.tracking_uri, paths.home))
    return table_address(paths.tracking_uri, parent.experiment)


def farewell(summary: Summary, report: Path, written: bool, pages: str, out: Console) -> None:
    """Prints the result of a run, the path of the report, and where MLflow is (``pages``: an address or a command)."""
    out.print(f"{summary.finished} trials run, {summary.reused} done before, {len(summary.failed)} failed.")
    farewell_failed(summary, out)
    note = "" if written else " (unchanged)"
    out.print(f"All reports: {(report.parent.parent / 'index.html').resolve()}", soft_wrap=True, markup=False)
    out.print(f"Report: {report.resolve()}{note}  ·  MLflow: {pages}", soft_wrap=True, markup=False)


def farewell_failed(summary: Summary, out: Console) -> None:
    """Prints which trials failed, and why a run stopped before its end."""
    for name, error in summary.failed.items():
        out.print(f"  failed: {name}: {error.splitlines()[-1]}", style="red", markup=False, soft_wrap=True)
    if summary.stopped:
        left = f"{summary.left} trials were not started; once it is mended, the same command goes on."
        out.print(f"Stopped: {summary.stopped} {left}", style="red", markup=False, soft_wrap=True)
