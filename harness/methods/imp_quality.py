"""IMP without the diversity checker (ablation of arXiv 2410.21526)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import LOG_FLOOR, Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class ImpQuality(Method[MethodSettings]):
    """w_i = P'(y_i|x_i)."""

    name = "imp_quality"
    needs = frozenset({"quality"})

    def weights(self, batch: MicroBatch) -> Tensor:
        """P' of the given labels [B]."""
        return batch.log_quality.clamp(min=LOG_FLOOR).exp()
