"""How much computing an experiment takes, and from past trials how long that is. No step is timed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from harness.data.selection import count
from harness.methods import make_method, methods
from harness.planning.plan import Plan
from harness.planning.trials import Job, Trial

#: A training row in forward passes: a backward pass costs about two forward passes.
TRAINING_ROW = 3.0


def work(plan: Plan) -> Callable[[Job], float]:
    """The work of a job in rows of a forward pass; counts are looked up once."""
    counts: dict[tuple[str, tuple[str, ...], float | None], int] = {}

    def rows(benchmark: str, names: tuple[str, ...], fraction: float | None) -> int:
        key = (benchmark, names, fraction)
        if key not in counts:
            counts[key] = count(names, plan.splits[benchmark], fraction)
        return counts[key]

    def total(job: Job) -> float:
        trial = job.trial
        benchmark = trial.task.name
        evaluation = rows(benchmark, ("validation", "test"), None)
        if not methods.get(trial.method.name).trains:
            return float(rows(benchmark, ("test",), None))
        passes = float(trial.evaluations * evaluation)
        for stage in trial.stages:
            source, training = rows(benchmark, stage.splits, trial.fraction), stage.training
            steps = training.steps
            trained = steps * min(training.batch_size, source) if steps else training.epochs * source
            method = make_method(trial.method) if stage.weighted else None
            cost = method.forward_cost(training, trained / source) if method else TRAINING_ROW
            passes += cost * trained
        return passes + sum(rows(benchmark, tuple(digests), trial.fraction) for digests in job.scores.values())

    return total


def past_rate(trial: Trial, past: Mapping[str, tuple[Mapping[str, str], Mapping[str, float]]]) -> float | None:
    """Training rows per second of finished trials of the same encoder, threads and device; None if there are none.

    Args:
        trial: what is to run.
        past: trial id -> tags and metrics in the ledger.
    """
    same = {"encoder": trial.encoder, "threads": str(trial.threads), "device": trial.device}
    known: dict[bool, list[float]] = {True: [], False: []}
    for tags, metrics in past.values():
        if "rows_per_second" in metrics and all(tags.get(key) == value for key, value in same.items()):
            known[tags.get("benchmark") == trial.task.name].append(metrics["rows_per_second"])
    rates = known[True] or known[False]
    return median(rates) if rates else None
