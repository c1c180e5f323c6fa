"""Filtering baseline: keeps the rows whose label the quality checker predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Filter(Method[MethodSettings]):
    """w_i = 1 where argmax_y P'(y|x_i) = y_i, else 0."""

    name = "filter"
    needs = frozenset({"quality"})

    def weights(self, batch: MicroBatch) -> Tensor:
        """Zeros and ones [B]."""
        assert batch.quality is not None
        return (batch.quality.argmax(-1) == batch.labels).to(batch.logits.dtype)
