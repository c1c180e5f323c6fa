"""Base of methods that learn weights from a lookahead gradient of the loss on the small real set."""

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
    """Settings of the lookahead."""

    lookahead: Rule = "adam"
    """Optimizer of the lookahead step: plain gradient descent, or AdamW with the moments of the real optimizer."""
    form: Form = "linear"
    """``exact`` takes one step per example, from its own gradient; the same for ``sgd``."""
    real_rows: int | None = Field(default=32, gt=0)
    """Real rows per lookahead, with evenly mixed classes; null for all of them."""
    warm_up: int = Field(default=1, ge=0)
    """Epochs of plain CE at the start, where gradients of an untrained head carry little information."""


SomeSettings = TypeVar("SomeSettings", bound=LookaheadSettings)


class LookaheadMethod(Method[SomeSettings]):
    """A method that learns weights from the derivative of the loss on the small real set.

    Class attributes:
        lookahead_cost: cost per training row with a lookahead, in forward-pass equivalents.
    """

    needs = frozenset({"real", "gradients"})
    lookahead_cost: ClassVar[float] = 9.0

    def check(self, training: Training, rows: int | None = None) -> None:
        """Reject a warm-up that leaves no step to learn weights in."""
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
        """The warm-up costs as much as CE; ``exact`` adds two backward passes through the batch per row."""
        plain = min(float(self.settings.warm_up), epochs)
        cost = self.lookahead_cost + (4.0 * training.batch_size if self.settings.form == "exact" else 0.0)
        return (3.0 * plain + cost * (epochs - plain)) / epochs

    def weights(self, batch: MicroBatch) -> Tensor:
        """Ones during the warm-up, then the learned weights [B]."""
        if batch.epoch < self.settings.warm_up:
            return batch.logits.new_ones(len(batch.labels))
        assert batch.gradients is not None, "the loop gives gradients to methods that need them"
        return self.learn(batch, batch.gradients)

    @abstractmethod
    def learn(self, batch: MicroBatch, gradients: MetaGradient) -> Tensor:
        """The weights of the rows: float32 [B], detached, with mean 1 over the batch of all processes."""

    def slopes(self, weights: Tensor, gradients: MetaGradient) -> Tensor:
        """dL_real(θ')/dw_i at ``weights``, with the lookahead of the settings [B]."""
        settings = self.settings
        return gradients.sensitivity(weights, settings.lookahead, settings.real_rows, settings.form)
