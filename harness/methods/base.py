"""The contract of a method.

A method returns a weight for every row of a batch; the training loop minimizes ``mean(weight * cross_entropy)``. The
cross-entropy is that of the row's label, unless the method gives other targets. A method sees ids, labels, logits and
checker scores, but no test data, Ray, MLflow or trial.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.config.experiment import Training
from harness.config.schema import FrozenModel
from harness.errors import TrialError, UserError

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

    from harness.methods.protocols import InnerTraining, MetaGradient

Need = Literal["quality", "diversity", "out_of_fold", "real", "embeddings", "gradients", "inner_training"]
#: Lower bound of log-probabilities: ratios of probabilities of 0 and 1 stay finite in float32.
LOG_FLOOR = float(np.log(np.finfo(np.float32).tiny))


class MethodSettings(FrozenModel):
    """Settings of all methods. Both are off by default, as in the paper (arXiv 2410.21526)."""

    clip: float | None = Field(default=None, gt=0.0)
    """Upper bound of a weight (truncated importance sampling, Ionides 2008)."""
    normalize: bool = False
    """Divide the weights of each batch by their mean over all its rows, so that the learning rate stays the same."""


Settings = TypeVar("Settings", bound=MethodSettings)


@dataclass(frozen=True)
class MicroBatch:
    """The rows of a micro-batch that a method weighs: all of them, or only the others beside real rows.

    Attributes:
        ids: the B row ids.
        rows: positions among all rows that the method weighs, int64 [B]; see ``SourceInfo``.
        labels: class indices, int64 [B].
        logits: the model's logits in float32 [B, C], attached to the graph.
        quality: log-probabilities of the quality checker, float32 [B, C], if the method needs them; NaN for real rows
            beside others, which no checker scores.
        diversity: log-probabilities of the diversity checker, as ``quality``.
        epoch: completed passes over the stage, from 0.
        gradients: meta-gradients of the batch, if the method needs them.
        real: which rows are real, bool [B], if the method has ``weighs_real_rows``; else None.
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
    """What a method knows of its rows before training.

    Attributes:
        labels: class indices of the n rows that it weighs, int64 [n].
        classes: number of classes C.
        real_labels: class indices of the small real set, int64 [m], if the method needs it.
        is_real: which of the n rows are real, bool [n], if the method has ``weighs_real_rows``; else None.
        diversity: log-probabilities of the diversity checker, float32 [n, C], as in ``MicroBatch``.
        embeddings: of the n rows and of the m real ones, float32 [n, D] and [m, D], if the method needs them.
        seed: the trial's seed, for streams of the method's own.
    """

    labels: npt.NDArray[np.int64]
    classes: int
    real_labels: npt.NDArray[np.int64] | None
    is_real: npt.NDArray[np.bool_] | None = None
    diversity: npt.NDArray[np.float32] | None = None
    embeddings: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None
    seed: int = 0


