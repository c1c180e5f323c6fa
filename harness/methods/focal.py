"""Focal loss (Lin et al. 2017, equation 4): attention to what the model does not yet know."""

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

    Lin et al. differentiate the factor too; here it is a weight like the others, as in the paper that is reproduced
    (arXiv 2410.21526), where no gradient flows through any w_i.
    """

    name = "focal"

    def weights(self, step: MicroBatch) -> Tensor:
        """(1 - p)^γ [B]; 1 - p is -expm1(log p), good to float32's spacing of log p (1e-7 near p = 1)."""
        return (-step.log_model.detach().expm1()).clamp(min=0.0) ** self.settings.gamma
