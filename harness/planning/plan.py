"""From an experiment to its jobs: loads benchmarks, resolves methods, expands the grid. No torch, Ray or MLflow."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
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
from harness.planning.expansion import expand, stages_of
from harness.planning.trials import Job, MethodInfo, Task, label
from harness.store import Store


@dataclass(frozen=True)
class Plan:
    """An experiment with everything resolved.

    Attributes:
        experiment: as configured.
        benchmarks: name -> its specification, limits applied.
        splits: name -> split -> rows.
        jobs: all trials, checkers first.
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
    """Loads the benchmarks of an experiment and expands it into jobs.

    Args:
        experiment: its configuration.
        cache: folder for cleaned, partitioned benchmarks; None for no cache.

    Raises:
        UserError: an unknown name, a missing split, or data that fails its checks.
    """
    _check_methods(experiment, {})  # before the data is read, so that a misspelled method is reported at once
    variants = [variant for _, variant in experiment.variants()]
    for encoder in dict.fromkeys(name for variant in variants for name in _encoders(variant)):
        encoders.identity(encoder)  # so is a missing encoder
    specs, splits = {}, {}
    sources = {row.source for row in experiment.grid} | {variant.checkers.quality.source for variant in variants}
    names = {name for source in sources for name in SOURCES[source].splits} | {"real_small", "validation", "test"}
    for entry in experiment.benchmarks:
        spec = benchmarks.resolve(entry)
        spec = spec.model_copy(update={"limits": {**spec.limits, **experiment.rows}})
        if spec.name in specs:
            raise UserError(f"benchmarks: {spec.name!r} is listed twice; list each benchmark once")
        specs[spec.name] = spec
        splits[spec.name] = benchmarks.load(spec, sorted(names & set(spec.splits)), cache)
    tasks = {
        name: Task(
            name=name, labels=specs[name].labels, digests={s: rows.digest for s, rows in parts.items()},
            prompt=specs[name].prompt,
        )
        for name, parts in splits.items()
    }  # fmt: skip
    jobs = expand(experiment, tasks, encoders.describe, resolve)
    _check_methods(experiment, splits)
    _check_folds(jobs, splits)
    return Plan(experiment, specs, splits, jobs)


def resolve(choice: MethodChoice) -> MethodInfo:
    """A method with all its settings, what it needs, and its display name.

    Raises:
        UserError: an unknown method or setting.
    """
    kind = methods.get(choice.name)
    settings = parse(kind.settings_type(), choice.settings, f"method {choice.name}")
    partial, full = settings.model_dump(mode="json"), kind.resolve(settings).model_dump(mode="json")
    defaults = kind.settings_type().model_construct().model_dump(mode="json", warnings=False)
    naming = {key: value if value == defaults.get(key) else full[key] for key, value in partial.items()}
    return MethodInfo(
        choice=MethodChoice(name=choice.name, settings=full), needs=kind.needs_with(settings), trains=kind.trains,
        label=label(MethodChoice(name=choice.name, settings=naming), defaults, kind.hidden_settings),
    )  # fmt: skip


def missing(plan: Plan, finished: Container[str], store: Store) -> list[Job]:
    """The jobs to run: those that are not finished, and finished checkers whose scores another job to run lacks."""
    ids: set[str] = set()
    scores: dict[str, bool] = {}  # checker -> are all its scores in the store?
    for job in reversed(plan.jobs):  # checkers come first in the list
        if job.trial.id not in finished or job.trial.id in ids:
            ids.add(job.trial.id)
            for checker in job.trial.checkers:
                if checker not in scores:
                    needed = plan.trials[checker]
                    scores[checker] = scores_exist(checker, needed.scores.values(), store, needed.calibrated_scores)
                if not scores[checker]:
                    ids.add(checker)
    return [job for job in plan.jobs if job.trial.id in ids]


def stored(plan: Plan, ids: Collection[str], store: Store) -> set[str]:
    """Of trials to run, those whose results and scores are in the store, as after an import: they are not trained."""
    jobs = (plan.trials[id_] for id_ in ids)
    return {
        job.trial.id for job in jobs
        if store.has("trials", job.trial.id)
        and scores_exist(job.trial.id, job.scores.values(), store, job.calibrated_scores)
    }  # fmt: skip


def _check_folds(jobs: list[Job], splits: Mapping[str, Mapping[str, Split]]) -> None:
    """Raises if a checker has more folds than rows."""
    for trial in (job.trial for job in jobs):
        if trial.fold is None or trial.fold.number:
            continue
        folds, rows = trial.fold.of, count(trial.stages[0].splits, splits[trial.task.name], trial.fraction)
        if rows < folds:
            raise UserError(
                f"checkers.diversity.folds: expected at most as many as rows, found {folds} for {rows} rows of "
                f"{trial.source} in {trial.task.name}"
            )


def _encoders(experiment: Experiment) -> list[str]:
    """The encoders of an experiment's trials and checkers."""
    checkers = (experiment.checkers.quality, experiment.checkers.diversity)
    return [experiment.encoder, *(checker.encoder for checker in checkers if checker.encoder)]


def _check_methods(experiment: Experiment, splits: Mapping[str, Mapping[str, Split]]) -> None:
    """Raises if a method rejects its training settings, its splits or, with ``splits``, the number of rows."""
    for _, variant in experiment.variants():
        for row in variant.grid:
            stages = stages_of(SOURCES[row.source], variant)
            for choice in row.methods:
                method = make_method(resolve(choice).choice)
                for stage in (stage for stage in stages if stage.weighted):
                    method.check(stage.training)
                    method.check_splits(stage.splits)
                    for parts in splits.values() if method.trains else ():
                        for fraction in variant.quality_fractions:
                            method.check(stage.training, count(stage.splits, parts, fraction))
