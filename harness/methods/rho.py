"""RHO-LOSS (Mindermann et al., ICML 2022): trains on the rows of a batch that can still be learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods.base import Method, MethodSettings, MicroBatch, log_ratio

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class RhoSettings(MethodSettings):
    """Settings of RHO-LOSS."""

    share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share k / B of the rows of a batch that are kept, at least one row; 1 is plain cross-entropy."""


class Rho(Method[RhoSettings]):
    """w_i = B / k for the k rows of a batch with the greatest log P'(y_i|x_i) - log p(y_i|x_i; θ_t), else 0.

    This difference, the reducible holdout loss (arXiv 2206.07137), is the log of DIMP's weight. B counts the rows that
    are weighed. With several workers, each selects from its own part of the batch.
    """

    name = "rho"
    needs = frozenset({"quality"})
    compares_rows = True

    def scores(self, batch: MicroBatch) -> Tensor:
        """The reducible holdout loss in nats, detached [B]."""
        return log_ratio(batch.log_quality, batch.log_model.detach())

    def weights(self, batch: MicroBatch) -> Tensor:
        """B / k or 0, with mean 1; of rows with equal scores the first ones are kept [B]."""
        rows = len(batch.labels)
        kept = max(1, round(self.settings.share * rows))
        best = self.scores(batch).argsort(descending=True, stable=True)[:kept]
        weights = batch.logits.new_zeros(rows)
        weights[best] = rows / kept
        return weights
