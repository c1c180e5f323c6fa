"""How a run grows: 100, 1,000 and 10,000 simulated trials through the real driver, Tune, store and ledger.

A simulated trial sleeps, reports five evaluations and writes a result and scores of the size of a tiny benchmark; all
else is what `harness run` does. The least time is the trials' own seconds over the slots. After every size: how long
the same command takes when nothing is left to do, `harness status`, `harness report`, and the first page of runs in
MLflow. With --server the ledger is an MLflow server on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mlflow_server import server
from rich.console import Console
from rich.table import Table

from harness.config.experiment import Experiment
from harness.driver import execute
from harness.errors import UserError
from harness.paths import Paths
from harness.planning.plan import make
from harness.planning.trials import Job
from harness.store import Store
from harness.testing import make_benchmark, make_encoder

METHODS = ["ce", "focal", "imp", "imp_quality", "dimp", "filter", "prior"]
EPOCHS = 5


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """An encoder and a benchmark, both tiny."""
    (folder / "encoder").mkdir(parents=True)
    (folder / "benchmark").mkdir()
    return make_encoder(folder / "encoder"), make_benchmark(folder / "benchmark")


def simulate(seconds: float, job: Job, store: str, report: Callable[[dict[str, Any]], None], scratch: Path) -> None:
    """In place of training: sleeps, reports, and stores a result that depends on the trial's id alone."""
    from harness.checkers.scores import Scores, save_scores
    from harness.data.selection import select_scored
    from harness.data.split_files import load_split
    from harness.training.trial_result import TrialResult, save_result

    trial, place = job.trial, Store(store)
    rng = np.random.Generator(np.random.PCG64(int(trial.id, 16)))
    classes = len(trial.task.labels)
    history = []
    for epoch in range(EPOCHS):
        time.sleep(seconds / EPOCHS)
        names = ("train_loss", "validation_accuracy", "validation_f1", "test_accuracy", "test_f1", "weight_mean")
        entry = {"epoch": epoch + 1.0, "step": 10.0 * (epoch + 1)} | {name: float(rng.random()) for name in names}
        history.append(entry)
        report(entry)
    arrays = {
        name: np.log(rng.dirichlet(np.ones(classes), (EPOCHS, len(load_split(trial.task.digests[name], place)))))
        for name in ("validation", "test")
    }
    for digests in job.scores.values():
        splits = {name: load_split(digest, place) for name, digest in digests.items()}
        ids = select_scored(tuple(digests), splits, trial.fraction, trial.seed, trial.fold).ids
        values = np.log(rng.dirichlet(np.ones(classes), len(ids))).astype(np.float32)
        save_scores(Scores(trial.id, ids, values), digests, place)
    runtime = {"seconds_train": seconds, "rows_per_second": 1.0, "peak_memory_mb": 1.0}
    result = TrialResult(history, runtime, {"device": "cpu"}, {k: v.astype(np.float32) for k, v in arrays.items()})
    save_result(trial, result, place)


