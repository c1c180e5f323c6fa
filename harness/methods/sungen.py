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
    """Settings of ``sungen``: how weights are learned before the final training."""

    rounds: Annotated[int, Field(gt=0)] = 3
    """Outer rounds, each one inner training from the initial model and one update of the weights; 4 are no better."""
    inner_epochs: Annotated[int, Field(gt=0)] = 3
    """Epochs of an inner training. After too few, gradients depend on class sizes more than on rows."""
    inner_share: Share = 1.0
    """Share of the rows that a round trains on and whose weights it updates."""
    outer: Literal["synthetic", "real"] = "synthetic"
    """Rows of the outer loss: those with the largest weights in each class, or the small real set."""
    outer_loss: OuterLoss = "bounded"
    outer_share: Share = 0.5
    """Share of the rows of each class in a ``synthetic`` outer loss."""
    folds: Annotated[int, Field(gt=0)] = 2
    """Number of parts of the source; the weights of each part are updated by a ``synthetic`` outer loss on the other
    parts. With 1, as published, the gradient of a row of the outer loss always favors the row itself."""
    balanced: bool = True
    """Subtract the mean inner product of each class, so that rows compete within their class. Otherwise the largest
    class displaces the others, which a ``synthetic`` outer loss does not prevent."""
    step_size: Annotated[float, Field(gt=0.0)] = 0.15
    """Learning rate of Adam on the weights, which are clamped to [0, 1]."""
    initial: Share = 0.5
    """Initial value of every weight."""


class SunGen(Method[SunGenSettings]):
    """w ← Adam step on -⟨∇outer, ∇ℓ_i⟩ at the end of an inner training, clamped to [0, 1] (Gao et al. 2023).

    Attributes:
        learned: the weights of all weighed rows so far, float32 [n].
    """

    name = "sungen"
    needs = frozenset({"real", "inner_training"})

    @classmethod
    def needs_with(cls, settings: SunGenSettings) -> frozenset[Need]:
        """Real rows only for a ``real`` outer loss."""
        return cls.needs if settings.outer == "real" else cls.needs - {"real"}

    def forward_cost(self, training: Training, epochs: float) -> float:
        """Every round is a training; computing all inner products costs about three forward passes per row."""
        settings = self.settings
        inner = settings.inner_share * (settings.inner_epochs + 1) + settings.outer_share
        return 3.0 + 3.0 * settings.rounds * inner / epochs

    def prepare(self, info: SourceInfo) -> None:
        """Every row starts with the same weight."""
        import torch  # listing and planning load no torch

        self._labels = info.labels
        self.learned = torch.full((len(info.labels),), self.settings.initial)

    def learn_weights(self, inner: InnerTraining) -> None:
        """Runs the outer rounds."""
        import torch

        settings, learned = self.settings, self.learned
        optimizer = torch.optim.SparseAdam([learned], lr=settings.step_size)  # moments of a round's rows only
        for number in range(settings.rounds):
            order = inner.shuffled(number)[: max(2, round(settings.inner_share * inner.size))]
            inner.train(learned, np.sort(order), settings.inner_epochs)
            products = torch.zeros_like(learned)
            for part in np.array_split(order, settings.folds if settings.outer == "synthetic" else 1):
                others = order if settings.folds == 1 else order[~np.isin(order, part)]
                outer = self._heaviest(others) if settings.outer == "synthetic" else None
                products[part] = inner.inner_products(part, outer, settings.outer_loss).cpu()
            if settings.balanced:
                for label in np.unique(self._labels):
                    members = torch.from_numpy(order[self._labels[order] == label])
                    products[members] -= products[members].mean()
            # d outer/dw_i = -lr ⟨∇outer, ∇ℓ_i⟩ / Σw: Adam is invariant to the factor common to all rows
            index = torch.from_numpy(order)[None]
            learned.grad = torch.sparse_coo_tensor(index, -products[order], learned.shape, check_invariants=True)
            optimizer.step()
            learned.clamp_(0.0, 1.0)

    def _heaviest(self, rows: Rows) -> Rows:
        """The rows with the largest weights: ``outer_share`` of every class; ties keep their order."""
        ranked = rows[np.argsort(-self.learned.numpy()[rows], kind="stable")]
        classes = [ranked[self._labels[ranked] == label] for label in np.unique(self._labels)]
        return np.concatenate([c[: max(1, round(self.settings.outer_share * len(c)))] for c in classes])

    def weights(self, batch: MicroBatch) -> Tensor:
        """The learned weights, divided by their mean over the source [B]."""
        learned = self.learned.to(batch.rows.device)
        return learned[batch.rows] / learned.mean().clamp(min=1e-6)
