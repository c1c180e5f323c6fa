"""IMP: importance sampling with a quality and a diversity checker (arXiv 2410.21526, Theorem B.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch, ratio

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Imp(Method[MethodSettings]):
    """w_i = P'(y_i|x_i) / Q'(y_i|x_i), fixed before training.

    If Q(x) is close to P(x), the weighted loss on generated rows estimates the loss on real rows.
    """

    name = "imp"
    needs = frozenset({"quality", "diversity"})

    def weights(self, batch: MicroBatch) -> Tensor:
        """P' / Q' of the given labels [B]."""
        return ratio(batch.log_quality, batch.log_diversity)
