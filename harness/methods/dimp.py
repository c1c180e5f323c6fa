"""DIMP: dynamic importance sampling; the model in training is its own diversity checker (arXiv 2410.21526)."""

from __future__ import annotations

from torch import Tensor

from harness.methods.base import Method, MethodSettings, Step, ratio


class Dimp(Method[MethodSettings]):
    """w_i = P'(y_i|x_i) / p(y_i|x_i; θ_t), anew at every step, without gradient through the weight."""

    name = "dimp"
    needs = frozenset({"quality"})

    def weights(self, step: Step) -> Tensor:
        """P' / p of the given labels [B]."""
        return ratio(step.log_quality, step.log_model.detach())
