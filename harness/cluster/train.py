"""One trial through a Ray Train TorchTrainer: in this very process for one device, as a DDP group for several."""

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

from harness.config.experiment import Resources
from harness.planning.trials import Job
from harness.store import Store
from harness.training import run_trial


def fit(job: Job, store: str, resources: Resources, report: Callable[[dict[str, Any]], None], scratch: Path) -> None:
    """Trains; the result is in the store afterwards.

    With one worker the TorchTrainer starts no process (``num_workers=0``): five actors a trial would cost many times
    what a small fine-tune takes. ``ray.train.report`` refuses to work there, so metrics go to Tune directly.

    Args:
        job: what to train.
        store: the store's root.
        resources: what each worker takes.
        report: takes the metrics of every evaluation.
        scratch: where Ray Train keeps its own state of a worker group.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if job.trial.workers == 1:  # also what trains nothing, in a grid of worker groups
        TorchTrainer(
            lambda: _ignore(run_trial.run(job, Store(store), report)), scaling_config=ScalingConfig(num_workers=0)
        ).fit()
        return
    per_worker = {"CPU": float(resources.cpus), "GPU": resources.gpus}
    if resources.memory_gb:
        per_worker["memory"] = resources.memory_gb * 1e9
    TorchTrainer(
        _worker,
        train_loop_config={"job": job.model_dump_json(), "store": store},
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        # an old name would silently resume an old run
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
    """Drops a result: what a train function returns would be kept by the trainer."""
