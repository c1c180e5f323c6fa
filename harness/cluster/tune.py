"""One Ray Tune run for a whole grid: a trial starts as soon as its checkers are finished."""

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

from harness.cluster.worker_log import WorkerLog, describe_death
from harness.config.experiment import Resources
from harness.errors import TrialError, UserError
from harness.planning.trials import Job
from harness.store import Store

#: Turns off Ray Tune's own files (CSV, pickles), which the ledger replaces.
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
    """Is called in the driver on every event of a job, one call at a time."""

    def started(self, job: Job) -> None:
        """A job starts, for the first time or again after ``died``."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """An evaluation of a running job."""

    def finished(self, job: Job) -> None:
        """The job's result is in the store."""

    def failed(self, job: Job, error: str, log: str = "") -> None:
        """The job ended without a result; ``log``: the end of what its process printed."""

    def died(self, job: Job, how: str) -> None:
        """The job's process ended; it will be started again."""


class _Stateless:
    """Pickles to nothing: Tune pickles its parts in order to resume, but a run is resumed from the ledger."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class DependencySearcher(_Stateless, Searcher):
    """Gives jobs to Tune, each as soon as its checkers are finished.

    Args:
        jobs: the jobs to run, in the preferred order; checkers that are not among them count as finished.
        observer: is told of jobs that cannot run because a checker failed.
        stop: returns true once no more jobs are to be given.
    """

    def __init__(self, jobs: list[Job], observer: Observer, stop: Callable[[], Any] = lambda: False) -> None:
        super().__init__(metric="status", mode="max")
        self._waiting = {job.trial.id: job for job in jobs}
        self._order = {id_: position for position, id_ in enumerate(self._waiting)}
        self._missing = {id_: set(job.trial.checkers) & self._waiting.keys() for id_, job in self._waiting.items()}
        self._dependents: dict[str, list[str]] = {}
        for id_, checkers in self._missing.items():
            for checker in checkers:
                self._dependents.setdefault(checker, []).append(id_)
        self._ready = [
            position for id_, position in self._order.items() if not self._missing[id_]
        ]  # sorted, and so a heap
        self._ids = list(self._waiting)
        self._blocked: list[tuple[str, str]] = []  # ids of a job and of its failed checker
        self._running: dict[str, str] = {}
        self._observer, self._stop = observer, stop

    def suggest(self, trial_id: str) -> Any:
        """The next job that can run, None if all remaining jobs wait for checkers, FINISHED without remaining jobs."""
        if self._stop():
            return Searcher.FINISHED
        while self._blocked:
            id_, checker = self._blocked.pop(0)
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
        """Releases the jobs that waited for this one."""
        self._close(self._running.pop(trial_id), failed=error or (result or {}).get("status") != 1)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the record."""

    def _close(self, id_: str, failed: bool) -> None:
        for dependent in self._dependents.pop(id_, ()):
            if failed:
                self._blocked.append((dependent, id_))
            else:
                self._missing[dependent].discard(id_)
                if not self._missing[dependent] and dependent in self._waiting:
                    heappush(self._ready, self._order[dependent])


class ObserverCallback(_Stateless, Callback):
    """Translates Tune's callbacks to those of an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts in its actor."""
        self._observer.started(_job(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A trial reported an evaluation."""
        if isinstance(result.get("entry"), dict):
            self._observer.evaluated(_job(trial), result["entry"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended, with a result or with an exception."""
        last = trial.last_result or {}
        if last.get("status") == 1:
            self._observer.finished(_job(trial))
        else:
            error = str(last.get("error", "the trial ended without reporting a result"))
            self._observer.failed(_job(trial), error, str(last.pop("log", "")))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died; Tune starts it again."""
        self._observer.died(_job(trial), describe_death(trial.error_file)[0])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died more often than it may be restarted."""
        how, log = describe_death(trial.error_file)
        times = f" {trial.num_failures} times, last" if trial.num_failures > 1 else ""
        self._observer.failed(_job(trial), f"the trial's process died{times}: {how}", log)


@dataclass(frozen=True)
class Cluster:
    """The resources of a running Ray.

    Attributes:
        address: as given to ``connect``; None for a Ray that it started.
        cpus: of all nodes.
        gpus: of all nodes.
        nodes: that are alive.
    """

    address: str | None
    cpus: float
    gpus: float
    nodes: int

    def slots(self, resources: Resources) -> int:
        """Number of trials that can run at the same time.

        Raises:
            UserError: the cluster is too small for one trial.
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
    """Connects to the cluster at ``address`` (or RAY_ADDRESS), or starts a Ray with the cores of this machine.

    Raises:
        UserError: no cluster responds at the address.
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
    totals = ray.cluster_resources()
    nodes = len([node for node in ray.nodes() if node["Alive"]])
    return Cluster(address, totals.get("CPU", 0.0), totals.get("GPU", 0.0), nodes)


def disconnect() -> None:
    """Disconnects from the cluster, and ends a Ray that ``connect`` started."""
    ray.shutdown()


def check_store(store: Store, cluster: Cluster) -> None:
    """Checks that every node can see the store.

    Raises:
        UserError: the address of a node that cannot see it.
    """
    if not store.local or cluster.nodes < 2:
        return
    token = Path(tempfile.mkstemp(prefix="visible-", dir=_make_folder(Path(store.root)))[1])
    exists: Any = ray.remote(num_cpus=0)(lambda path: Path(path).exists())
    try:
        for node in (n for n in ray.nodes() if n["Alive"]):
            affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(exists.options(scheduling_strategy=affinity).remote(str(token))):
                raise UserError(
                    f"the store {store.root} is not visible on node {node['NodeManagerAddress']}. On several nodes "
                    "pass a shared folder or a URL: --store s3://bucket/harness, or HARNESS_STORE."
                )
    finally:
        token.unlink()


def run(
    jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, observer: Observer, scratch: Path,
    stop: Callable[[], Any] = lambda: False,
) -> None:  # fmt: skip
    """Runs jobs to the end, in one Tune run.

    Args:
        jobs: checkers before their dependents; checkers that are not among them must be finished.
        resources: of one trial.
        store: with the splits and scores; results are written to it.
        cluster: from ``connect``.
        observer: is told of starts, evaluations and ends.
        scratch: folder for Ray's own files.
        stop: returns true once no more jobs are to be started; running ones end as usual.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-", dir=_make_folder(scratch)))
    grouped = resources.workers > 1
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": (resources.memory_gb or 0.0) * 1e9}
    if grouped:  # its workers take the devices; Tune rejects a trial without any resources
        bundle = {"memory": 1e8}
    function = _trainable(store.root, resources, folder)
    tuner = Tuner(
        tune.with_resources(function, PlacementGroupFactory([bundle])),
        tune_config=TuneConfig(
            search_alg=DependencySearcher(jobs, observer, stop), num_samples=len(jobs), reuse_actors=True,
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
    """The function that a Tune actor calls for each of its trials."""

    def trial(config: dict[str, Any]) -> None:
        from harness.cluster import train  # torch, which the driver does without

        job, log = Job.model_validate_json(config["job"]), WorkerLog()
        try:
            train.fit(job, store, resources, lambda entry: tune.report({"entry": entry}), scratch)
        except Exception as error:  # an error of the trial itself: it would fail again
            text = whole = traceback.format_exc()
            output = log.end()
            if isinstance(error, TrialError):
                text, output = str(error), f"{output}\n{whole}"
            tune.report({"status": 0, "error": text, "log": output})
        else:
            tune.report({"status": 1})

    return trial


def _job(trial: Any) -> Job:
    return Job.model_validate_json(trial.config["job"])


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
