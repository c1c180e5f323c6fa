"""One Ray Tune run for a whole grid: trials are released as soon as their checkers exist."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.search import Searcher

from harness.config.experiment import Resources
from harness.errors import TrialError, UserError
from harness.planning.trials import Job
from harness.store import Store

#: Ray Tune's own record (CSV, pickles) is switched off: the ledger is the record.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Observer(Protocol):
    """Hears, in the driver, what happens to jobs. Calls come one at a time."""

    def started(self, job: Job) -> None:
        """A job starts, for the first time or again after ``died``."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """An evaluation of a running job."""

    def finished(self, job: Job) -> None:
        """The job's result is in the store."""

    def failed(self, job: Job, error: str) -> None:
        """The job will not give a result."""

    def died(self, job: Job) -> None:
        """The job's process ended; it will be started again."""


class _NotKept:
    """Tune pickles its parts so that it could resume; we resume from the ledger, so nothing of ours is kept."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class DependencySearcher(_NotKept, Searcher):
    """Hands jobs to Tune, each as soon as its checkers are done.

    Args:
        jobs: what is to run, in the order preferred; checkers that are not among them count as done.
        observer: hears of jobs that cannot run because a checker failed.
    """

    def __init__(self, jobs: list[Job], observer: Observer) -> None:
        super().__init__(metric="status", mode="max")
        self._waiting = {job.trial.id: job for job in jobs}
        self._order = {id_: place for place, id_ in enumerate(self._waiting)}
        self._missing = {id_: set(job.trial.checkers) & self._waiting.keys() for id_, job in self._waiting.items()}
        self._dependents: dict[str, list[str]] = {}
        for id_, checkers in self._missing.items():
            for checker in checkers:
                self._dependents.setdefault(checker, []).append(id_)
        self._ready = [place for id_, place in self._order.items() if not self._missing[id_]]  # sorted, so a heap
        self._ids = list(self._waiting)
        self._broken: list[tuple[str, str]] = []  # a job and its checker that failed
        self._running: dict[str, str] = {}
        self._observer = observer

    def suggest(self, trial_id: str) -> Any:
        """The next job that can run, None if all wait, FINISHED if there is none left."""
        while self._broken:
            id_, checker = self._broken.pop(0)
            job = self._waiting.pop(id_, None)
            if job is not None:
                self._close(id_, failed=True)
                self._observer.failed(job, f"its checker {checker} failed")
        if self._ready:
            id_ = self._ids[heappop(self._ready)]
            self._running[trial_id] = id_
            return {"job": self._waiting.pop(id_).model_dump_json()}
        return None if self._waiting else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Releases what waited for this job."""
        self._close(self._running.pop(trial_id), failed=error or (result or {}).get("status") != 1)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def _close(self, id_: str, failed: bool) -> None:
        for dependent in self._dependents.pop(id_, ()):
            if failed:
                self._broken.append((dependent, id_))
            else:
                self._missing[dependent].discard(id_)
                if not self._missing[dependent] and dependent in self._waiting:
                    heappush(self._ready, self._order[dependent])


