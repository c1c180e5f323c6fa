"""The trials of a grid in Ray's documented pattern, with the body of ``grid_trainer.py``. A baseline of ``grid.py``.

A Tune function starts a ``TorchTrainer`` with one worker of one core for every trial, and as many trials run at once
as there are cores; the Trainer goes through ``prepare_trainer`` and reports to Tune. As in Ray's guides "Hyperparameter
Tuning with Ray Tune" and "Get Started with Distributed Training using Hugging Face Transformers", but at its best: the
Tune function takes no core, no checkpoints are written, there is no dashboard.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback


def train_loop(config: dict[str, Any]) -> None:
    """The worker: the plain script, reporting every evaluation."""
    from grid_trainer import Script, parse
    from ray.train.huggingface.transformers import RayTrainReportCallback, prepare_trainer

    class ReportCallback(RayTrainReportCallback):
        """Reports after an evaluation, not after a checkpoint, as there are none."""

        def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
            self.on_save(*args, **kwargs)  # type: ignore[no-untyped-call]

    Script(parse(config["arguments"]), [ReportCallback()], prepare_trainer).run()  # type: ignore[no-untyped-call]


def trial(config: dict[str, Any]) -> None:
    """The Tune function: reports the seconds of the trial last."""
    start = time.perf_counter()
    TorchTrainer(
        train_loop,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(
            name=uuid.uuid4().hex,
            storage_path=config["folder"],
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
        ),
    ).fit()
    ray.tune.report({"seconds": time.perf_counter() - start})


def main() -> None:
    """Runs the trials and writes their seconds, in the same order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, help="JSON: for every trial the list of arguments of grid_trainer.py")
    parser.add_argument("out", type=Path, help="for the seconds of every trial")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    args = parser.parse_args()
    trials = json.loads(args.trials.read_text(encoding="utf-8"))
    ray.init(address="local", num_cpus=args.cores, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        results = ray.tune.Tuner(
            ray.tune.with_resources(trial, {"memory": 1e8}),  # Tune refuses a trial that takes nothing
            param_space={"arguments": ray.tune.grid_search(trials), "folder": folder},
            tune_config=ray.tune.TuneConfig(max_concurrent_trials=args.cores),
            run_config=ray.tune.RunConfig(name="grid", storage_path=folder, verbose=0),
        ).fit()
    if results.errors:
        raise results.errors[0]
    seconds: dict[tuple[str, ...], float] = {}
    for number in range(len(results)):
        config, metrics = results[number].config, results[number].metrics
        assert config is not None, "every trial has arguments"
        assert metrics is not None, "a trial without errors has reported"
        seconds[tuple(config["arguments"])] = metrics["seconds"]
    args.out.write_text(json.dumps([seconds[tuple(arguments)] for arguments in trials]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
