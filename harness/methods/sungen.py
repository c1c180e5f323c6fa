"""SunGen: weights of synthetic rows by bi-level optimization with a noise-robust outer loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from harness.config.experiment import Training
from harness.methods.base import Method, MethodSettings, MicroBatch, Need, SourceInfo
from harness.methods.protocols import InnerTraining, OuterLoss

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

Rows = npt.NDArray[np.int64]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class SunGenSettings(MethodSettings):
    """How weights are learned before the final training."""

    rounds: Annotated[int, Field(gt=0)] = 4
    """Outer rounds: an inner training from the start and one step on the weights each."""
    inner_epochs: Annotated[int, Field(gt=0)] = 3
    """Epochs of an inner training. Where it ends too early, its gradients speak of the classes' sizes, not of rows."""
    inner_share: Share = 1.0
    """Share of the source that a round trains on, and whose weights it changes."""
    outer: Literal["synthetic", "real"] = "synthetic"
    """What the outer loss is of: the rows of each class with the greatest weights, or the small real set."""
    outer_loss: OuterLoss = "bounded"
    outer_share: Share = 0.5
    """Share of the rows of each class that a ``synthetic`` outer loss is of."""
    folds: Annotated[int, Field(gt=0)] = 2
    """The weights of each of so many parts of the source are judged by a ``synthetic`` outer loss on the others. With
    1, as published, a row of the outer loss has its own gradient in it, which always speaks for it."""
    balanced: bool = True
    """Take off each class's mean inner product, so that rows compete within their class: otherwise the greatest class
    crowds out the others round by round, and a ``synthetic`` outer loss has nothing to say against it."""
    step_size: Annotated[float, Field(gt=0.0)] = 0.15
    """Learning rate of Adam on the weights, which stay between 0 and 1."""
    initial: Share = 0.5
    """What every weight is at first."""


class SunGen(Method[SunGenSettings]):
    """w ← a step of Adam on -⟨∇outer, ∇ℓ_i⟩ where an inner training ends, within 0 and 1 (Gao et al. 2023)."""

    name = "sungen"
    needs = frozenset({"real", "inner_training"})

    @classmethod
    def needs_with(cls, settings: SunGenSettings) -> frozenset[Need]:
        """Real rows only if the outer loss is theirs."""
        return cls.needs if settings.outer == "real" else cls.needs - {"real"}

    def forward_cost(self, training: Training, epochs: float) -> float:
        """Its rounds are many trainings; a look at all inner products costs about three forward passes."""
        chosen = self.settings
        inner = chosen.inner_share * (chosen.inner_epochs + 1) + chosen.outer_share
        return 3.0 + 3.0 * chosen.rounds * inner / epochs

    def prepare(self, preparation: SourceInfo) -> None:
        """Every row starts with the same weight."""
        self._labels = preparation.labels
        import torch  # listing and planning load no torch

        self._learned = torch.full((len(preparation.labels),), self.settings.initial)

    def learn_weights(self, inner: InnerTraining) -> None:
        """Learns the weights."""
        import torch

        chosen, learned = self.settings, self._learned
        optimizer = torch.optim.SparseAdam([learned], lr=chosen.step_size)  # moments of a round's rows only
        for number in range(chosen.rounds):
            order = inner.shuffled(number)[: max(2, round(chosen.inner_share * inner.size))]
            inner.train(learned, np.sort(order), chosen.inner_epochs)
            products = torch.zeros_like(learned)
            for part in np.array_split(order, chosen.folds if chosen.outer == "synthetic" else 1):
                others = order if chosen.folds == 1 else order[~np.isin(order, part)]
                outer = self._greatest(others) if chosen.outer == "synthetic" else None
                products[part] = inner.inner_products(part, outer, chosen.outer_loss).cpu()
            if chosen.balanced:
                for label in np.unique(self._labels):
                    mine = torch.from_numpy(order[self._labels[order] == label])
                    products[mine] -= products[mine].mean()
            # d outer/dw_i = -lr ⟨∇outer, ∇ℓ_i⟩ / Σw: Adam divides by the factor common to all rows
            index = torch.from_numpy(order)[None]
            learned.grad = torch.sparse_coo_tensor(index, -products[order], learned.shape, check_invariants=True)
            optimizer.step()
            learned.clamp_(0.0, 1.0)

    def _greatest(self, rows: Rows) -> Rows:
        """Of some rows, the share of each class with the greatest weights; the first among equals."""
        ranked = rows[np.argsort(-self._learned.numpy()[rows], kind="stable")]
        classes = [ranked[self._labels[ranked] == label] for label in np.unique(self._labels)]
        return np.concatenate([c[: max(1, round(self.settings.outer_share * len(c)))] for c in classes])

    def weights(self, step: MicroBatch) -> Tensor:
        """The learned weights, of mean one over the source [B]."""
        learned = self._learned.to(step.rows.device)
        return learned[step.rows] / learned.mean().clamp(min=1e-6)
