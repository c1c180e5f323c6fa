"""What methods share that learn weights from how these change the loss on the small real set."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import Field

from harness.config.experiment import Training
from harness.errors import UserError
from harness.methods.base import Method, MethodSettings, MicroBatch
from harness.methods.protocols import Form, MetaGradient, Rule

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class LookaheadSettings(MethodSettings):
    """How to look ahead."""

    lookahead: Rule = "adam"
    """Through whose step: plain gradient descent's, or that of the optimizer with its own moments."""
    form: Form = "linear"
    """``exact`` makes a step of every example's own gradient, one example at a time; for ``sgd`` the same."""
    real_rows: int | None = Field(default=32, gt=0)
    """Real rows of a look ahead, the classes evenly mixed; null for all of them."""
    warm_up: int = Field(default=1, ge=0)
    """Epochs of plain CE before: at the start the gradients of an untrained head say little."""


LookAheads = TypeVar("LookAheads", bound=LookaheadSettings)


class LookaheadMethod(Method[LookAheads]):
    """Base of methods that learn weights from how they change the loss on the small real set.

    Class attributes:
        look: what a training row costs when it is looked ahead, in forward passes.
    """

    needs = frozenset({"real", "gradients"})
    look: ClassVar[float] = 9.0

    def check(self, training: Training, rows: int | None = None) -> None:
        """The warm-up must leave something to learn weights in."""
        super().check(training, rows)
        warm_up = self.settings.warm_up
        if training.steps is None and warm_up >= training.epochs:
            raise UserError(
                f"method {self.name!r}: a warm_up of {warm_up} epochs leaves none of training.epochs "
                f"{training.epochs} to learn weights in; expected fewer"
            )
        if training.steps is not None and rows is not None:
            plain = warm_up * math.ceil(rows / training.batch_size)
            if plain >= training.steps:
                raise UserError(
                    f"method {self.name!r}: a warm_up of {warm_up} epochs of {rows} rows is {plain} steps, which "
                    f"leaves none of {training.steps} to learn weights in; expected a shorter warm_up or more steps"
                )

    def forward_cost(self, training: Training, epochs: float) -> float:
        """The warm-up costs what CE costs; ``exact`` takes two backward passes through the batch for every row."""
        plain = min(float(self.settings.warm_up), epochs)
        look = self.look + (4.0 * training.batch_size if self.settings.form == "exact" else 0.0)
        return (3.0 * plain + look * (epochs - plain)) / epochs

    def weights(self, step: MicroBatch) -> Tensor:
        """Ones during the warm-up, then what is learned [B]."""
        if step.epoch < self.settings.warm_up:
            return step.logits.new_ones(len(step.labels))
        assert step.gradients is not None, "the loop answers a method that needs gradients"
        return self.learn(step, step.gradients)

    @abstractmethod
    def learn(self, step: MicroBatch, gradients: MetaGradient) -> Tensor:
        """The weights of a batch: float32 [B], without graph, of mean one over the batch of all workers."""

    def slopes(self, weights: Tensor, gradients: MetaGradient) -> Tensor:
        """dL_real(θ')/dw_i at ``weights``, looked ahead as the settings say [B]."""
        chosen = self.settings
        return gradients.sensitivity(weights, chosen.lookahead, chosen.real_rows, chosen.form)
