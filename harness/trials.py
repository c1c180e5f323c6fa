"""An experiment as trials: what has to run, which checkers it needs, each once. Pure: no data, no torch, no Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from harness.config import SOURCES, Experiment, MethodChoice, Strict, Training
from harness.errors import UserError
from harness.rows import Columns

#: Raised whenever the same settings would give other numbers than before.
RECIPE = 1


class Wording(Strict):
    """What a prompt says of a task."""

    description: str
    text: Columns
    label: str


class Task(Strict):
    """A benchmark as a trial sees it: by content, not by where it came from."""

    name: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    """split -> digest of its rows, for the splits that the trial uses."""
    wording: Wording | None = None
    """Only where a language model reads it: elsewhere another description is not another trial."""

    @model_serializer(mode="wrap")
    def _unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if key != "wording" or value is not None}


class Trial(Strict):
    """One fine-tune. Two trials with the same content are the same trial, and have the same id."""

    task: Task
    source: str
    method: MethodChoice
    """With all settings resolved."""
    seed: int
    fraction: float | None
    """Share of ``real_small`` that is used; None where none of it is."""
    encoder: str
    encoder_identity: str
    training: Training
    threads: int
    workers: int
    device: str
    """``cpu`` or ``cuda``."""
    quality: str | None = None
    """The id of the trial that is its quality checker, if its method needs one."""
    diversity: str | None = None
    """The id of the trial that is its diversity checker, if its method needs one."""
    recipe: int = RECIPE

    @property
    def id(self) -> str:
        """16 hex digits of the hash of everything above, and so of its checkers and all that made them."""
        return hashlib.sha256(self.model_dump_json(exclude={"encoder"}).encode()).hexdigest()[:16]

    @property
    def checkers(self) -> tuple[str, ...]:
        """The trials that must be done before this one."""
        return tuple(dict.fromkeys(c for c in (self.quality, self.diversity) if c))


class Job(Strict):
    """A trial, and how it hangs together with others."""

    trial: Trial
    label: str
    """The method with the settings that are not its defaults, e.g. ``focal(gamma=1)``."""
    variants: tuple[str, ...] = ()
    """The combinations of swept settings it belongs to, e.g. ``learning_rate=2e-5``; a trial may serve several."""
    requested: bool = True
    """Whether the experiment asks for it; otherwise it is only somebody's checker."""
    scores: dict[str, dict[str, str]] = {}
    """Sources that it scores as a checker, once trained, with the digests of their splits."""


class MethodInfo(Strict):
    """A method as planning sees it."""

    choice: MethodChoice
    needs: frozenset[str]
    label: str
    trains: bool = True


#: Resolves the settings of a method and says what it needs; raises ``UserError``.
Resolve = Callable[[MethodChoice], MethodInfo]


def expand(experiment: Experiment, tasks: Mapping[str, Task], encoder_identity: str, resolve: Resolve) -> list[Job]:
    """The jobs of an experiment, each trial once, checkers before those that need them.

    Args:
        experiment: axes and settings.
        tasks: benchmark name -> its labels and the digests of all its splits, limits applied.
        encoder_identity: see ``harness.encoders.identity``.
        resolve: resolves methods (``harness.plan`` passes the registry's).

    Raises:
        UserError: a source that a benchmark does not have, or an unknown method or setting.
    """
    jobs: dict[str, Job] = {}
    for variant, settings in experiment.variants():
        planner = _Planner(settings, encoder_identity, resolve, variant, jobs)
        for task in tasks.values():
            for row in settings.grid:
                _check_source(task, row.source)
                for method in row.methods:
                    for seed in settings.seeds:
                        for fraction in settings.quality_fractions:
                            planner.add(task, row.source, resolve(method), seed, fraction)
    return _ordered(jobs)


