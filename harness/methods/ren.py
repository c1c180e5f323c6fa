"""Learning to reweight examples: weights from one look-ahead gradient, forgotten after each batch."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from harness.methods.base import Form, Method, MethodSettings, Rule, Step


class RenSettings(MethodSettings):
    """How it looks ahead."""

    look_ahead: Rule = "sgd"
    """Through whose step. The published rule is ``sgd``, where the weights do not depend on the learning rate."""
    form: Form = "linear"
    """``exact`` makes a step of every example's own gradient, one example at a time; for ``sgd`` the same."""
    real_rows: int | None = Field(default=32, gt=0)
    """Real rows of a look ahead; null for all of them."""
    warm_up: int = Field(default=1, ge=0)
    """Epochs of plain CE before: at the start the gradients of an untrained head say little."""


class Ren(Method[RenSettings]):
    """w_i = max(0, -dL_real(theta')/dw_i at w = 0), mean one in a batch (Ren et al. 2018, Algorithm 1)."""

    name = "ren"
    needs = frozenset({"real", "gradients"})

    def passes(self, epochs: int) -> float:
        """The warm-up is CE's."""
        plain = min(self.settings.warm_up, epochs)
        return (3.0 * plain + 9.0 * (epochs - plain)) / epochs

    def weights(self, step: Step) -> Tensor:
        """At least 0, of mean one over the batch; all 0 where no row helps [B]."""
        chosen, asked = self.settings, step.gradients
        if step.epoch < chosen.warm_up:
            return torch.ones_like(step.logits[:, 0]).detach()
        assert asked is not None, "the loop answers a method that needs gradients"
        zero = torch.zeros_like(step.logits[:, 0]).detach()
        raw = (-asked.sensitivity(zero, chosen.look_ahead, chosen.real_rows, chosen.form)).clamp(min=0.0)
        total = asked.sum(raw)
        return torch.where(total > 0, raw * (asked.size / total), zero)
