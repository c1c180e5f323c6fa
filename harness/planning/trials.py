"""A trial, its identity, and its role in an experiment. Pure: no data, torch or Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from harness.config.benchmark import TaskPrompt
from harness.config.experiment import MethodChoice, Training
from harness.config.resources import Resources
from harness.config.schema import FrozenModel
from harness.data.folds import Fold

Role = Literal["quality", "diversity"]
ROLES: tuple[Role, ...] = ("quality", "diversity")
#: Fields of a trial that are left out of its id where they have their default: older trials do not have them.
_LATER_FIELDS = ("diversity_folds", "fold", "calibrated")
#: Increment when a code change alters the results of unchanged settings.
RECIPE = 4


class Task(FrozenModel):
    """A benchmark as part of a trial: identified by the content of its rows, not by their origin."""

    name: str
    labels: tuple[str, ...]
    digests: dict[str, str]
    """split -> digest of its rows, for the splits that the trial uses."""
    prompt: TaskPrompt | None = None
    """Set only for methods that query a language model, so that it is not part of the ids of other trials."""

    @model_serializer(mode="wrap")
    def _without_missing_prompt(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key != "prompt" or value is not None}


class TrialStage(FrozenModel):
    """A part of a trial's training, resolved."""

    splits: tuple[str, ...]
    """Whose rows it trains on."""
    weighted: bool
    """Whether the trial's method weighs its rows; otherwise it is plain cross-entropy."""
    training: Training
    """With the stage's own length."""


class Trial(FrozenModel):
    """One fine-tune. Two trials with the same content are the same trial, and have the same id."""

    task: Task
    source: str
    stages: tuple[TrialStage, ...]
    method: MethodChoice
    """With all settings resolved."""
    seed: int
    fraction: float | None
    """Share of ``real_small`` that is used; None where none of it is."""
    encoder: str
    encoder_identity: str
    threads: int
    workers: int
    device: str
    """``cpu`` or ``cuda``."""
    quality: str | None = None
    """The id of the trial that is its quality checker, if its method needs one."""
    diversity: str | None = None
    """The id of the trial that is its diversity checker, if its method needs one."""
    diversity_folds: tuple[str, ...] = ()
    """The ids of the trials that are its diversity checker together, each for the fold that it was trained without."""
    fold: Fold | None = None
    """Held out of the training, and the only rows that it scores as a checker; None in other trials."""
    calibrated: tuple[Role, ...] = ()
    """The checkers whose scores it uses calibrated."""
    recipe: int = RECIPE

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key not in _LATER_FIELDS or value}

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the hash of all fields but ``encoder``, and so of its checkers too."""
        return hashlib.sha256(self.model_dump_json(exclude={"encoder"}).encode()).hexdigest()[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Trial:
        """A copy with changed fields, and an id of its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("id", None)
        return copy

    @property
    def training(self) -> Training:
        """The settings of the first stage; stages differ only in their length."""
        return self.stages[0].training

    @property
    def evaluations(self) -> int:
        """Number of evaluations over all stages."""
        return sum(stage.training.evaluation_count for stage in self.stages)

    @property
    def checkers(self) -> tuple[str, ...]:
        """The ids of the trials that must finish before this one."""
        return tuple(dict.fromkeys((*self.checkers_of("quality"), *self.checkers_of("diversity"))))

    def checkers_of(self, role: Role) -> tuple[str, ...]:
        """The ids of the trials that are together its checker in a role; empty without one."""
        checker = self.quality if role == "quality" else self.diversity
        if checker is not None:
            return (checker,)
        return self.diversity_folds if role == "diversity" else ()


class Job(FrozenModel):
    """A trial and its role in an experiment."""

    trial: Trial
    label: str
    """The method with its settings that differ from the defaults, e.g. ``focal(gamma=1)``."""
    variants: tuple[str, ...] = ()
    """The combinations of swept settings it belongs to, e.g. ``learning_rate=2e-5``; a trial may serve several."""
    requested: bool = True
    """True if the grid contains it; False if it is only a checker of another trial."""
    scores: dict[str, dict[str, str]] = {}
    """The rows that it scores as a checker: joined names of splits -> split -> digest."""
    calibrated: tuple[str, ...] = ()
    """The keys of ``scores`` of which calibrated scores are wanted too."""
    keep_model: bool = False
    """Whether the trained model is kept in the store."""
    resources: Resources = Resources()
    """What it runs with; threads, workers and device are part of the trial."""

    @property
    def calibrated_scores(self) -> list[dict[str, str]]:
        """The rows of which calibrated scores are wanted."""
        return [self.scores[key] for key in self.calibrated]


class MethodInfo(FrozenModel):
    """What planning needs to know of a method."""

    choice: MethodChoice
    needs: frozenset[str]
    label: str
    trains: bool = True


def describe(job: Job) -> str:
    """A job in one line, for messages."""
    trial = job.trial
    parts = [trial.task.name, trial.source, job.label, f"seed {trial.seed}"]
    if trial.fraction is not None and trial.fraction != 1.0:
        parts.append(f"real {trial.fraction:.0%}")
    if trial.fold is not None:
        parts.append(f"fold {trial.fold.number + 1} of {trial.fold.of}")
    parts += [variant for variant in job.variants[:1] if variant]
    return " · ".join(parts)


def label(choice: MethodChoice, defaults: Mapping[str, Any], details: Collection[str] = ()) -> str:
    """A method's display name: its name and the settings that differ from the defaults.

    Args:
        choice: the method and its settings.
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
