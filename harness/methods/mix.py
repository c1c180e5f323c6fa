"""Weighted empirical risk: a share of the loss for real rows, the rest for the rows beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.config.sources import REAL_SPLITS
from harness.errors import TrialError, UserError
from harness.methods.base import Method, MethodSettings, MicroBatch, SourceInfo

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class MixSettings(MethodSettings):
    """Settings of the mixture."""

    alpha: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the loss that the real rows have together; m / (n + m) is plain cross-entropy on all rows."""


class Mix(Method[MixSettings]):
    """w_i = α (n + m) / m for the m real rows, (1 - α) (n + m) / n for the n others; mean 1 over the source.

    The weighted empirical risk of Jain, Montanari & Sasoglu (NeurIPS 2024, arXiv 2402.04376), whose α is the share of
    the surrogate rows, here 1 - α.
    """

    name = "mix"
    weighs_real_rows = True

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """Reject a stage without real rows or without others."""
        if len({split in REAL_SPLITS for split in splits}) == 1:
            raise UserError(
                f"method 'mix' weighs real rows against others: expected a source that trains on both at once, such as "
                f"'both', found {' + '.join(splits)}"
            )

    def prepare(self, info: SourceInfo) -> None:
        """Computes the two weights.

        Raises:
            TrialError: the source has no real rows, or no others.
        """
        rows = len(info.labels)
        real = 0 if info.is_real is None else int(info.is_real.sum())
        if real in (0, rows):
            raise TrialError(f"mix needs real rows and others, found {real} real rows among {rows}")
        alpha = self.settings.alpha
        self._weights = (alpha * rows / real, (1.0 - alpha) * rows / (rows - real))

    def weights(self, batch: MicroBatch) -> Tensor:
        """One of two weights for each row [B]."""
        assert batch.real is not None, "the loop says which rows are real to methods that weigh them"
        real, others = (batch.logits.new_tensor(weight) for weight in self._weights)
        return real.where(batch.real, others)
