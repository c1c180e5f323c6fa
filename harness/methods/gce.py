"""Generalized cross-entropy (Zhang & Sabuncu, NeurIPS 2018): robust against wrong labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods.base import LOG_FLOOR, Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class GceSettings(MethodSettings):
    """Settings of generalized cross-entropy."""

    q: float = Field(default=0.7, ge=0.0, le=1.0)
    """0 is plain cross-entropy, 1 the mean absolute error 1 - p; 0.7 is published."""


class Gce(Method[GceSettings]):
    """w_i = p(y_i|x_i; θ_t)^q: the gradient of w · CE is that of (1 - p^q) / q (arXiv 1805.07836).

    No gradient flows through the weight. The training loss that is reported is mean(w · CE), not (1 - p^q) / q.
    """

    name = "gce"

    def weights(self, batch: MicroBatch) -> Tensor:
        """p^q of the given labels, in (0, 1] [B]."""
        return (self.settings.q * batch.log_model.detach().clamp(min=LOG_FLOOR)).exp()
