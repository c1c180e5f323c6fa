"""The filtering baseline: keep a row only where the quality checker agrees with its label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Filter(Method[MethodSettings]):
    """w_i = 1 where argmax_y P'(y|x_i) = y_i, else 0."""

    name = "filter"
    needs = frozenset({"quality"})

    def weights(self, step: MicroBatch) -> Tensor:
        """Zeros and ones [B]."""
        assert step.quality is not None
        return (step.quality.argmax(-1) == step.labels).to(step.logits.dtype)
