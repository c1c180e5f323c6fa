"""Plain cross-entropy: every weight is 1."""

from __future__ import annotations

from torch import Tensor

from harness.methods.base import Method, MethodSettings, Step


class CrossEntropy(Method[MethodSettings]):
    """w_i = 1."""

    name = "ce"

    def weights(self, step: Step) -> Tensor:
        """Ones [B]."""
        return step.logits.new_ones(step.labels.shape)
