"""What fanning trials out costs: the documented pattern against ours, side by side.

Both patterns run the same real fine-tunes of a tiny encoder through Ray Tune and Ray Train:

* documented: a Tune function calls ``TorchTrainer(ScalingConfig(num_workers=1)).fit()`` with ``TuneReportCallback``,
  as in Ray's guide "Hyperparameter Tuning with Ray Tune". Every trial starts fresh actors.
* ours: ``harness.cluster.tune.run``. Tune's actors are reused, and the TorchTrainer runs in their own process.

Overhead per trial = (wall time of the fan-out - seconds of work measured inside the trials / concurrency) / trials.
Starting Ray is in neither; starting actors and importing torch in them is in both. The patterns alternate.

Start-up = seconds until the work of the first trial begins: starting an actor and importing torch in it. The work of a
trial begins at the time of its result's file, minus the seconds of its work. Further seconds per trial = (wall time -
start-up - work / concurrency) / trials: what each trial adds once the fan-out runs.
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

from harness.cluster import connection
from harness.cluster import tune as fan_out
from harness.cluster.nodes import Cluster
from harness.config.experiment import Experiment
from harness.config.resources import Resources
from harness.data.split_files import load_split, save_split
from harness.planning.plan import make
from harness.planning.trials import Job
from harness.store import Store
from harness.testing import make_benchmark, make_encoder
from harness.training import run_trial, trial_result

#: Largest overhead of ours, as a share of that of the documented pattern.
GOAL = 0.05
#: Most seconds of ours per trial beyond its work and the start-up, in a fan-out of this many trials.
FURTHER_GOAL, FURTHER_TRIALS = 0.25, 128


@dataclass(frozen=True)
class Measured:
    """One fan-out.

    Attributes:
        wall: seconds from the call until it returned.
        work: seconds inside the trials, all together.
        overhead: seconds per trial beyond its own work.
        startup: seconds from the call until the work of the first trial began.
        further: seconds per trial beyond its own work and the start-up.
    """

    wall: float
    work: float
    overhead: float
    startup: float
    further: float


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

    def died(self, job: Job, how: str) -> None:
        """Notes a process that died: the measurement is void."""
        self.errors.append(f"{job.trial.id}: its process died: {how}")

    def failed(self, job: Job, error: str, log: str = "") -> None:
        """Notes a failure: the measurement is void."""
        self.errors.append(error)


def ours(jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, scratch: Path) -> None:
    """The fan-out of harness, as `harness run` uses it."""
    observer = Quiet()
    fan_out.run(jobs, resources, store, cluster, observer, scratch)
    if observer.errors:
        raise RuntimeError(observer.errors[0])


def documented(jobs: list[Job], resources: Resources, store: Store, cluster: Cluster, scratch: Path) -> None:
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
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=cluster.slots({resources})),
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


def measure(name: str, jobs: list[Job], cluster: Cluster, folder: Path) -> Measured:
    """One fan-out of all trials into a store of its own, which has the splits and nothing else."""
    resources = Resources()
    own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    store = Store(str(own / "store"))
    for digest in jobs[0].trial.task.digests.values():
        save_split(load_split(digest, Store(str(folder / "splits"))), store)
    started, start = time.time(), time.perf_counter()  # the first is the clock of files
    PATTERNS[name](jobs, resources, store, cluster, own)
    wall = time.perf_counter() - start
    work, begins = 0.0, []
    for job in jobs:
        result = trial_result.load_result(job.trial, store)
        if result is None:
            raise RuntimeError(f"{name}: trial {job.trial.id} gave no result")
        seconds = sum(value for key, value in result.runtime.items() if key.startswith("seconds_"))
        stored = (Path(store.root) / "trials" / f"{job.trial.id}.npz").stat().st_mtime
        begins.append(stored - started - seconds)
        work += seconds
    beyond = wall - work / cluster.slots({resources})
    return Measured(wall, work, beyond / len(jobs), min(begins), (beyond - min(begins)) / len(jobs))


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/fanout.py --trials 32 128 --patterns ours --json fanout.json",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, nargs="+", default=[8], help="trials of each fan-out (default 8)")
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=list(PATTERNS), help="default: both")
    parser.add_argument("--repetitions", type=int, default=3, help="fan-outs of each pattern, alternating (default 3)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a trial: about 1 s at 20 (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()

    out = Console(highlight=False)
    sizes, patterns = sorted(set(args.trials)), list(dict.fromkeys(args.patterns))
    measured: dict[int, dict[str, list[Measured]]] = {size: {name: [] for name in patterns} for size in sizes}
    with tempfile.TemporaryDirectory(prefix="fanout-") as temporary:
        folder = Path(temporary)
        jobs = prepare(folder, max(sizes), args.epochs)
        cluster = connection.connect(None, folder)
        concurrency = cluster.slots({Resources()})
        try:
            for repetition in range(args.repetitions):
                for size, fan_outs in measured.items():
                    for name in patterns:
                        fan_out_run = measure(name, jobs[:size], cluster, folder)
                        fan_outs[name].append(fan_out_run)
                        out.print(
                            f"repetition {repetition + 1}, {name}: {fan_out_run.wall:.1f} s for {size} trials",
                            style="dim",
                        )
        finally:
            connection.disconnect()
    report: dict[str, Any] = {
        "concurrency": concurrency, "repetitions": args.repetitions, "cpus": os.cpu_count(),
        "python": platform.python_version(), "ray": version("ray"), "torch": version("torch"),
    }  # fmt: skip
    report |= {str(size): summarize(fan_outs, size) for size, fan_outs in measured.items()}
    show(report, sizes, patterns, out)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def summarize(measured: Mapping[str, list[Measured]], trials: int) -> dict[str, Any]:
    """Medians over the repetitions of fan-outs of one size, and the ratios of ours to the documented pattern."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(one, field) for one in measured[name]))

    figures: dict[str, Any] = {"trials": trials}
    for name, fan_outs in measured.items():
        figures[f"{name}_wall_seconds"] = median(name, "wall")
        figures[f"{name}_work_seconds_per_trial"] = median(name, "work") / trials
        figures[f"{name}_overhead_seconds_per_trial"] = median(name, "overhead")
        figures[f"{name}_overhead_seconds_per_trial_all"] = [one.overhead for one in fan_outs]
        figures[f"{name}_startup_seconds"] = median(name, "startup")
        figures[f"{name}_further_seconds_per_trial"] = median(name, "further")
        figures[f"{name}_further_seconds_per_trial_all"] = [one.further for one in fan_outs]
    if measured.keys() == PATTERNS.keys():
        figures["fanout_overhead_ratio"] = median("ours", "overhead") / median("documented", "overhead")
        figures["fanout_wall_ratio"] = median("ours", "wall") / median("documented", "wall")
    return figures


