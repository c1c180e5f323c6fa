"""Plain cross-entropy: every weight is 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class CrossEntropy(Method[MethodSettings]):
    """w_i = 1."""

    name = "ce"

    def weights(self, batch: MicroBatch) -> Tensor:
        """Ones [B]."""
        return batch.logits.new_ones(batch.labels.shape)
