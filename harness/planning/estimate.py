"""The work of an experiment in forward-pass rows, and the rate of finished trials. Nothing is timed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from harness.data.selection import count
from harness.methods import make_method, methods
from harness.planning.plan import Plan
from harness.planning.trials import Job, Trial

#: Cost of a training row in forward-pass equivalents: a backward pass costs about two forward passes.
TRAINING_ROW = 3.0


def work(plan: Plan) -> Callable[[Job], float]:
    """A function that gives the work of a job in forward-pass rows; row counts are cached."""
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
        forward_rows = float(trial.evaluations * evaluation)
        for stage in trial.stages:
            source, training = rows(benchmark, stage.splits, trial.fraction), stage.training
            if trial.fold is not None:
                source -= source // trial.fold.of
            steps = training.steps
            trained = steps * min(training.batch_size, source) if steps else training.epochs * source
            method = make_method(trial.method) if stage.weighted else None
            cost = method.forward_cost(training, trained / source) if method else TRAINING_ROW
            forward_rows += cost * trained
        scored = sum(rows(benchmark, tuple(digests), trial.fraction) for digests in job.scores.values())
        return forward_rows + scored / (1 if trial.fold is None else trial.fold.of)

    return total


#: The tags and metrics of past trials that ``past_rate`` needs.
PAST_KEYS = ("encoder", "layers", "precision", "threads", "device", "benchmark", "rows_per_second")


def past_rate(trial: Trial, past: Mapping[str, tuple[Mapping[str, str], Mapping[str, float]]]) -> float | None:
    """Median training rows per second of finished trials with the same encoder, threads and device; None without any.

    Their encoder has as many layers, and their precision is the same. Trials of the same benchmark are preferred.

    Args:
        trial: the trial to estimate.
        past: trial id -> tags and metrics in the ledger.
    """
    same = {"encoder": trial.encoder, "threads": str(trial.threads), "device": trial.device}
    optional = {"layers": (str(trial.training.layers or ""), ""), "precision": (trial.training.precision, "float32")}
    rates: dict[bool, list[float]] = {True: [], False: []}  # by: is the benchmark the same?
    for tags, metrics in past.values():
        alike = all(tags.get(key) == value for key, value in same.items())
        alike = alike and all(tags.get(key, default) == value for key, (value, default) in optional.items())
        if alike and "rows_per_second" in metrics:
            rates[tags.get("benchmark") == trial.task.name].append(metrics["rows_per_second"])
    values = rates[True] or rates[False]
    return median(values) if values else None
