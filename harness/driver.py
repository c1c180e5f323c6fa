"""A planned experiment, run: what is missing goes to the cluster, what comes back goes to the ledger."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout

from harness import __version__
from harness.checkers import scores as checker_scores
from harness.cli.progress import Progress
from harness.cluster import tune
from harness.data.split import Split
from harness.errors import UserError
from harness.ledger.mlflow_ledger import Ledger
from harness.paths import Paths
from harness.planning.plan import Plan, missing, work
from harness.planning.trials import Job, describe
from harness.store import Store
from harness.training import run_trial
from harness.training.timing import own_peak_memory_mb

#: what stands for a prediction where a language model's answer named no label
NO_PREDICTION = "(none)"
VERSIONS = ("ray", "torch", "transformers", "datasets", "mlflow", "pandas", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Summary:
    """How a run of an experiment ended.

    Attributes:
        finished: trials that were run now.
        reused: trials that were done before.
        failed: description and error of each trial that failed now.
    """

    finished: int
    reused: int
    failed: dict[str, str]


def execute(plan: Plan, places: Paths, address: str | None, command: str, console: Progress) -> Summary:
    """Runs what is missing of an experiment.

    Args:
        plan: the experiment.
        places: store, ledger and local folder.
        address: of a Ray cluster; None for RAY_ADDRESS, or else this machine.
        command: how the run was started, for the record.
        console: shows progress.

    Raises:
        UserError: another run of the same experiment is going on here, the cluster is too small, ...
    """
    name = plan.experiment.name
    locks = places.home / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{name}.lock", timeout=0):
            return _execute(plan, places, address, command, console)
    except Timeout:
        raise UserError(f"another run of the experiment {name!r} is going on in {places.home}; wait for it") from None


def _execute(plan: Plan, places: Paths, address: str | None, command: str, console: Progress) -> Summary:
    started = time.perf_counter()
    store, ledger = Store(places.store), Ledger(places.tracking_uri, places.home)
    for splits in plan.splits.values():
        for split in splits.values():
            store.put_split(split)
    already = ledger.finished()
    todo = missing(plan, already, store)
    ledger.open(plan.experiment.name, provenance(plan, command), _files(plan))
    recorder = Recorder(plan, store, ledger, console, already)
    status = "KILLED"
    try:
        if todo:
            joined = tune.connect(address, places.home)
            try:
                tune.check_store(store, joined)
                console.begin(todo, joined.slots(plan.experiment.resources), work(plan))
                tune.run(todo, plan.experiment.resources, store, joined, recorder, places.home / "ray")
            finally:
                tune.disconnect()
        lost = [job for job in todo if job.trial.id not in recorder.ended]
        for job in lost:
            recorder.failed(job, "the trial ended without a word; see the log of Ray")
        status = "FAILED" if recorder.errors else "FINISHED"
    except BaseException:
        ledger.abandon("interrupted: the run was stopped")
        raise
    finally:
        console.end()
        metrics = {"driver_peak_memory_mb": own_peak_memory_mb()}
        if todo:
            metrics["wall_seconds"] = ledger.before("wall_seconds") + time.perf_counter() - started
        ledger.close(status, metrics)
    reused = len(plan.jobs) - len(todo)
    return Summary(recorder.done, reused, {describe(plan.trials[i]): text for i, text in recorder.errors.items()})


class Recorder:
    """Writes to the ledger what becomes of jobs, and shows it.

    Args:
        plan: the experiment, with the rows of its splits.
        store: where results are.
        ledger: opened.
        console: shows progress.
        already: trials whose result is in the ledger; they run only to give scores again, and are not recorded twice.
    """

    def __init__(self, plan: Plan, store: Store, ledger: Ledger, console: Progress, already: set[str]) -> None:
        self.plan, self.store, self.ledger, self.console, self.already = plan, store, ledger, console, already
        self.errors: dict[str, str] = {}
        self.ended: set[str] = set()
        self.done = 0
        self._runs: dict[str, str] = {}

    def started(self, job: Job) -> None:
        """A child run begins."""
        if job.trial.id not in self.already:
            self._runs[job.trial.id] = self.ledger.begin(job)
        self.console.started(job)

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """One batch of metrics."""
        if job.trial.id in self._runs:
            self.ledger.epoch(self._runs[job.trial.id], entry)
        self.console.evaluated(job, entry)

    def finished(self, job: Job) -> None:
        """Everything that belongs to the trial, then its end."""
        result = run_trial.load_result(job.trial, self.store)
        if result is None:
            return self.failed(job, f"the result is not in the store {self.store.root}: do the workers see it?")
        splits = self.plan.splits[job.trial.task.name]
        scores = score_frames(job, splits, self.store)
        if run := self._runs.pop(job.trial.id, None):
            frames = result_frames(job, result, splits) | scores
            self.ledger.finish(run, result.runtime, result.environment, result.history, frames)
        else:  # recorded before: only its scores are new
            self.ledger.attach(job.trial.id, scores)
        self.done += 1
        self.ended.add(job.trial.id)
        self.console.finished(job, result.history[-1])

    def failed(self, job: Job, error: str) -> None:
        """The error, then the end."""
        self.errors[job.trial.id] = error.strip()
        self.ended.add(job.trial.id)
        if job.trial.id not in self.already:
            self.ledger.fail(self._runs.pop(job.trial.id, "") or self.ledger.begin(job), error)
        self.console.failed(job, error)

    def died(self, job: Job) -> None:
        """The run so far was interrupted; another will begin."""
        if run := self._runs.pop(job.trial.id, None):
            self.ledger.interrupt(run, "the trial's process died and was started again")
        self.console.died(job)


def result_frames(job: Job, result: run_trial.Result, splits: Mapping[str, Split]) -> dict[str, pd.DataFrame]:
    """Test predictions (last and best epoch on validation) and per-example weights, for the ledger."""
    trial = job.trial
    labels = np.array(trial.task.labels)
    test, best = splits["test"], best_epoch(result.history)
    parts = []
    for epoch in sorted({best, len(result.history)}):
        log_probabilities = result.arrays["test"][epoch - 1]
        columns = {f"p_{name}": np.exp(log_probabilities[:, k]) for k, name in enumerate(trial.task.labels)}
        known = ~np.isnan(log_probabilities).any(axis=1)
        predicted = np.where(known, labels[log_probabilities.argmax(axis=1)], NO_PREDICTION)
        frame = {"id": test.ids, "epoch": epoch, "label": labels[test.labels], "prediction": predicted}
        parts.append(pd.DataFrame(frame | columns))
    predictions = {"predictions": pd.concat(parts, ignore_index=True)}
    if "weights" not in result.arrays:
        return predictions
    rows = run_trial.training_rows(trial, trial.source, dict(splits))
    weights = {f"weight_{k + 1}": result.arrays["weights"][k] for k in range(len(result.history))}
    texts = {"text": rows.texts} | ({} if rows.pairs is None else {"pair": rows.pairs})
    told = pd.DataFrame({"id": rows.ids, "label": labels[rows.labels]} | texts | weights)
    return predictions | {"weights": told}


def score_frames(job: Job, splits: Mapping[str, Split], store: Store) -> dict[str, pd.DataFrame]:
    """What a checker says of the rows that it scored (log-probabilities), for the ledger."""
    frames = {}
    for source, digests in job.scores.items():
        rows = run_trial.training_rows(job.trial, source, dict(splits))
        said = checker_scores.load(job.trial.id, rows, store).log_probabilities
        columns = {f"log_p_{name}": said[:, k] for k, name in enumerate(job.trial.task.labels)}
        frames[checker_scores.artifact_name(source, digests)] = pd.DataFrame({"id": rows.ids} | columns)
    return frames


def best_epoch(history: list[dict[str, float]]) -> int:
    """The evaluation with the best validation accuracy, the first of equals; from 1."""
    return int(np.argmax([entry.get("validation_accuracy", 0.0) for entry in history])) + 1


def provenance(plan: Plan, command: str) -> dict[str, str]:
    """Command, commit, versions, machine: what a reader needs to repeat a run."""
    commit, dirty = _commit()
    return {
        "command": command,
        "commit": commit,
        "dirty": str(dirty).lower(),
        "description": plan.experiment.description,
        "hardware": f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "version.harness": __version__,
        "version.python": platform.python_version(),
        **{f"version.{name}": version(name) for name in VERSIONS},
    }


def _files(plan: Plan) -> dict[str, bytes]:
    experiment = plan.experiment.model_dump(mode="json")
    experiment["benchmarks"] = [spec.model_dump(mode="json", exclude_none=True) for spec in plan.benchmarks.values()]
    return {"experiment.yaml": yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True).encode()}


def _commit() -> tuple[str, bool]:
    folder = Path(__file__).parent
    try:
        inside = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", "run.py"], capture_output=True, check=False
        )
        if inside.returncode:
            return "", False
        head = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "", False
    return head.stdout.strip(), bool(changed.stdout.strip())