def show(report: Mapping[str, Any], sizes: list[int], patterns: list[str], out: Console) -> None:
    """The table, and how the figures meet the goals."""
    title = f"{report['concurrency']} trials at a time, medians of {report['repetitions']} fan-outs"
    table = Table("trials", "pattern", title=title, caption="work, overhead and further: seconds per trial")
    for column in ("wall s", "start-up s", "work", "overhead", "further", "lowest .. highest"):
        table.add_column(column, justify="right")
    verdicts = []
    for size in sizes:
        figures = report[str(size)]
        for name in patterns:
            every = figures[f"{name}_further_seconds_per_trial_all"]
            table.add_row(
                str(size), name, f"{figures[f'{name}_wall_seconds']:.1f}", f"{figures[f'{name}_startup_seconds']:.1f}",
                f"{figures[f'{name}_work_seconds_per_trial']:.2f}",
                f"{figures[f'{name}_overhead_seconds_per_trial']:.2f}",
                f"{figures[f'{name}_further_seconds_per_trial']:.2f}", f"{min(every):.2f} .. {max(every):.2f}",
            )  # fmt: skip
        if "fanout_overhead_ratio" in figures:
            ratio = figures["fanout_overhead_ratio"]
            verdict = "within" if ratio <= GOAL else "above"
            verdicts.append(f"{size} trials: overhead, ours / documented: {ratio:.3f} ({verdict} the goal of {GOAL})")
        if size == FURTHER_TRIALS and "ours" in patterns:
            further = figures["ours_further_seconds_per_trial"]
            verdict = "within" if further <= FURTHER_GOAL else "above"
            verdicts.append(f"{size} trials: {further:.2f} s per further trial ({verdict} the goal of {FURTHER_GOAL})")
    out.print(table)
    for line in verdicts:
        out.print(line)


if __name__ == "__main__":
    main()
