"""IMP without diversity checker, the ablation of arXiv 2410.21526."""

from __future__ import annotations

from torch import Tensor

from harness.methods.base import LOG_FLOOR, Method, MethodSettings, Step


class ImpQuality(Method[MethodSettings]):
    """w_i = P'(y_i|x_i)."""

    name = "imp_quality"
    needs = frozenset({"quality"})

    def weights(self, step: Step) -> Tensor:
        """P' of the given labels [B]."""
        return step.log_quality.clamp(min=LOG_FLOOR).exp()
