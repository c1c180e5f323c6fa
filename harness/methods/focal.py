"""Focal loss (Lin et al. 2017, equation 4): larger weights for rows that the model does not predict yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods.base import Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class FocalSettings(MethodSettings):
    """Settings of the focal loss."""

    gamma: float = Field(default=2.0, ge=0.0)
    """The focusing exponent; 0 is plain cross-entropy."""


class Focal(Method[FocalSettings]):
    """w_i = (1 - p(y_i|x_i; θ_t))^γ, without gradient through the weight.

    Lin et al. differentiate the factor too; here it is a constant weight, as in arXiv 2410.21526, where no gradient
    flows through any w_i.
    """

    name = "focal"

    def weights(self, batch: MicroBatch) -> Tensor:
        """(1 - p)^γ [B]; 1 - p is computed as -expm1(log p), accurate to the float32 spacing of log p."""
        return (-batch.log_model.detach().expm1()).clamp(min=0.0) ** self.settings.gamma
