"""What fanning trials out costs: the documented pattern against ours, side by side.

Both patterns run the same real fine-tunes of a tiny encoder through Ray Tune and Ray Train:

* documented: a Tune function calls ``TorchTrainer(ScalingConfig(num_workers=1)).fit()`` with ``TuneReportCallback``,
  as in Ray's guide "Hyperparameter Tuning with Ray Tune". Every trial starts fresh actors.
* ours: ``harness.cluster.tune.run``. Tune's actors are reused, and the TorchTrainer runs in their own process.

Overhead per trial = (wall time of the fan-out - seconds of work measured inside the trials / concurrency) / trials.
Starting Ray is in neither; starting actors and importing torch in them is in both. The patterns alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.cluster import tune as fan_out
from harness.config.experiment import Experiment, Resources
from harness.data.split_files import load_split, save_split
from harness.planning.plan import make
from harness.planning.trials import Job
from harness.store import Store
from harness.testing import make_benchmark, make_encoder
from harness.training import run_trial, trial_result

GOAL = 0.05


@dataclass(frozen=True)
class Measured:
    """One fan-out.

    Attributes:
        wall: seconds from the call until it returned.
        work: seconds inside the trials, all together.
        overhead: seconds per trial beyond its own work.
    """

    wall: float
    work: float
    overhead: float


class Quiet:
    """Hears of jobs and keeps the failures."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def started(self, job: Job) -> None:
        """Nothing."""

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        """Nothing."""

    def finished(self, job: Job) -> None:
        """Nothing."""

    def died(self, job: Job) -> None:
        """Notes a process that died: the measurement is void."""
        self.errors.append(f"{job.trial.id}: its process died")

    def failed(self, job: Job, error: str) -> None:
        """Notes a failure: the measurement is void."""
        self.errors.append(error)


def ours(jobs: list[Job], resources: Resources, store: Store, cluster: fan_out.Cluster, scratch: Path) -> None:
    """The fan-out of harness, as `harness run` uses it."""
    observer = Quiet()
    fan_out.run(jobs, resources, store, cluster, observer, scratch)
    if observer.errors:
        raise RuntimeError(observer.errors[0])


def documented(jobs: list[Job], resources: Resources, store: Store, cluster: fan_out.Cluster, scratch: Path) -> None:
    """Ray's documented pattern. The Tune function takes no core of its own, so that no trial waits for its driver."""
    import ray.train
    import ray.tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    root, cpus, folder = store.root, resources.cpus, str(scratch)

    def train_loop(config: dict[str, Any]) -> None:
        job = Job.model_validate_json(config["job"])
        run_trial.run(job, Store(root), lambda entry: ray.train.report(dict(entry)))

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": cpus}),
            run_config=ray.train.RunConfig(
                name=uuid.uuid4().hex,
                storage_path=folder,
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            ),
        ).fit()

    results = ray.tune.Tuner(
        ray.tune.with_resources(trial, {"memory": 1e8}),  # Tune refuses a trial that takes nothing
        param_space={"job": ray.tune.grid_search([job.model_dump_json() for job in jobs])},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=cluster.slots(resources)),
        run_config=ray.tune.RunConfig(name=uuid.uuid4().hex, storage_path=folder, verbose=0),
    ).fit()
    if results.errors:
        raise results.errors[0]


PATTERNS = {"documented": documented, "ours": ours}


def prepare(folder: Path, trials: int, epochs: int) -> list[Job]:
    """Trials of CE on the tiny benchmark, one a seed."""
    for name in ("encoder", "benchmark"):
        (folder / name).mkdir()
    settings = {
        "name": "fanout", "benchmarks": [str(make_benchmark(folder / "benchmark"))],
        "encoder": str(make_encoder(folder / "encoder")), "seeds": list(range(trials)),
        "grid": [{"source": "generated", "methods": ["ce"]}],
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-3},
    }  # fmt: skip
    experiment = Experiment.model_validate(settings)
    plan = make(experiment, None)
    for split in plan.splits["tiny"].values():
        save_split(split, Store(str(folder / "splits")))
    return plan.jobs


