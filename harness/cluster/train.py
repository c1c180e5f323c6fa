"""One trial through a Ray Train TorchTrainer: in this process for one device, as a DDP group for several."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from harness.planning.trials import Job
from harness.store import Store
from harness.training import run_trial


def fit(job: Job, store: str, report: Callable[[dict[str, Any]], None], scratch: Path) -> None:
    """Trains a trial and writes its result to the store.

    A worker group that loses a process is started again, as often as ``resources.retries`` says; what a process raises
    itself is the trial's error. With one worker the TorchTrainer starts no process (``num_workers=0``): starting its
    five actors takes longer than a small fine-tune. ``ray.train.report`` does not work in this mode, so metrics are
    reported to Tune directly.

    Args:
        job: the trial to train, and the resources of its workers.
        store: the store's root.
        report: called with the metrics of every evaluation.
        scratch: folder for Ray Train's state of a worker group.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if job.trial.workers == 1:  # also a trial that trains nothing, in a grid with worker groups
        TorchTrainer(
            lambda: _ignore(run_trial.run(job, Store(store), report)), scaling_config=ScalingConfig(num_workers=0)
        ).fit()
        return
    for attempt in range(job.resources.retries + 1):
        try:
            return _fit_group(job, store, scratch)
        except WorkerGroupError as error:
            if attempt == job.resources.retries or not _lost_process(error):
                raise
            print(f"a process of the worker group was lost; starting the group again ({error})", flush=True)


def _lost_process(error: WorkerGroupError) -> bool:
    """Whether a process of a group died or hung, by an error that Ray raises itself; the others then fail with it."""
    return any(
        isinstance(failure, RayActorError) or type(failure).__module__.startswith("ray.train.v2.")
        for failure in error.worker_failures.values()
    )


def _fit_group(job: Job, store: str, scratch: Path) -> None:
    """Trains a trial with a worker group, from its checkpoint if it has one."""
    resources = job.resources
    per_worker = {"CPU": float(resources.cpus), "GPU": resources.gpus}
    if resources.memory_gb:
        per_worker["memory"] = resources.memory_gb * 1e9
    TorchTrainer(
        _worker,
        train_loop_config={"job": job.model_dump_json(), "store": store},
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        # with a name used before, Ray would resume the earlier run
        run_config=RunConfig(
            name=f"{job.trial.id}-{uuid.uuid4().hex[:8]}",
            storage_path=str(scratch),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    ).fit()


def _worker(config: dict[str, str]) -> None:
    job = Job.model_validate_json(config["job"])
    run_trial.run(job, Store(config["store"]), lambda entry: ray.train.report({"entry": entry}))


def _ignore(_: object) -> None:
    """Returns None: the trainer would keep the return value of a train function."""
