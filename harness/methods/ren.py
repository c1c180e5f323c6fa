"""Learning to reweight examples: weights from one look-ahead gradient, forgotten after each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import MicroBatch
from harness.methods.lookahead import LookaheadMethod, LookaheadSettings
from harness.methods.protocols import MetaGradient, Rule

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class RenSettings(LookaheadSettings):
    """How it looks ahead."""

    lookahead: Rule = "sgd"
    """Through whose step. The published rule is ``sgd``, where the weights do not depend on the learning rate."""


class Ren(LookaheadMethod[RenSettings]):
    """w_i = max(0, -dL_real(θ')/dw_i at w = 0), mean one in a batch (Ren et al. 2018, Algorithm 1)."""

    name = "ren"
    look = 7.5  # at w = 0 the batch's own gradient need not be computed

    def learn(self, step: MicroBatch, gradients: MetaGradient) -> Tensor:
        """At least 0; all 0 where no row helps [B]."""
        zero = step.logits.new_zeros(len(step.labels))
        raw = (-self.slopes(zero, gradients)).clamp(min=0.0)
        total = gradients.sum(raw)
        return (raw * (gradients.size / total)).where(total > 0, zero)