class Method(ABC, Generic[Settings]):
    """Base class of methods. Subclasses with a ``name`` in modules of ``harness.methods`` are discovered.

    The type argument of the base is the class of the settings: ``class Focal(Method[FocalSettings])``.

    Class attributes:
        name: its name in experiments.
        needs: its inputs: "quality" and "diversity" checker scores, "out_of_fold" (beside "diversity": every row is
            scored by a checker that was trained without it), "real" rows, "embeddings" (beside "real": of both kinds
            of texts, by the frozen encoder), "gradients" (derivatives of the loss on real rows with respect to the
            weights), "inner_training" (trainings before the real one).
        hidden_settings: settings that are not part of its name in tables.
        weighs_real_rows: False: in a stage that mixes real rows with others, real rows keep weight 1 and the method
            sees only the others. True: it sees and weighs all rows, and ``MicroBatch.real`` says which are real.
        compares_rows: True if the weight of a row depends on the other rows of its batch; a batch is then not divided
            into micro-batches.
        trains: True if an encoder is fine-tuned with it; False for a ``harness.methods.predictor.Predictor``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    trains: ClassVar[bool] = True
    weighs_real_rows: ClassVar[bool] = False
    compares_rows: ClassVar[bool] = False
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
        """Settings with all references to files resolved; called when an experiment is planned."""
        return settings

    @classmethod
    def needs_with(cls, settings: Settings) -> frozenset[Need]:
        """The needs with these settings: ``needs`` or a subset."""
        return cls.needs

    def prepare(self, info: SourceInfo) -> None:
        """Called once before training."""

    def check(self, training: Training, rows: int | None = None) -> None:
        """Checks the settings of the training when an experiment is planned.

        Args:
            training: settings of the training.
            rows: number of rows of the source; None before the data is read.

        Raises:
            UserError: the method does not support these settings.
        """
        if ("gradients" in self.needs or self.compares_rows) and training.accumulation != 1:
            raise UserError(
                f"method {self.name!r} looks at a batch as a whole: expected training.accumulation 1, found "
                f"{training.accumulation}. Take a smaller batch_size, or split batches over devices (resources.workers)"
            )

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """Checks the splits that a stage trains on together, when an experiment is planned.

        Raises:
            UserError: the method does not support these splits.
        """

    def learn_weights(self, inner: InnerTraining) -> None:
        """Called once after ``prepare``, if the method needs ``inner_training``."""

    def end_epoch(self, total: Callable[[Tensor], Tensor]) -> None:
        """Called after each pass over the source that another one follows, in all processes that train together.

        Args:
            total: the sum of a tensor over all processes.
        """

    def state(self) -> dict[str, Any]:
        """What it must know to go on from a checkpoint, by name: tensors, arrays, numbers, strings and None.

        By default all attributes of these types. Attributes of others must be as ``prepare`` leaves them.
        """
        import torch  # listing and planning load no torch

        kept = (torch.Tensor, np.ndarray, int, float, str, type(None))
        return {name: value for name, value in vars(self).items() if isinstance(value, kept)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes what ``state`` gave in an interrupted training; called after ``prepare``."""
        vars(self).update(state)

    def diagnostics(self) -> dict[str, float]:
        """What the method found out about its rows, recorded with the results as ``diagnostic_<key>``."""
        return {}

    def forward_cost(self, training: Training, epochs: float) -> float:
        """Average cost per training row in forward-pass equivalents; used for time estimates.

        Args:
            training: settings of the training.
            epochs: passes over the source.
        """
        return 3.0  # a backward pass costs about two forward passes

    @abstractmethod
    def weights(self, batch: MicroBatch) -> Tensor:
        """The weights of the rows: float32 [B], finite, at least 0; gradients flow through what is not detached."""

    def targets(self, batch: MicroBatch) -> Tensor | None:
        """What the model learns to predict: probabilities [B, C] without gradient, or None for the labels.

        Only for methods that do not need ``gradients``; inner trainings always use the labels.
        """
        return None

    def checked_weights(self, batch: MicroBatch) -> Tensor:
        """``weights`` with the shape checked, clipped if the settings say so [B].

        Raises:
            TrialError: the method returned weights of another shape.
        """
        weights = self.weights(batch)
        if weights.shape != batch.labels.shape:
            expected, got = list(batch.labels.shape), list(weights.shape)
            raise TrialError(f"method {self.name!r}: expected weights of shape {expected}, got {got}")
        return weights if self.settings.clip is None else weights.clamp(max=self.settings.clip)

    def checked_targets(self, batch: MicroBatch) -> Tensor | None:
        """``targets`` with the shape checked.

        Raises:
            TrialError: the method returned targets of another shape.
        """
        targets = self.targets(batch)
        if targets is not None and targets.shape != batch.logits.shape:
            expected, got = list(batch.logits.shape), list(targets.shape)
            raise TrialError(f"method {self.name!r}: expected targets of shape {expected}, got {got}")
        return targets


#: A method whatever its settings.
AnyMethod: TypeAlias = Method[Any]


def ratio(log_numerator: Tensor, log_denominator: Tensor) -> Tensor:
    """exp(log_numerator - log_denominator) in float32, finite even for probabilities of 0 and 1 [B]."""
    return log_ratio(log_numerator, log_denominator).exp()


def log_ratio(log_numerator: Tensor, log_denominator: Tensor) -> Tensor:
    """log_numerator - log_denominator, finite even for probabilities of 0 [B]."""
    return log_numerator.clamp(min=LOG_FLOOR) - log_denominator.clamp(min=LOG_FLOOR)


def _of_label(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return log_probabilities.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