def measure(name: str, jobs: list[Job], cluster: fan_out.Cluster, folder: Path) -> Measured:
    """One fan-out of all trials into a store of its own, which has the splits and nothing else."""
    resources = Resources()
    own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    store = Store(str(own / "store"))
    for digest in jobs[0].trial.task.digests.values():
        save_split(load_split(digest, Store(str(folder / "splits"))), store)
    start = time.perf_counter()
    PATTERNS[name](jobs, resources, store, cluster, own)
    wall = time.perf_counter() - start
    work = 0.0
    for job in jobs:
        result = trial_result.load_result(job.trial, store)
        if result is None:
            raise RuntimeError(f"{name}: trial {job.trial.id} gave no result")
        work += sum(seconds for key, seconds in result.runtime.items() if key.startswith("seconds_"))
    return Measured(wall, work, (wall - work / cluster.slots(resources)) / len(jobs))


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/fanout.py --trials 8 --repetitions 3 --json fanout.json",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=8, help="trials of each fan-out (default 8)")
    parser.add_argument("--repetitions", type=int, default=3, help="fan-outs of each pattern, alternating (default 3)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a trial: about 1 s at 20 (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()

    out = Console(highlight=False)
    measured: dict[str, list[Measured]] = {name: [] for name in PATTERNS}
    with tempfile.TemporaryDirectory(prefix="fanout-") as temporary:
        folder = Path(temporary)
        jobs = prepare(folder, args.trials, args.epochs)
        cluster = fan_out.connect(None, folder)
        concurrency = cluster.slots(Resources())
        try:
            for repetition in range(args.repetitions):
                for name in PATTERNS:
                    fan_out_run = measure(name, jobs, cluster, folder)
                    measured[name].append(fan_out_run)
                    out.print(
                        f"repetition {repetition + 1}, {name}: {fan_out_run.wall:.1f} s for {args.trials} trials",
                        style="dim",
                    )
        finally:
            fan_out.disconnect()
    report = summarize(measured, args.trials, concurrency)
    show(report, out)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def summarize(measured: Mapping[str, list[Measured]], trials: int, concurrency: int) -> dict[str, Any]:
    """Medians over the repetitions, and their ratio."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(one, field) for one in measured[name]))

    report: dict[str, Any] = {
        "trials": trials, "concurrency": concurrency, "repetitions": len(measured["ours"]), "cpus": os.cpu_count(),
        "python": platform.python_version(), "ray": version("ray"), "torch": version("torch"),
    }  # fmt: skip
    for name in measured:
        report[f"{name}_wall_seconds"] = median(name, "wall")
        report[f"{name}_work_seconds_per_trial"] = median(name, "work") / trials
        report[f"{name}_overhead_seconds_per_trial"] = median(name, "overhead")
        report[f"{name}_overhead_seconds_per_trial_all"] = [one.overhead for one in measured[name]]
    report["fanout_overhead_ratio"] = median("ours", "overhead") / median("documented", "overhead")
    report["fanout_wall_ratio"] = median("ours", "wall") / median("documented", "wall")
    return report


def show(report: Mapping[str, Any], out: Console) -> None:
    """The table."""
    table = Table(
        title=f"{report['trials']} trials, {report['concurrency']} at a time, "
        f"medians of {report['repetitions']} fan-outs"
    )
    for column in ("pattern", "wall s", "work s/trial", "overhead s/trial", "lowest .. highest"):
        table.add_column(column, justify="left" if column == "pattern" else "right")
    for name in PATTERNS:
        every = report[f"{name}_overhead_seconds_per_trial_all"]
        table.add_row(
            name,
            f"{report[f'{name}_wall_seconds']:.1f}",
            f"{report[f'{name}_work_seconds_per_trial']:.2f}",
            f"{report[f'{name}_overhead_seconds_per_trial']:.2f}",
            f"{min(every):.2f} .. {max(every):.2f}",
        )
    out.print(table)
    ratio = report["fanout_overhead_ratio"]
    verdict = "within" if ratio <= GOAL else "above"
    out.print(f"overhead, ours / documented: {ratio:.3f} ({verdict} the goal of {GOAL})")


if __name__ == "__main__":
    main()
