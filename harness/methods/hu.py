"""Learning data weighting (Hu et al. 2019): one weight per row, updated by a lookahead gradient in every epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.config.experiment import Training
from harness.errors import UserError
from harness.methods.base import MicroBatch, SourceInfo
from harness.methods.lookahead import LookaheadMethod, LookaheadSettings
from harness.methods.protocols import MetaGradient

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

#: Lower bound of a learned weight.
MIN_WEIGHT = 1e-5


class HuSettings(LookaheadSettings):
    """Settings of ``hu``. As published: ``{form: exact, relative: false, decay: 5, real_rows: null}``."""

    normalization: Literal["linear", "softmax"] = "linear"
    """How the weights of a batch are normalized to mean 1."""
    decay: Annotated[float, Field(ge=1.0)] = 1.5
    """Divisor of a weight before each update: with 1 all epochs count equally, with 5 almost only the last."""
    relative: bool = True
    """Divide derivatives by their mean absolute value in the batch. Without this they are of the order of the learning
    rate, and updates leave all weights nearly equal."""
    step_size: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the derivative in an update."""


class Hu(LookaheadMethod[HuSettings]):
    """w_i ← max(w_i / decay - step_size · dL_real(θ')/dw_i, 1e-5), then mean 1 in the batch (Hu et al. 2019).

    Attributes:
        learned: the weights of all weighed rows so far, float32 [n]; None before the first batch.
    """

    name = "hu"

    def check(self, training: Training, rows: int | None = None) -> None:
        """Reject batch size 1: after normalization every weight would be 1."""
        super().check(training, rows)
        if training.batch_size == 1:
            raise UserError(
                "method 'hu': weights are of mean one in a batch, so that in training.batch_size 1 all are one; "
                "expected at least 2"
            )

    def prepare(self, info: SourceInfo) -> None:
        """Every row starts with weight 1."""
        self._rows = len(info.labels)
        self.learned: Tensor | None = None

    def learn(self, batch: MicroBatch, gradients: MetaGradient) -> Tensor:
        """Updates the weights of the batch's rows and returns them, normalized [B]."""
        settings = self.settings
        if gradients.size == 1:  # the mean is 1 whatever the update
            return batch.logits.new_ones(len(batch.labels))
        if self.learned is None:
            self.learned = batch.logits.new_ones(self._rows)
        old = self.learned[batch.rows]
        slopes = self.slopes(self._mean_one(old, gradients), gradients)
        if settings.relative:
            size = gradients.sum(slopes.abs()) / gradients.size
            slopes = (slopes / size).where(size > 0, slopes)
        new = (old / settings.decay - settings.step_size * slopes).clamp(min=MIN_WEIGHT)
        seen = gradients.scatter(new.new_ones(len(new))) > 0
        self.learned = gradients.scatter(new).where(seen, self.learned)
        return self._mean_one(new, gradients)

    def _mean_one(self, weights: Tensor, gradients: MetaGradient) -> Tensor:
        if self.settings.normalization == "softmax":
            weights = weights.clamp(max=80.0).exp()
        return weights * (gradients.size / gradients.sum(weights))
