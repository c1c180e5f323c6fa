"""Learning data weighting by a look-ahead meta-gradient: a weight for every row, kept from epoch to epoch."""

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

LEAST = 1e-5


class HuSettings(LookaheadSettings):
    """How weights are learned. As published: ``{form: exact, relative: false, decay: 5, real_rows: null}``."""

    normalization: Literal["linear", "softmax"] = "linear"
    """How the weights of a batch are brought to mean one."""
    decay: Annotated[float, Field(ge=1.0)] = 1.5
    """A weight is divided by it before each update: 1 remembers every epoch alike, 5 hardly any but the last."""
    relative: bool = True
    """Derivatives are divided by their mean size in the batch: as they come they are of the size of the learning
    rate, and the update leaves all weights nearly equal."""
    step_size: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the derivative in an update."""


class Hu(LookaheadMethod[HuSettings]):
    """w_i ← max(w_i / decay - dL_real(θ')/dw_i, 1e-5), then mean one in the batch (Hu et al. 2019)."""

    name = "hu"

    def check(self, training: Training, rows: int | None = None) -> None:
        """Weights of mean one need company."""
        super().check(training, rows)
        if training.batch_size == 1:
            raise UserError(
                "method 'hu': weights are of mean one in a batch, so that in training.batch_size 1 all are one; "
                "expected at least 2"
            )

    def prepare(self, preparation: SourceInfo) -> None:
        """Every row starts with weight one."""
        self._rows = len(preparation.labels)
        self._learned: Tensor | None = None

    def learn(self, step: MicroBatch, gradients: MetaGradient) -> Tensor:
        """Updates the weights of the batch's rows and hands them out [B]."""
        chosen = self.settings
        if gradients.size == 1:  # of mean one whatever it learns
            return step.logits.new_ones(len(step.labels))
        if self._learned is None:
            self._learned = step.logits.new_ones(self._rows)
        old = self._learned[step.rows]
        slopes = self.slopes(self._mean_one(old, gradients), gradients)
        if chosen.relative:
            size = gradients.sum(slopes.abs()) / gradients.size
            slopes = (slopes / size).where(size > 0, slopes)
        new = (old / chosen.decay - chosen.step_size * slopes).clamp(min=LEAST)
        seen = gradients.scatter(new.new_ones(len(new))) > 0
        self._learned = gradients.scatter(new).where(seen, self._learned)
        return self._mean_one(new, gradients)

    def _mean_one(self, weights: Tensor, gradients: MetaGradient) -> Tensor:
        if self.settings.normalization == "softmax":
            weights = weights.clamp(max=80.0).exp()
        return weights * (gradients.size / gradients.sum(weights))
