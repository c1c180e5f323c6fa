"""From an experiment to its jobs: loads the benchmarks, resolves methods, expands. No torch, Ray or MLflow."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import encoders
from harness.checkers.scores import scores_exist
from harness.config.benchmark import Benchmark
from harness.config.experiment import Experiment, MethodChoice
from harness.config.schema import parse
from harness.config.sources import SOURCES
from harness.data import benchmarks
from harness.data.selection import count
from harness.data.split import Split
from harness.errors import UserError
from harness.methods import make_method, methods
from harness.planning.trials import Job, MethodInfo, Task, expand, label, stages_of
from harness.store import Store


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

    @cached_property
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
    _check_methods(experiment, {})  # before the data is read, so that a misspelled method is reported at once
    identity = encoders.identity(experiment.encoder)
    specs, splits = {}, {}
    wanted = {name for row in experiment.grid for name in SOURCES[row.source].splits}
    wanted |= {"real_small", "validation", "test"}
    for entry in experiment.benchmarks:
        spec = benchmarks.resolve(entry)
        spec = spec.model_copy(update={"limits": {**spec.limits, **experiment.rows}})
        if spec.name in specs:
            raise UserError(f"the benchmark {spec.name!r} is named twice")
        specs[spec.name] = spec
        splits[spec.name] = benchmarks.load(spec, sorted(wanted & set(spec.splits)), cache)
    tasks = {
        name: Task(
            name=name, labels=specs[name].labels, digests={s: rows.digest for s, rows in parts.items()},
            prompt=specs[name].prompt,
        )
        for name, parts in splits.items()
    }  # fmt: skip
    jobs = expand(experiment, tasks, identity, resolve)
    _check_methods(experiment, splits)
    return Plan(experiment, specs, splits, jobs)


def resolve(choice: MethodChoice) -> MethodInfo:
    """A method with all its settings, what it needs, and its display name.

    Raises:
        UserError: an unknown method or setting.
    """
    kind = methods.get(choice.name)
    given = parse(kind.settings_type(), choice.settings, f"method {choice.name}")
    chosen, full = given.model_dump(mode="json"), kind.resolve(given).model_dump(mode="json")
    defaults = kind.settings_type().model_construct().model_dump(mode="json", warnings=False)
    named = {key: value if value == defaults.get(key) else full[key] for key, value in chosen.items()}
    return MethodInfo(
        choice=MethodChoice(name=choice.name, settings=full), needs=kind.needs_with(given), trains=kind.trains,
        label=label(MethodChoice(name=choice.name, settings=named), defaults, kind.hidden_settings),
    )  # fmt: skip


def missing(plan: Plan, finished: Container[str], store: Store) -> list[Job]:
    """The jobs that have to run: those not finished, and checkers whose scores a job to be run lacks."""
    needed: set[str] = set()
    scored: dict[str, bool] = {}
    for job in reversed(plan.jobs):  # those that need checkers come last
        if job.trial.id not in finished or job.trial.id in needed:
            needed.add(job.trial.id)
            for checker in job.trial.checkers:
                if checker not in scored:
                    scored[checker] = scores_exist(checker, plan.trials[checker].scores.values(), store)
                if not scored[checker]:
                    needed.add(checker)
    return [job for job in plan.jobs if job.trial.id in needed]


def _check_methods(experiment: Experiment, splits: Mapping[str, Mapping[str, Split]]) -> None:
    """Every method accepts how it would be trained; with ``splits``, on how many rows."""
    for _, variant in experiment.variants():
        for row in variant.grid:
            stages = stages_of(SOURCES[row.source], variant)
            for choice in row.methods:
                method = make_method(resolve(choice).choice)
                for stage in (stage for stage in stages if stage.weighted):
                    method.check(stage.training)
                    for parts in splits.values() if method.trains else ():
                        for fraction in variant.quality_fractions:
                            method.check(stage.training, count(stage.splits, parts, fraction))
