"""One trial through a Ray Train TorchTrainer: in this process for one device, as a DDP group for several."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from harness.planning.trials import Job
from harness.store import Store
from harness.training import run_trial


def fit(job: Job, store: str, report: Callable[[dict[str, Any]], None], scratch: Path) -> None:
    """Trains a trial and writes its result to the store.

    With one worker the TorchTrainer starts no process (``num_workers=0``): starting its five actors takes longer than
    a small fine-tune. ``ray.train.report`` does not work in this mode, so metrics are reported to Tune directly.

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
