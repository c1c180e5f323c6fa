"""The contract of a method.

A method gives every example of a batch a weight; the loop computes ``mean(weight * cross_entropy)``. It knows ids,
labels, logits and checker scores, never test data, Ray, MLflow or the trial.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.config.experiment import Training
from harness.config.schema import FrozenModel
from harness.data.split import IntArray
from harness.errors import TrialError, UserError

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

Need = Literal["quality", "diversity", "real", "gradients", "inner_training"]
#: Whose step is looked ahead through: plain gradient descent's, or that of the optimizer with its own moments.
Rule = Literal["sgd", "adam"]
#: ``linear``: the derivative of the optimizer's step on the weighted batch; ``exact``: every example steps by itself.
Form = Literal["linear", "exact"]
#: What an outer loss is, of the probability p of the given label: ``bounded`` is 1 - p, in which no row counts for
#: more than 1 however wrong its label (the mean absolute error of Ghosh et al. 2017, and up to a factor the reverse
#: cross-entropy of Wang et al. 2019); ``cross_entropy`` is -log p.
OuterLoss = Literal["bounded", "cross_entropy"]
#: Log-probabilities are clamped here, so that ratios of probabilities of 0 and 1 stay finite in float32.
LOG_FLOOR = float(np.log(np.finfo(np.float32).tiny))


class MethodSettings(FrozenModel):
    """Settings that every method has. Both are off by default: the paper uses neither."""

    clip: float | None = Field(default=None, gt=0.0)
    """Weights above this are set to it (truncated importance sampling, Ionides 2008)."""
    normalize: bool = False
    """Divide the weights of each batch by their mean, so that they do not change the learning rate."""


Settings = TypeVar("Settings", bound=MethodSettings)


class MetaGradient(Protocol):
    """What a method may ask about the gradients of a batch, if it needs ``gradients``."""

    @property
    def size(self) -> int:
        """Rows of the batch, over all workers."""

    def sensitivity(self, weights: Tensor, rule: Rule, real_rows: int | None, form: Form = "linear") -> Tensor:
        """How the loss on the small real set, after one step on mean(w ℓ), changes with each weight.

        Args:
            weights: w, float32 [B], at which the derivative is taken.
            rule: whose step.
            real_rows: on how many real rows, the next ones in a seeded order; None for all of them.
            form: see ``Form``; the two are the same for ``sgd``.

        Returns:
            dL(θ')/dw_i, float32 [B].
        """

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values [B] over the whole batch, on all workers."""

    def scatter(self, values: Tensor) -> Tensor:
        """Values [B] at the places of their rows in the source, zero elsewhere, the same on all workers [n]."""


class InnerTraining(Protocol):
    """Trainings before the real one, which it does not change, for a method that needs ``inner_training``."""

    @property
    def size(self) -> int:
        """Rows n of the source."""

    def shuffled(self, number: int) -> IntArray:
        """The positions of the rows in a random order of the trial's seed; another number, another order [n]."""

    def train(self, weights: Tensor, rows: IntArray, epochs: int) -> None:
        """Fine-tunes on mean(w ℓ) over some rows, from the start of the real training and with its settings.

        Args:
            weights: w of all rows of the source, float32 [n].
            rows: positions of those to train on.
            epochs: passes over them.
        """

    def inner_products(self, rows: IntArray, outer: IntArray | None, loss: OuterLoss) -> Tensor:
        """⟨∇ outer loss, ∇ℓ_i⟩ where the last training ended, without dropout; the same on all workers.

        Args:
            rows: positions i in the source.
            outer: positions of the rows that the outer loss is the mean over; None for the small real set.
            loss: which outer loss.

        Returns:
            float32 [len(rows)].
        """


@dataclass(frozen=True)
class MicroBatch:
    """What a method sees of a slice of a batch: the rows that it weighs.

    Attributes:
        ids: the B row ids.
        rows: positions of the rows among those that the method weighs (mostly the whole source), int64 [B].
        labels: class indices, int64 [B].
        logits: the model's logits in float32 [B, C], attached to the graph.
        quality: log-probabilities of the quality checker, float32 [B, C], if the method needs them.
        diversity: log-probabilities of the diversity checker, float32 [B, C], if the method needs them.
        epoch: passes over the source so far, from 0.
        gradients: answers questions about gradients, if the method needs them.
        real: which rows are real, bool [B], for a method that weighs real rows too; else None.
    """

    ids: tuple[str, ...]
    rows: Tensor
    labels: Tensor
    logits: Tensor
    quality: Tensor | None
    diversity: Tensor | None
    epoch: int
    gradients: MetaGradient | None = None
    real: Tensor | None = None

    @cached_property
    def log_model(self) -> Tensor:
        """log p(y_i | x_i; θ_t) [B], attached to the graph."""
        return _of_label(self.logits.log_softmax(-1), self.labels)

    @cached_property
    def log_quality(self) -> Tensor:
        """log P'(y_i | x_i) [B]."""
        assert self.quality is not None, "the method does not declare that it needs a quality checker"
        return _of_label(self.quality, self.labels)

    @cached_property
    def log_diversity(self) -> Tensor:
        """log Q'(y_i | x_i) [B]."""
        assert self.diversity is not None, "the method does not declare that it needs a diversity checker"
        return _of_label(self.diversity, self.labels)


@dataclass(frozen=True)
class SourceInfo:
    """What a method may look at once, before training.

    Attributes:
        labels: class indices of the source, int64 [n].
        classes: number of classes C.
        real_labels: class indices of the small real set, int64 [m], if the method needs it.
    """

    labels: npt.NDArray[np.int64]
    classes: int
    real_labels: npt.NDArray[np.int64] | None


class Method(ABC, Generic[Settings]):
    """Base of every method. A subclass with a ``name`` in a module of ``harness.methods`` is found by itself.

    Class attributes:
        name: how experiments call it.
        needs: what must exist before training: "quality" and "diversity" checker scores, "real" rows; and "gradients",
            for a method that asks how the loss on the real rows changes with the weights; "inner_training", for one
            that trains before it trains.
        hidden_settings: settings that are no part of its name in tables.
        weighs_real_rows: in a source that mixes real rows with others, real rows keep weight 1 and a method sees the
            others alone; with True it sees all rows, and ``MicroBatch.real`` says which are real.
        trains: whether the loop fine-tunes an encoder with it; see ``harness.methods.predictor`` for what does not.

    Its settings are the type argument of the base: ``class Focal(Method[FocalSettings])``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    trains: ClassVar[bool] = True
    weighs_real_rows: ClassVar[bool] = False
    hidden_settings: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings: Settings = settings if settings is not None else self.settings_type()()

    @classmethod
    def settings_type(cls) -> type[Settings]:
        """The class of the method's settings."""
        for base in getattr(cls, "__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type) and issubclass(argument, MethodSettings):
                    return argument  # type: ignore[return-value]
        return MethodSettings  # type: ignore[return-value]

    @classmethod
    def resolve(cls, settings: Settings) -> Settings:
        """Settings that stand for themselves, with nothing left to look up; asked when an experiment is planned."""
        return settings

    @classmethod
    def needs_with(cls, settings: Settings) -> frozenset[Need]:
        """What it needs with these settings: ``needs``, or less."""
        return cls.needs

    def prepare(self, preparation: SourceInfo) -> None:
        """Called once before training."""

    def check(self, training: Training, rows: int | None = None) -> None:
        """Asked when an experiment is planned.

        Args:
            training: how the method would be trained.
            rows: of the source, once the data is read; None before.

        Raises:
            UserError: the method cannot be trained so.
        """
        if "gradients" in self.needs and training.accumulation != 1:
            raise UserError(
                f"method {self.name!r} looks at a batch as a whole: expected training.accumulation 1, found "
                f"{training.accumulation}. Take a smaller batch_size, or split batches over devices (resources.workers)"
            )

    def learn_weights(self, inner: InnerTraining) -> None:
        """Called once after ``prepare``, if the method needs ``inner_training``."""

    def forward_cost(self, training: Training, epochs: float) -> float:
        """What a training row costs in the mean of the epochs, in forward passes: for estimates of time.

        Args:
            training: how the method is trained.
            epochs: how often it goes over its source.
        """
        return 3.0  # a backward pass costs about two forward passes

    @abstractmethod
    def weights(self, step: MicroBatch) -> Tensor:
        """The weights of a batch: float32 [B], finite, at least 0. Gradients flow through what is not detached."""

    def checked_weights(self, step: MicroBatch) -> Tensor:
        """``weights``, checked for shape and clipped if the settings say so [B].

        Raises:
            TrialError: the method gave weights of another shape.
        """
        weights = self.weights(step)
        if weights.shape != step.labels.shape:
            expected, found = list(step.labels.shape), list(weights.shape)
            raise TrialError(f"method {self.name!r}: expected weights of shape {expected}, got {found}")
        return weights if self.settings.clip is None else weights.clamp(max=self.settings.clip)


#: A method whatever its settings.
AnyMethod: TypeAlias = Method[Any]


def ratio(log_numerator: Tensor, log_denominator: Tensor) -> Tensor:
    """exp(log_numerator - log_denominator) in float32, finite even for probabilities of 0 and 1 [B]."""
    difference = log_numerator.clamp(min=LOG_FLOOR) - log_denominator.clamp(min=LOG_FLOOR)
    return difference.exp()


def _of_label(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
