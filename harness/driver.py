"""Runs the unfinished trials of a planned experiment on the cluster and writes their results to the ledger."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from harness.config.sources import SOURCES
from harness.data.benchmarks import catalogue
from harness.data.selection import select
from harness.data.split import Split
from harness.data.split_files import save_split
from harness.errors import RunStoppedError, UserError
from harness.ledger.artifacts import PlannedTrial, PlanRecord, Texts, to_parquet
from harness.ledger.entries import finished, open_reader
from harness.ledger.legacy import describe_sources
from harness.paths import Paths
from harness.planning.estimate import work
from harness.planning.plan import Plan, missing
from harness.planning.trials import Job, describe
from harness.recorder import ProgressObserver, Recorder
from harness.store import Store

if TYPE_CHECKING:  # Ray is slow to import, and a run without unfinished trials does not need it
    from harness.cluster.tune import Fit
    from harness.ledger.signals import Signals


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        finished: number of trials that this run finished.
        reused: number of trials that were finished before.
        failed: description -> error of each trial that failed in this run.
        stopped: why the run stopped before its end, "" if it did not.
        left: number of trials that were not started because of that.
    """

    finished: int
    reused: int
    failed: dict[str, str]
    stopped: str = ""
    left: int = 0


def execute(
    plan: Plan, paths: Paths, address: str | None, command: str, console: ProgressObserver,
    only: Collection[str] | None = None, fit: Fit | None = None,
) -> Summary:  # fmt: skip
    """Runs the unfinished trials of an experiment.

    Args:
        plan: the experiment.
        paths: store, ledger and local folder.
        address: of a Ray cluster; None for RAY_ADDRESS, or else this machine.
        command: the command line, for the record.
        console: shows the progress.
        only: ids of the trials to run, with the checkers that they need; None for all.
        fit: what a worker calls to train a trial; for measurements.

    Raises:
        UserError: another run of the same experiment uses this home folder, or the cluster is too small.
        RunStoppedError: `harness stop` has stopped it.
    """
    name = plan.experiment.name
    locks = paths.home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{name}.lock", timeout=0):
            return _execute(plan, paths, address, command, console, only, fit)
    except Timeout:
        raise UserError(f"another run of the experiment {name!r} is using {paths.home}; wait until it ends") from None


def _execute(
    plan: Plan, paths: Paths, address: str | None, command: str, console: ProgressObserver,
    only: Collection[str] | None, fit: Fit | None,
) -> Summary:  # fmt: skip
    started = time.perf_counter()
    store = Store(paths.store)
    reader = open_reader(paths.tracking_uri, paths.home)
    entries = reader.trials()
    finished_ids = finished(entries)
    left_alone = set() if only is None else plan.trials.keys() - only
    todo = missing(plan, finished_ids | left_alone, store)
    files = plan_files(plan)
    parent = reader.parents().get(plan.experiment.name)
    unchanged = parent is not None and reader.artifact(parent, PlanRecord.FILE) == files[PlanRecord.FILE]
    if not todo and unchanged and parent is not None and parent.status == "FINISHED":
        return Summary(0, len(plan.jobs), {})
    for splits in plan.splits.values():
        for split in splits.values():
            save_split(split, store)

    from harness.ledger.mlflow_ledger import Ledger
    from harness.ledger.provenance import provenance
    from harness.ledger.signals import Signals

    ledger = Ledger(paths.tracking_uri, paths.home)
    ledger.open(plan.experiment.name, provenance(plan.experiment.description, command), files)
    recorder = Recorder(plan, store, ledger, console, {id_: entries[id_] for id_ in finished_ids})
    signals = Signals(ledger, ledger.parent)
    status, stopped = "KILLED", ""
    try:
        if todo:
            with signals:
                stopped = _run(todo, plan, paths, store, address, recorder, signals, fit)
        left = [job for job in todo if job.trial.id not in recorder.ended]
        if left and signals.stop_requested():
            raise RunStoppedError
        for job in left if not stopped else ():
            recorder.failed(job, "the trial ended without reporting a result; see Ray's log")
        recorder.close()
        status = "FAILED" if recorder.errors or stopped else "FINISHED"
    except (KeyboardInterrupt, RunStoppedError):
        if signals.stop_requested():
            count = len(todo) - len(recorder.ended)
            raise RunStoppedError(
                f"{count} of {len(todo)} trials are left. Run the same command to continue."
            ) from None
        raise
    finally:
        console.end()
        if status == "KILLED":
            recorder.close()
        metrics = {}
        if todo:
            from harness.training.memory import own_peak_memory_mb

            metrics["driver_peak_memory_mb"] = own_peak_memory_mb()
            metrics["wall_seconds"] = ledger.before("wall_seconds") + time.perf_counter() - started
        ledger.close(status, metrics)
    reused = len((finished_ids & plan.trials.keys()) - {job.trial.id for job in todo})
    failed = {describe(plan.trials[id_]): text for id_, text in recorder.errors.items()}
    return Summary(recorder.done, reused, failed, stopped, len(todo) - len(recorder.ended))


