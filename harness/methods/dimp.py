"""DIMP: dynamic importance sampling, with the model in training as diversity checker (arXiv 2410.21526)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from harness.config.experiment import Training
from harness.errors import UserError
from harness.methods.base import Method, MethodSettings, MicroBatch, SourceInfo, ratio

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class DimpSettings(MethodSettings):
    """Settings of DIMP."""

    lag: Literal["none", "epoch", "first"] = "none"
    """Which p divides P'. ``none``: that of the current step, as published. ``epoch``: that of the row's step in the
    epoch before; in the first epoch the current one. ``first``: that of the first epoch, in all later epochs."""

    @model_serializer(mode="wrap")
    def _without_default_lag(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the default, so that it is not part of the ids of trials that are older than this setting."""
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key != "lag" or value != "none"}


class Dimp(Method[DimpSettings]):
    """w_i = P'(y_i|x_i) / p(y_i|x_i; θ_t) at every step t, without gradient through the weight.

    A model that has learned a row by heart has p near 1, whatever the label; with a ``lag``, p is older than that.

    Attributes:
        lagged: log p of all weighed rows in an earlier epoch, float32 [n]; None in the first one.
    """

    name = "dimp"
    needs = frozenset({"quality"})

    def check(self, training: Training, rows: int | None = None) -> None:
        """Reject a lag in a training of one epoch, which it would not change."""
        super().check(training, rows)
        if self.settings.lag == "none":
            return
        if training.steps is None and training.epochs == 1:
            raise UserError(
                f"method 'dimp': lag {self.settings.lag!r} changes nothing in the first epoch; expected "
                "training.epochs of at least 2, found 1"
            )
        if training.steps is not None and rows is not None:
            first = math.ceil(rows / training.batch_size)
            if training.steps <= first:
                raise UserError(
                    f"method 'dimp': lag {self.settings.lag!r} changes nothing in the first epoch, which has "
                    f"{first} steps; expected more steps, found {training.steps}"
                )

    def prepare(self, info: SourceInfo) -> None:
        """Nothing is known of earlier epochs."""
        import torch  # listing and planning load no torch

        self.lagged: Tensor | None = None
        self._recorded = torch.zeros(len(info.labels))

    def end_epoch(self, total: Callable[[Tensor], Tensor]) -> None:
        """Keeps log p of the epoch that ends; every row was in one of its batches, in one process."""
        if self.settings.lag == "epoch" or (self.settings.lag == "first" and self.lagged is None):
            self.lagged = total(self._recorded)
            self._recorded = self._recorded.new_zeros(len(self._recorded))

    def weights(self, batch: MicroBatch) -> Tensor:
        """P' / p of the given labels [B]."""
        log_model = batch.log_model.detach()
        if self.settings.lag == "none":
            return ratio(batch.log_quality, log_model)
        self._recorded = self._recorded.to(log_model.device)
        self._recorded[batch.rows] = log_model
        return ratio(batch.log_quality, log_model if self.lagged is None else self.lagged[batch.rows])
