"""DIMP: dynamic importance sampling, with the model in training as diversity checker (arXiv 2410.21526)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch, ratio

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Dimp(Method[MethodSettings]):
    """w_i = P'(y_i|x_i) / p(y_i|x_i; θ_t) at every step t, without gradient through the weight."""

    name = "dimp"
    needs = frozenset({"quality"})

    def weights(self, batch: MicroBatch) -> Tensor:
        """P' / p of the given labels [B]."""
        return ratio(batch.log_quality, batch.log_model.detach())