def _run(
    todo: list[Job], plan: Plan, paths: Paths, store: Store, address: str | None, recorder: Recorder,
    signals: Signals, fit: Fit | None,
) -> str:  # fmt: skip
    """Runs trials on the cluster; why it stopped before the end, "" if it did not."""
    from harness.cluster import connection, tune

    cluster = connection.connect(address, paths.home)
    try:
        if cluster.recommendation:
            recorder.console.note(cluster.recommendation)
        resources = plan.experiment.resources
        slots = cluster.slots({job.resources for job in todo}, resources.most)
        connection.check_store(store, cluster)
        recorder.console.begin(todo, slots, work(plan))
        return tune.run(todo, resources, store, cluster, recorder, paths.home / "ray", signals.stop_requested, fit)
    finally:
        connection.disconnect()
        wrong = recorder.errors or recorder.restarts or isinstance(sys.exception(), Exception)
        if wrong and cluster.log is not None and cluster.log.exists():
            recorder.console.note(f"Ray's own messages: {cluster.log}")


def plan_files(plan: Plan) -> dict[str, bytes]:
    """The files of the parent run: plan, experiment (to repeat the run), and the texts of the training rows."""
    experiment = resolved_experiment(plan)
    settings = {key: value for key, value in experiment.items() if key != "benchmarks"}
    trials = [
        PlannedTrial(
            trial=job.trial.id, benchmark=job.trial.task.name, source=job.trial.source, method=job.trial.method.name,
            label=job.label, seed=job.trial.seed, fraction=job.trial.fraction, variants=list(job.variants),
            requested=job.requested, quality_checker=job.trial.quality, diversity_checker=job.trial.diversity,
            threads=job.trial.threads, diversity_folds=list(job.trial.diversity_folds),
        )
        for job in plan.jobs
    ]  # fmt: skip
    benchmarks = {
        name: {
            "labels": list(plan.benchmarks[name].labels),
            "splits": [_outline(split, plan.benchmarks[name].labels) for split in splits.values()],
        }
        for name, splits in plan.splits.items()
    }
    record = PlanRecord(plan.experiment.name, settings, benchmarks, describe_sources(), trials)
    text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
    files = {PlanRecord.FILE: record.to_bytes(), "experiment.yaml": text.encode()}
    trained = dict.fromkeys(name for row in plan.experiment.grid for name in SOURCES[row.source].splits)
    for name, splits in plan.splits.items():
        rows = select([split for split in trained if split in splits], splits, None, 0)
        files[Texts.file(name)] = to_parquet(Texts.to_frame(rows.ids, rows.texts, rows.pairs))
    return files


def resolved_experiment(plan: Plan) -> dict[str, Any]:
    """The experiment with all settings resolved, so that it repeats the run; catalogue benchmarks stay names."""
    experiment = plan.experiment.model_dump(mode="json")
    names = catalogue()
    experiment["benchmarks"] = [
        entry if isinstance(entry, str) and entry in names
        else spec.model_dump(mode="json", exclude={"limits"}, exclude_none=True)
        for entry, spec in zip(plan.experiment.benchmarks, plan.benchmarks.values(), strict=True)
    ]  # fmt: skip
    for row in experiment["grid"]:
        row["methods"] = [{"name": method["name"], **method["settings"]} for method in row["methods"]]
    return experiment


def _outline(split: Split, labels: Sequence[str]) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(labels)).tolist()
    return {
        "split": split.name, "rows": len(split), "digest": split.digest,
        "counts": dict(zip(labels, counts, strict=True)),
    }  # fmt: skip