class ObserverCallback(_NotKept, Callback):
    """Passes what Tune says of its trials on to an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's actor got it."""
        self._observer.started(_job(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """An evaluation came in."""
        if isinstance(result.get("entry"), dict):
            self._observer.evaluated(_job(trial), result["entry"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself, well or with an error of its own."""
        last = trial.last_result or {}
        if last.get("status") == 1:
            self._observer.finished(_job(trial))
        else:
            self._observer.failed(_job(trial), str(last.get("error", "the trial ended without a result")))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died; Tune starts it again."""
        self._observer.died(_job(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died too often."""
        self._observer.failed(
            _job(trial), f"the trial's process died {trial.num_failures} times: killed, or out of memory"
        )


@dataclass(frozen=True)
class Cluster:
    """A running Ray: what it has, and whether it is ours to shut down."""

    address: str | None
    cpus: float
    gpus: float
    nodes: int

    def slots(self, resources: Resources) -> int:
        """How many trials fit at once.

        Raises:
            UserError: not even one does.
        """
        fits = [self.cpus // (resources.cpus * resources.workers)]
        if resources.gpus:
            fits.append(self.gpus / (resources.gpus * resources.workers) + 1e-9)
        if int(min(fits)) < 1:
            raise UserError(
                f"one trial needs {resources.workers} x {resources.cpus} CPUs and {resources.workers} x "
                f"{resources.gpus} GPUs; the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs. Lower resources in "
                "the experiment."
            )
        return min(int(min(fits)), resources.concurrent or int(min(fits)))


def connect(address: str | None, scratch: Path) -> Cluster:
    """Joins the cluster at ``address`` (or RAY_ADDRESS), or starts a Ray of this machine's cores.

    Raises:
        UserError: no cluster answers at the address.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    address = address or os.environ.get("RAY_ADDRESS") or None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            # "local": without an address Ray would join whatever `ray start` has left on this machine
            ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=128 * 2**20, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address!r}: {error}") from None
    have = ray.cluster_resources()
    nodes = len([node for node in ray.nodes() if node["Alive"]])
    return Cluster(address, have.get("CPU", 0.0), have.get("GPU", 0.0), nodes)


def disconnect() -> None:
    """Leaves the cluster; a Ray that ``connect`` started ends."""
    ray.shutdown()


def check_store(store: Store, cluster: Cluster) -> None:
    """Makes sure that every node sees the store.

    Raises:
        UserError: a node does not; it is named.
    """
    if not store.local or cluster.nodes < 2:
        return
    token = Path(tempfile.mkstemp(prefix="visible-", dir=_made(Path(store.root)))[1])
    seen: Any = ray.remote(num_cpus=0)(lambda path: Path(path).exists())
    try:
        for node in (n for n in ray.nodes() if n["Alive"]):
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(seen.options(scheduling_strategy=here).remote(str(token))):
                raise UserError(
                    f"the store {store.root} is not visible on node {node['NodeManagerAddress']}. On several nodes "
                    "give a shared folder or a URL: --store s3://bucket/harness, or HARNESS_STORE."
                )
    finally:
        token.unlink()


def run(
    jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, observer: Observer, scratch: Path
) -> None:
    """Runs jobs to the end, in one Tune run. What happens to each is told to the observer.

    Args:
        jobs: checkers before those that need them; checkers that are not among them must be done.
        resources: what one trial takes.
        store: where splits and scores are, and results go.
        cluster: from ``connect``.
        observer: hears of starts, evaluations and ends.
        scratch: a folder for Ray's own files.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir=_made(scratch)))
    grouped = resources.workers > 1
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0.0) * 1e9}
    if grouped:  # its workers take the devices; Tune refuses a trial that takes nothing at all
        bundle = {"memory": 1e8}
    function = _trainable(store.root, resources, folder)
    tuner = Tuner(
        tune.with_resources(function, PlacementGroupFactory([bundle])),
        tune_config=TuneConfig(
            search_alg=DependencySearcher(jobs, observer), num_samples=len(jobs), reuse_actors=True,
            max_concurrent_trials=cluster.slots(resources),
        ),
        run_config=RunConfig(
            name="trials", storage_path=str(folder), callbacks=[ObserverCallback(observer)], verbose=0,
            failure_config=FailureConfig(max_failures=resources.retries),
        ),
    )  # fmt: skip
    try:
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trainable(store: str, resources: Resources, scratch: Path) -> Callable[[dict[str, Any]], None]:
    """The function that a Tune actor calls for each of its trials, one after the other."""

    def trial(config: dict[str, Any]) -> None:
        from harness.cluster import train  # torch, which the driver does without

        job = Job.model_validate_json(config["job"])
        try:
            train.fit(job, store, resources, lambda entry: tune.report({"entry": entry}), scratch)
        except Exception as error:  # an error of the trial's own: trying again would give the same
            text = str(error) if isinstance(error, TrialError) else traceback.format_exc()
            tune.report({"status": 0, "error": text})
        else:
            tune.report({"status": 1})

    return trial


def _job(trial: Any) -> Job:
    return Job.model_validate_json(trial.config["job"])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
