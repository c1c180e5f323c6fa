"""Powers of the quality score and of the model's probability: the family of CE, DIMP and generalized cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods.base import LOG_FLOOR, Method, MethodSettings, MicroBatch, Need

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class PowerSettings(MethodSettings):
    """The two exponents. With both 0 every weight is 1."""

    a: float = Field(default=0.0, ge=-10.0, le=10.0)
    """Exponent of the quality score P'; with 0 no quality checker is needed."""
    b: float = Field(default=0.0, ge=-10.0, le=10.0)
    """Exponent of the model's probability p."""


class Power(Method[PowerSettings]):
    """w_i = P'(y_i|x_i)^a · p(y_i|x_i; θ_t)^b, without gradient through the weight.

    (0, 0) is ``ce``, (1, 0) ``imp_quality``, (1, -1) ``dimp`` (arXiv 2410.21526), and (0, q) ``gce``.
    """

    name = "power"
    needs = frozenset({"quality"})

    @classmethod
    def needs_with(cls, settings: PowerSettings) -> frozenset[Need]:
        """The quality checker only for an exponent other than 0."""
        return cls.needs if settings.a else frozenset()

    def weights(self, batch: MicroBatch) -> Tensor:
        """P'^a · p^b of the given labels, at most exp(-LOG_FLOOR) = 8.5e37, so that it is finite [B]."""
        settings = self.settings
        log_weight = settings.b * batch.log_model.detach().clamp(min=LOG_FLOOR)
        if settings.a:
            log_weight = log_weight + settings.a * batch.log_quality.clamp(min=LOG_FLOOR)
        return log_weight.clamp(max=-LOG_FLOOR).exp()
