"""From an experiment to its jobs: loads the benchmarks, resolves methods, expands."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from harness import encoders, trials
from harness.config import SOURCES, Benchmark, Experiment, MethodChoice, parse
from harness.data import benchmarks
from harness.data.types import Split
from harness.errors import UserError
from harness.methods import methods
from harness.store import Store
from harness.training import trial as core
from harness.trials import Job, MethodInfo, Task, Wording


@dataclass(frozen=True)
class Plan:
    """An experiment with everything resolved.

    Attributes:
        experiment: as configured.
        benchmarks: name -> its specification, limits applied.
        splits: name -> split -> rows.
        jobs: what has to be done, checkers first.
    """

    experiment: Experiment
    benchmarks: dict[str, Benchmark]
    splits: dict[str, dict[str, Split]]
    jobs: list[Job]

    @property
    def trials(self) -> dict[str, Job]:
        """The jobs by trial id."""
        return {job.trial.id: job for job in self.jobs}


def make(experiment: Experiment, cache: Path | None) -> Plan:
    """Loads what the experiment names and expands it.

    Args:
        experiment: what to compare.
        cache: a folder where cleaned, partitioned benchmarks are kept.

    Raises:
        UserError: an unknown name, a split that is missing, data that does not pass its checks.
    """
    for row in experiment.grid:
        for choice in row.methods:
            info = resolve(choice)  # before the data is read: a misspelt method should not take a minute to find
            for _, variant in experiment.variants():
                core.make_method(info.choice).check(variant.training)
    identity = encoders.identity(experiment.encoder)
    specs, splits = {}, {}
    wanted = {name for row in experiment.grid for name in SOURCES[row.source]} | {"real_small", "validation", "test"}
    for entry in experiment.benchmarks:
        spec = benchmarks.resolve(entry)
        spec = spec.model_copy(update={"limits": {**spec.limits, **experiment.rows}})
        if spec.name in specs:
            raise UserError(f"the benchmark {spec.name!r} is named twice")
        specs[spec.name] = spec
        splits[spec.name] = benchmarks.load(spec, sorted(wanted & set(spec.splits)), cache)
    tasks = {
        name: Task(
            name=name,
            labels=specs[name].labels,
            digests={s: rows.digest for s, rows in found.items()},
            wording=Wording(description=specs[name].description, text=specs[name].text, label=specs[name].label),
        )
        for name, found in splits.items()
    }
    jobs = trials.expand(experiment, tasks, identity, resolve)
    for job in jobs:
        if not methods.get(job.trial.method.name).trains:
            continue
        rows = len(core.training_rows(job.trial, job.trial.source, splits[job.trial.task.name]))
        core.make_method(job.trial.method).check(job.trial.training, rows)
    return Plan(experiment, specs, splits, jobs)


def resolve(choice: MethodChoice) -> MethodInfo:
    """A method with all its settings, what it needs, and its display name.

    Raises:
        UserError: an unknown method or setting.
    """
    kind = methods.get(choice.name)
    given = parse(kind.settings_type(), choice.settings, f"method {choice.name}")
    asked, full = given.model_dump(mode="json"), kind.resolve(given).model_dump(mode="json")
    defaults = kind.settings_type().model_construct().model_dump(mode="json", warnings=False)
    named = {key: value if value == defaults.get(key) else full[key] for key, value in asked.items()}
    return MethodInfo(
        choice=MethodChoice(name=choice.name, settings=full), needs=kind.needed(given), trains=kind.trains,
        label=trials.label(MethodChoice(name=choice.name, settings=named), defaults, kind.details),
    )  # fmt: skip


def missing(plan: Plan, finished: Container[str], store: Store) -> list[Job]:
    """The jobs that have to run: those not finished, and checkers whose scores a job to be run lacks."""
    needed: set[str] = set()
    for job in reversed(plan.jobs):  # those that need checkers come last
        if job.trial.id not in finished or job.trial.id in needed:
            needed.add(job.trial.id)
            needed.update(c for c in job.trial.checkers if not _scores_exist(plan.trials[c], store))
    return [job for job in plan.jobs if job.trial.id in needed]


def work(plan: Plan) -> Callable[[Job], float]:
    """How much a job is to compute, in rows of a forward pass: for estimates of time."""

    def rows(job: Job) -> float:
        trial, splits = job.trial, plan.splits[job.trial.task.name]
        if not methods.get(trial.method.name).trains:
            return float(len(splits["test"]))
        source = len(core.training_rows(trial, trial.source, splits))
        training = trial.training
        trained = training.steps * min(training.batch_size, source) if training.steps else training.epochs * source
        evaluated = training.epochs * (len(splits["validation"]) + len(splits["test"]))
        scored = sum(len(core.training_rows(trial, name, splits)) for name in job.scores)
        passes = core.make_method(trial.method).passes(training, trained / source)
        return passes * trained + evaluated + scored

    return rows


def _scores_exist(job: Job, store: Store) -> bool:
    try:
        return core.scored(job, store)
    except RuntimeError:  # a split is not in the store
        return False
