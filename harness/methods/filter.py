"""The filtering baseline: keep a row only where the quality checker agrees with its label."""

from __future__ import annotations

from torch import Tensor

from harness.methods.base import Method, MethodSettings, Step


class Filter(Method[MethodSettings]):
    """w_i = 1 where argmax_y P'(y|x_i) = y_i, else 0."""

    name = "filter"
    needs = frozenset({"quality"})

    def weights(self, step: Step) -> Tensor:
        """Zeros and ones [B]."""
        assert step.quality is not None
        return (step.quality.argmax(-1) == step.labels).to(step.logits.dtype)