class Curve:
    """Shows nothing; keeps the time and the driver's memory at every finished trial."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.slots = 0
        self.began = 0.0
        self.memory: list[float] = []  # MB
        self.failures: list[str] = []

    def begin(self, jobs: Sequence[Job], slots: int, work: Callable[[Job], float]) -> None:
        self.slots, self.began = slots, time.perf_counter()

    def started(self, job: Job) -> None:
        pass

    def evaluated(self, job: Job, entry: Mapping[str, float]) -> None:
        pass

    def finished(self, job: Job, last: Mapping[str, float]) -> None:
        self.memory.append(self.process.memory_info().rss / 1e6)

    def failed(self, job: Job, error: str, *more: object) -> None:
        self.failures.append(error)

    def died(self, job: Job, *more: object) -> None:
        self.failures.append("a process died")

    def note(self, text: str) -> None:
        print(text, flush=True)

    def end(self) -> None:
        pass


def measure(
    trials: int, seconds: float, folder: Path, files: tuple[Path, Path], uri: str | None, whole_report: bool
) -> dict[str, float]:
    """One run of about ``trials`` trials on a home folder of its own, and what follows it."""
    encoder, benchmark = files
    grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
    settings = {
        "name": f"scale_{trials}", "benchmarks": [str(benchmark)], "encoder": str(encoder), "grid": grid,
        "seeds": list(range(max(1, trials // (1 + len(METHODS))))),
    }  # fmt: skip
    file = folder / f"scale_{trials}.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    paths = Paths.at(folder / f"home_{trials}", None, uri)
    start = time.perf_counter()
    plan = make(Experiment.model_validate(settings), paths.cache)
    planned = time.perf_counter() - start
    curve = Curve()
    fit = partial(simulate, seconds)
    summary = execute(plan, paths, None, "scale.py", curve, fit=fit)
    wall = time.perf_counter() - curve.began
    if curve.failures or summary.failed or summary.finished != len(plan.jobs):
        raise UserError(f"{len(curve.failures)} trials failed: {curve.failures[:1]}; {summary}")
    least = len(plan.jobs) * seconds / curve.slots
    figures = {
        "trials": float(len(plan.jobs)), "slots": float(curve.slots), "plan_seconds": planned, "wall_seconds": wall,
        "least_seconds": least, "wall_over_least_ratio": wall / least,
        "beyond_ms_per_trial": 1000 * (wall - least) / len(plan.jobs), "memory_mb": curve.memory[-1],
        "growth_mb": curve.memory[-1] - curve.memory[min(999, len(curve.memory) // 2)],
    }  # fmt: skip
    environment = os.environ | {"HARNESS_HOME": str(paths.home), "HF_HUB_OFFLINE": "1"}
    environment |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    results = folder / f"results_{trials}"
    commands = {
        "resume": ["plan", str(file)], "status": ["status", f"scale_{trials}"],
        "report": ["report", f"scale_{trials}", "--results", str(results)],
    }  # fmt: skip
    for name, command in commands.items():
        last = "" if whole_report else "First page"
        seconds_of_lines, whole = timed([sys.executable, "-m", "harness.cli", *command], environment, last)
        first = [at for line, at in seconds_of_lines if line.startswith("First page")]
        figures |= {f"{name}_first_page_seconds": at for at in first}
        if whole_report or not first:
            figures[f"{name}_seconds"] = whole
    figures["first_page_seconds"] = first_page(paths, f"scale_{trials}")
    return figures


def timed(command: list[str], environment: Mapping[str, str], last: str) -> tuple[list[tuple[str, float]], float]:
    """Runs a command: what it prints, each line with the seconds since the start, and the seconds that it takes.

    If ``last`` is not empty, the command is ended after a line that begins with it.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines, ended = [], False
    for line in process.stdout:
        lines.append((line, time.perf_counter() - start))
        if last and line.startswith(last):
            ended = True
            process.terminate()
    if process.wait() and not ended:
        raise UserError(f"{' '.join(command)} failed with exit code {process.returncode}")
    return lines, time.perf_counter() - start


def first_page(paths: Paths, name: str) -> float:
    """Seconds for the first hundred runs of the experiment, ordered as on MLflow's page."""
    from mlflow import MlflowClient

    client = MlflowClient(paths.tracking_uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    start = time.perf_counter()
    client.search_runs(
        [experiment.experiment_id], "tags.`harness.kind` = 'trial'", order_by=["metrics.test_accuracy DESC"],
        max_results=100,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=0.5, help="of a trial (default 0.5)")
    parser.add_argument("--server", action="store_true", help="the ledger is an MLflow server on this machine")
    parser.add_argument("--first-page", action="store_true", help="end `harness report` after its first page")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for homes and reports, which stay there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    if args.keep and args.keep.exists():
        parser.error(f"--keep {args.keep}: expected a folder that is not there yet")

    out = Console(highlight=False, width=160)
    report: dict[str, Any] = {
        "seconds_per_trial": args.seconds, "ledger": "server" if args.server else "sqlite", "cpus": os.cpu_count(),
        "python": platform.python_version(), "ray": version("ray"), "mlflow": version("mlflow"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = args.keep.resolve() if args.keep else Path(temporary)
        files = make_inputs(folder)

        for trials in args.trials:  # each with a ledger of its own: the small sizes are parts of the large ones
            with server(folder / f"server_{trials}") if args.server else nullcontext(None) as uri:
                report[str(trials)] = measure(trials, args.seconds, folder, files, uri, not args.first_page)
            show(report, args.trials, out)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(report: Mapping[str, Any], sizes: Sequence[int], out: Console) -> None:
    """The table of the sizes that were measured."""
    columns = {
        "plan_seconds": ("plan s", 2), "wall_seconds": ("wall s", 1), "least_seconds": ("least s", 1),
        "wall_over_least_ratio": ("wall / least", 2), "beyond_ms_per_trial": ("beyond, ms a trial", 0),
        "memory_mb": ("driver MB", 0), "growth_mb": ("growth MB", 0), "resume_seconds": ("plan again s", 1),
        "status_seconds": ("status s", 1), "report_first_page_seconds": ("first page s", 1),
        "report_seconds": ("report s", 1),
        "first_page_seconds": ("MLflow page s", 2),
    }  # fmt: skip
    table = Table("trials", title=f"{report['seconds_per_trial']} s a trial, ledger: {report['ledger']}")
    for title, _ in columns.values():
        table.add_column(title, justify="right")
    for size in sizes:
        if str(size) in report:
            figures = report[str(size)]
            cells = [f"{figures[key]:.{digits}f}" if key in figures else "–" for key, (_, digits) in columns.items()]
            table.add_row(f"{figures['trials']:.0f}", *cells)
    out.print(table)


if __name__ == "__main__":
    main()
