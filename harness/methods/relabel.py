"""Relabeling: keeps the texts and learns the quality checker's soft labels in place of the given ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.methods.base import Method, MethodSettings, MicroBatch

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class RelabelSettings(MethodSettings):
    """Settings of relabeling."""

    hard: bool = False
    """Whether a row learns the checker's most probable label alone, in place of the probabilities of all labels."""


class Relabel(Method[RelabelSettings]):
    """w_i = 1, and the loss of a row is -Σ_y P'(y|x_i) log p(y|x_i; θ): the labels of the rows are not used.

    Self-training with soft labels on generated texts (He et al., TACL 2022, arXiv 2106.06168); the quality checker is
    the teacher.
    """

    name = "relabel"
    needs = frozenset({"quality"})

    def targets(self, batch: MicroBatch) -> Tensor:
        """P'(y|x_i) of all labels y, or 1 for the most probable one and 0 for the others [B, C]."""
        assert batch.quality is not None
        if self.settings.hard:
            import torch  # listing and planning load no torch

            return torch.nn.functional.one_hot(batch.quality.argmax(-1), batch.quality.shape[-1]).to(batch.quality)
        return batch.quality.exp()

    def weights(self, batch: MicroBatch) -> Tensor:
        """Ones [B]."""
        return batch.logits.new_ones(batch.labels.shape)
