"""Learning data weighting by a look-ahead meta-gradient: a weight for every row, kept from epoch to epoch."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.methods.base import Form, MetaGradient, Method, MethodSettings, Preparation, Rule, Step

LEAST = 1e-5


class HuSettings(MethodSettings):
    """How weights are learned; ``decay``, the floor, ``adam`` and the normalisations are as published."""

    look_ahead: Rule = "adam"
    """Through whose step; ``adam`` with the optimiser's own moments."""
    form: Form = "linear"
    """``exact``, the published one, makes an Adam step of every example's own gradient, one example at a time."""
    normalisation: Literal["linear", "softmax"] = "linear"
    """How the weights of a batch are brought to mean one."""
    decay: Annotated[float, Field(ge=1.0)] = 1.5
    """A weight is divided by it before each update: 1 remembers every epoch alike, the published 5 hardly any."""
    relative: bool = True
    """Derivatives are divided by their mean size in the batch: as they come they are of the size of the learning
    rate, and the published update with them leaves all weights nearly equal."""
    step_size: Annotated[float, Field(gt=0.0)] = 1.0
    """Factor of the derivative in an update."""
    real_rows: int | None = Field(default=32, gt=0)
    """Real rows of a look ahead; null for all of them, as published."""
    warm_up: int = Field(default=1, ge=0)
    """Epochs of plain CE before."""


class Hu(Method[HuSettings]):
    """w_i <- max(w_i / decay - dL_real(theta')/dw_i, 1e-5), then mean one in the batch (Hu et al. 2019)."""

    name = "hu"
    needs = frozenset({"real", "gradients"})

    def passes(self, epochs: int) -> float:
        """The warm-up is CE's."""
        plain = min(self.settings.warm_up, epochs)
        return (3.0 * plain + 11.0 * (epochs - plain)) / epochs

    def prepare(self, preparation: Preparation) -> None:
        """Every row starts with weight one."""
        self._learned = torch.ones(len(preparation.labels))

    def weights(self, step: Step) -> Tensor:
        """At least 0, of mean one over the batch [B]."""
        chosen, asked = self.settings, step.gradients
        if step.epoch < chosen.warm_up:
            return torch.ones_like(step.logits[:, 0]).detach()
        assert asked is not None, "the loop answers a method that needs gradients"
        self._learned = self._learned.to(step.rows.device)
        old = self._learned[step.rows]
        slope = asked.sensitivity(self._mean_one(old, asked), chosen.look_ahead, chosen.real_rows, chosen.form)
        if chosen.relative:
            size = asked.sum(slope.abs()) / asked.size
            slope = torch.where(size > 0, slope / size, slope)
        new = (old / chosen.decay - chosen.step_size * slope).clamp(min=LEAST)
        seen = asked.scatter(torch.ones_like(new)) > 0
        self._learned = torch.where(seen, asked.scatter(new), self._learned)
        return self._mean_one(new, asked)

    def _mean_one(self, weights: Tensor, asked: MetaGradient) -> Tensor:
        if self.settings.normalisation == "softmax":
            weights = weights.clamp(max=80.0).exp()
        return weights * (asked.size / asked.sum(weights))