class _Planner:
    """Adds trials of one variant, and their checkers, to a shared dict of jobs."""

    def __init__(
        self, experiment: Experiment, encoder_identity: str, resolve: Resolve, variant: str, jobs: dict[str, Job]
    ) -> None:
        self.experiment, self.encoder_identity, self.resolve = experiment, encoder_identity, resolve
        self.variant, self.jobs = variant, jobs
        self.named: dict[tuple[str, str], MethodChoice] = {}

    def add(self, task: Task, source: str, info: MethodInfo, seed: int, fraction: float) -> None:
        """Adds what the grid asks for.

        Raises:
            UserError: two methods of a source have one name in tables, and other settings.
        """
        if self.named.setdefault((source, info.label), info.choice) != info.choice:
            raise UserError(
                f"grid: two methods on {source} would both be called {info.label!r} in tables; they differ only in "
                "settings that are no part of the name. Put them into two experiments."
            )
        self._add(task, source, info, seed, fraction, requested=True)

    def _add(self, task: Task, source: str, info: MethodInfo, seed: int, fraction: float, requested: bool) -> str:
        checkers = {}
        ce = self.resolve(MethodChoice(name="ce"))
        if "quality" in info.needs:
            checkers["quality"] = self._checker(task, "real_small", source, ce, seed, fraction)
        if "diversity" in info.needs:
            checkers["diversity"] = self._checker(task, source, source, ce, seed, fraction)
        trial = self._trial(task, source, info, seed, fraction).model_copy(update=checkers)
        known = self.jobs.get(trial.id)
        job = Job(
            trial=trial, label=info.label,
            variants=tuple(dict.fromkeys((*(known.variants if known else ()), self.variant))),
            requested=requested or bool(known and known.requested), scores=known.scores if known else {},
        )  # fmt: skip
        self.jobs[trial.id] = job
        return trial.id

    def _checker(self, task: Task, trained_on: str, scores: str, ce: MethodInfo, seed: int, fraction: float) -> str:
        id_ = self._add(task, trained_on, ce, seed, fraction, requested=False)
        job = self.jobs[id_]
        digests = {name: task.digests[name] for name in SOURCES[scores]}
        self.jobs[id_] = job.model_copy(update={"scores": {**job.scores, scores: digests}})
        return id_

    def _trial(self, task: Task, source: str, info: MethodInfo, seed: int, fraction: float) -> Trial:
        experiment = self.experiment
        uses_real = bool({"quality", "real"} & info.needs) or "real_small" in SOURCES[source]
        splits = {*SOURCES[source], "validation", "test"} | ({"real_small"} if uses_real else set())
        digests = {name: task.digests[name] for name in sorted(splits)}
        fraction_used = fraction if uses_real else None
        if not info.trains:  # neither the encoder nor how it is trained matters
            return Trial(
                task=Task(name=task.name, labels=task.labels, digests=digests, wording=task.wording), source=source,
                method=info.choice, seed=seed, fraction=fraction_used, encoder="", encoder_identity="",
                training=Training(), threads=1, workers=1, device="cpu",
            )  # fmt: skip
        training = experiment.training
        if source == "real_small":
            training = training.model_copy(update={"steps": experiment.checkers.quality_steps})
        return Trial(
            task=Task(name=task.name, labels=task.labels, digests=digests), source=source, method=info.choice,
            seed=seed, fraction=fraction_used, encoder=experiment.encoder,
            encoder_identity=self.encoder_identity, training=training, threads=experiment.resources.cpus,
            workers=experiment.resources.workers, device="cuda" if experiment.resources.gpus > 0 else "cpu",
        )  # fmt: skip


def describe(job: Job) -> str:
    """A job in one line for people."""
    trial = job.trial
    parts = [trial.task.name, trial.source, job.label, f"seed {trial.seed}"]
    if trial.fraction is not None and trial.fraction != 1.0:
        parts.append(f"real {trial.fraction:.0%}")
    parts += [variant for variant in job.variants[:1] if variant]
    return " · ".join(parts)


def label(choice: MethodChoice, defaults: Mapping[str, Any], details: Collection[str] = ()) -> str:
    """A method's display name: its name and the settings that differ from the defaults.

    Args:
        choice: the method and all its settings, as the user gave them.
        defaults: its defaults.
        details: settings that are no part of its name; a group of settings appears as a short hash.
    """
    changed = {
        key: _hash(value)[:6] if isinstance(value, dict) else value
        for key, value in choice.settings.items()
        if defaults.get(key) != value and key not in details
    }
    inner = ", ".join(f"{key}={value}" for key, value in sorted(changed.items()))
    return f"{choice.name}({inner})" if inner else choice.name


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check_source(task: Task, source: str) -> None:
    missing = [name for name in SOURCES[source] if name not in task.digests]
    if missing:
        have = sorted(set(task.digests) - {"validation", "test"})
        raise UserError(
            f"benchmark {task.name!r} has no split {missing[0]!r}, which the source {source!r} needs; it has {have}"
        )


def _ordered(jobs: dict[str, Job]) -> list[Job]:
    """Seed after seed, so that a run stopped early has whole seeds; in each, checkers first, the most awaited first."""
    waiting = dict.fromkeys(jobs, 0)
    for job in jobs.values():
        for checker in job.trial.checkers:
            waiting[checker] += 1
    seeds = {seed: i for i, seed in enumerate(dict.fromkeys(job.trial.seed for job in jobs.values()))}
    return sorted(
        jobs.values(), key=lambda job: (seeds[job.trial.seed], bool(job.trial.checkers), -waiting[job.trial.id])
    )
