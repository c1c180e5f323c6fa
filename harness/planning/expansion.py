"""From an experiment to its trials and the checkers that they need, each once. Pure: no data, torch or Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from harness.config.checkers import DEFAULT_FOLDS, Checker
from harness.config.experiment import Experiment, MethodChoice, Training
from harness.config.resources import Resources
from harness.config.sources import SOURCES, Source
from harness.data.folds import Fold
from harness.encoders import EncoderInfo, why_no_mean
from harness.errors import UserError
from harness.planning.trials import ROLES, Job, MethodInfo, Task, Trial, TrialStage

#: Resolves the settings and the needs of a method; raises ``UserError``.
Resolve = Callable[[MethodChoice], MethodInfo]
#: Identity and size of an encoder; raises ``UserError``.
DescribeEncoder = Callable[[str], EncoderInfo]


def expand(
    experiment: Experiment, tasks: Mapping[str, Task], describe_encoder: DescribeEncoder, resolve: Resolve
) -> list[Job]:
    """The jobs of an experiment, each trial once, checkers before those that need them.

    Args:
        experiment: axes and settings.
        tasks: benchmark name -> its labels and the digests of all its splits, limits applied.
        describe_encoder: describes an encoder (``harness.planning.plan`` passes ``harness.encoders.describe``).
        resolve: resolves methods (``harness.planning.plan`` passes the registry's).

    Raises:
        UserError: a source that a benchmark does not have, more layers than the encoder has, or an unknown method or
            setting.
    """
    drafts: dict[str, _Draft] = {}
    ce = resolve(MethodChoice(name="ce"))
    grid = [(row, [resolve(method) for method in row.methods]) for row in experiment.grid]
    _check_labels([(row.source, infos) for row, infos in grid])
    for variant, settings in experiment.variants():
        planner = _Planner(settings, describe_encoder, ce, variant, drafts)
        for task in tasks.values():
            for row, infos in grid:
                source = SOURCES[row.source]
                _check_source(task, source)
                for info, seed, fraction in product(infos, row.seeds or settings.seeds, settings.quality_fractions):
                    planner.add(task, source, info, seed, fraction, requested=True)
    resources = cache(experiment.resources.of)
    return _ordered([draft.job(resources) for draft in drafts.values()])


@dataclass(frozen=True)
class _Model:
    """The encoder of a trial.

    Attributes:
        encoder: as configured.
        identity: see ``harness.encoders.identity``.
        layers: how many of its layers are kept; None for all.
    """

    encoder: str
    identity: str
    layers: int | None

    def differences(self, other: _Model) -> list[str]:
        """What distinguishes it from ``other``, for labels."""
        parts = [self.encoder.rpartition("/")[2]] if self.encoder != other.encoder else []
        if self.layers != other.layers:
            parts.append(f"layers={self.layers or 'all'}")
        return parts


@dataclass
class _Draft:
    """A job under construction.

    Attributes:
        variants: the variants that the trial belongs to; True where the grid contains it, False where it is only a
            checker.
    """

    trial: Trial
    label: str
    variants: dict[str, bool] = field(default_factory=dict)
    scores: dict[str, dict[str, str]] = field(default_factory=dict)
    calibrated: dict[str, None] = field(default_factory=dict)

    def job(self, resources: Callable[[str], Resources]) -> Job:
        """The job; variants in which it is only a checker are left out if the grid contains it in others."""
        requested = [variant for variant, in_grid in self.variants.items() if in_grid]
        return Job(
            trial=self.trial, label=self.label, variants=tuple(requested or self.variants), requested=bool(requested),
            scores=self.scores, calibrated=tuple(self.calibrated),
            resources=resources(self.trial.encoder),
        )  # fmt: skip


class _Planner:
    """Adds trials of one variant, and their checkers, to a shared dict of drafts; every trial is made once."""

    def __init__(
        self, experiment: Experiment, describe_encoder: DescribeEncoder, ce: MethodInfo, variant: str,
        drafts: dict[str, _Draft],
    ) -> None:  # fmt: skip
        self.experiment, self.describe_encoder, self.ce = experiment, describe_encoder, ce
        self.variant, self.drafts = variant, drafts
        self.own_model = self._model(experiment.encoder, experiment.training.layers, "training")
        self.checkers = experiment.checkers
        self.quality_source = SOURCES[self.checkers.quality.source]
        self.quality_model = self._checker_model(self.checkers.quality, "checkers.quality")
        self.diversity_model = self._checker_model(self.checkers.diversity, "checkers.diversity")
        self._known: dict[tuple[str, str, str, int, float | None, _Model, Fold | None], str] = {}
        self._stages: dict[tuple[str, int | None], tuple[TrialStage, ...]] = {}
        self._tasks: dict[tuple[str, frozenset[str]], Task] = {}
        self._resources = cache(experiment.resources.of)

    def add(self, task: Task, source: Source, info: MethodInfo, seed: int, fraction: float, requested: bool) -> str:
        """Adds a trial and its checkers; returns the trial's id."""
        return self._add(task, source, info, seed, fraction, requested, self.own_model, None)

    def _add(
        self, task: Task, source: Source, info: MethodInfo, seed: int, fraction: float, requested: bool, model: _Model,
        fold: Fold | None,
    ) -> str:  # fmt: skip
        used = fraction if self._uses_real_small(source, info) else None
        key = (task.name, source.name, info.label, seed, used, model, fold)
        id_ = self._known.get(key)
        if id_ is None:
            trial = self._trial(task, source, info, seed, fraction, used, model)
            if fold is not None:
                trial = trial.model_copy(update={"fold": fold})
            id_ = self._known[key] = trial.id
            details = model.differences(self.own_model) + ([f"{fold.of} folds"] if fold else [])
            label = f"{info.label} ({', '.join(details)})" if details else info.label
            self.drafts.setdefault(id_, _Draft(trial, label))
        draft = self.drafts[id_]
        draft.variants[self.variant] = draft.variants.get(self.variant, False) or requested
        if requested:
            draft.label = info.label
        return id_

    def _uses_real_small(self, source: Source, info: MethodInfo) -> bool:
        quality = self.quality_source.splits if "quality" in info.needs else ()
        return "real" in info.needs or "real_small" in (*source.splits, *quality)

    def _model(self, encoder: str, layers: int | None, group: str) -> _Model:
        """An encoder and the number of its layers, None for all of them."""
        info = self.describe_encoder(encoder)
        if self.experiment.training.pooling == "mean" and info.kind and (problem := why_no_mean(encoder, info.kind)):
            raise UserError(problem)
        if layers is not None and info.layers is not None:
            if layers > info.layers:
                raise UserError(
                    f"{group}.layers: the encoder {encoder!r} has {info.layers} layers; expected at most as many, "
                    f"found {layers}"
                )
            layers = None if layers == info.layers else layers
        return _Model(encoder, info.identity, layers)

    def _checker_model(self, checker: Checker, group: str) -> _Model:
        other = checker.encoder not in (None, self.experiment.encoder)
        layers = checker.layers or (None if other else self.own_model.layers)
        return self._model(checker.encoder or self.experiment.encoder, layers, group)

    def _quality(self, task: Task, source: Source, seed: int, fraction: float) -> str:
        """Adds the quality checker of a trial; returns its id."""
        _check_source(task, self.quality_source, "checkers.quality.source: ")
        id_ = self._add(task, self.quality_source, self.ce, seed, fraction, False, self.quality_model, None)
        self._score(id_, task, source.weighed, self.checkers.quality.temperature)
        return id_

    def _diversity(self, task: Task, source: Source, seed: int, fraction: float, folds: int) -> list[str]:
        """Adds the diversity checkers of a trial, one for each fold; returns their ids. One checker for 0 folds."""
        trained_on = _source_of(source.weighed)
        every: list[Fold | None] = [Fold(number=number, of=folds) for number in range(folds)]
        ids = [
            self._add(task, trained_on, self.ce, seed, fraction, False, self.diversity_model, fold)
            for fold in every or [None]
        ]
        for id_ in ids:
            self._score(id_, task, source.weighed, self.checkers.diversity.temperature)
        return ids

    def _score(self, id_: str, task: Task, splits: tuple[str, ...], calibrated: bool) -> None:
        """Has a checker score the rows of these splits."""
        draft, key = self.drafts[id_], "+".join(splits)
        draft.scores[key] = {name: task.digests[name] for name in splits}
        if calibrated:
            draft.calibrated[key] = None

    def _trial(
        self, task: Task, source: Source, info: MethodInfo, seed: int, fraction: float, used: float | None,
        model: _Model,
    ) -> Trial:  # fmt: skip
        splits = {*source.splits, "validation", "test"} | ({"real_small"} if used is not None else set())
        own = self._with_splits(task, frozenset(splits))
        if not info.trains:  # neither the encoder nor how it is trained matters
            stage = TrialStage(splits=source.splits, weighted=False, training=Training(epochs=1))
            return Trial(
                task=task.model_copy(update={"digests": own.digests}), source=source.name, stages=(stage,),
                method=info.choice, seed=seed, fraction=used, encoder="", encoder_identity="", threads=1, workers=1,
                device="cpu",
            )  # fmt: skip
        quality = diversity = None
        folds: tuple[str, ...] = ()
        if "quality" in info.needs:
            quality = self._quality(task, source, seed, fraction)
        if "diversity" in info.needs:  # trained on the rows that are weighed
            number = self.checkers.diversity.folds or (DEFAULT_FOLDS if "out_of_fold" in info.needs else 0)
            ids = self._diversity(task, source, seed, fraction, number)
            diversity, folds = (None, tuple(ids)) if number else (ids[0], ())
        calibrated = tuple(role for role in ROLES if role in info.needs and getattr(self.checkers, role).temperature)
        resources = self._resources(model.encoder)
        return Trial(
            task=own, source=source.name,
            stages=self._stages_of(source, model.layers), method=info.choice, seed=seed, fraction=used,
            encoder=model.encoder, encoder_identity=model.identity, threads=resources.cpus,
            workers=resources.workers, device="cuda" if resources.gpus > 0 else "cpu",
            quality=quality, diversity=diversity, diversity_folds=folds, calibrated=calibrated,
        )  # fmt: skip

    def _with_splits(self, task: Task, splits: frozenset[str]) -> Task:
        """A task with the digests of some of its splits, and without what language models are asked."""
        key = (task.name, splits)
        if key not in self._tasks:
            digests = {name: task.digests[name] for name in sorted(splits)}
            self._tasks[key] = Task(name=task.name, labels=task.labels, digests=digests)
        return self._tasks[key]

    def _stages_of(self, source: Source, layers: int | None) -> tuple[TrialStage, ...]:
        key = (source.name, layers)
        if key not in self._stages:
            training = self.experiment.training.model_copy(update={"layers": layers})
            self._stages[key] = stages_of(source, self.experiment.model_copy(update={"training": training}))
        return self._stages[key]


def stages_of(source: Source, experiment: Experiment) -> tuple[TrialStage, ...]:
    """The stages of a source, with the lengths that the experiment gives them."""
    out = []
    for stage in source.stages:
        length = experiment.stages.get(stage.name)
        training = length.apply(experiment.training) if length else experiment.training
        out.append(TrialStage(splits=stage.splits, weighted=stage.weighted, training=training))
    return tuple(out)


def _source_of(splits: tuple[str, ...]) -> Source:
    """The source that trains on exactly these splits, in one stage."""
    return next(s for s in SOURCES.values() if len(s.stages) == 1 and s.splits == splits)


def _check_labels(methods: list[tuple[str, list[MethodInfo]]]) -> None:
    """Raises if two different methods of a source would have the same label."""
    choices: dict[tuple[str, str], MethodChoice] = {}
    for source, infos in methods:
        for info in infos:
            if choices.setdefault((source, info.label), info.choice) != info.choice:
                raise UserError(
                    f"grid: two methods on {source} would both be called {info.label!r} in tables; they differ only in "
                    "settings that are no part of the name. Put them into two experiments."
                )


def _check_source(task: Task, source: Source, where: str = "") -> None:
    missing = [name for name in source.splits if name not in task.digests]
    if missing:
        splits = sorted(set(task.digests) - {"validation", "test"})
        raise UserError(
            f"{where}benchmark {task.name!r} has no split {missing[0]!r}, which the source {source.name!r} needs; "
            f"it has {splits}"
        )


def _ordered(jobs: list[Job]) -> list[Job]:
    """Jobs by seed, so that an interrupted run has complete seeds; within a seed, by number of dependents."""
    dependents = {job.trial.id: 0 for job in jobs}
    for job in jobs:
        for checker in job.trial.checkers:
            dependents[checker] += 1
    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(job.trial.seed for job in jobs))}
    return sorted(jobs, key=lambda job: (seeds[job.trial.seed], bool(job.trial.checkers), -dependents[job.trial.id]))
