"""Learning to reweight examples (Ren et al. 2018): weights of each batch from one lookahead gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import MicroBatch
from harness.methods.lookahead import LookaheadMethod, LookaheadSettings
from harness.methods.protocols import MetaGradient, Rule

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class RenSettings(LookaheadSettings):
    """Settings of ``ren``."""

    lookahead: Rule = "sgd"
    """Optimizer of the lookahead step. ``sgd`` is published; its weights do not depend on the learning rate."""


class Ren(LookaheadMethod[RenSettings]):
    """w_i ∝ max(0, -dL_real(θ')/dw_i) at w = 0, with mean 1 in each batch (Ren et al. 2018, Algorithm 1)."""

    name = "ren"
    lookahead_cost = 7.5  # at w = 0 the gradient of the batch is not computed

    def learn(self, batch: MicroBatch, gradients: MetaGradient) -> Tensor:
        """At least 0 [B]; all 0 if no row lowers the real loss."""
        zero = batch.logits.new_zeros(len(batch.labels))
        raw = (-self.slopes(zero, gradients)).clamp(min=0.0)
        total = gradients.sum(raw)
        return (raw * (gradients.size / total)).where(total > 0, zero)
