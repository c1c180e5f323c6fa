"""Recorded weights and their statistics."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.training.process_group import ProcessGroup

#: Keys of ``summary``.
STATISTICS = ("weight_mean", "weight_min", "weight_max", "weight_clipped", "weight_ess")


class WeightRecord:
    """The last weight of every row between two evaluations, gathered over all processes.

    Args:
        rows: number of rows n of the source.
        group: the processes that train together.

    Attributes:
        last: the last weight of every row in this process, float32 [n]; 0 before the first.
        step: the step of that weight, int64 [n]; -1 for rows not seen since the last ``take``.
    """

    def __init__(self, rows: int, group: ProcessGroup) -> None:
        self._group = group
        self.last = torch.zeros(rows, device=group.device)
        self.step = torch.full((rows,), -1, dtype=torch.int64, device=group.device)

    def add(self, rows: Tensor, weights: Tensor, step: int) -> None:
        """Records the weights [B] of rows [B] at a step."""
        self.last[rows] = weights.detach()
        self.step[rows] = step

    def take(self) -> npt.NDArray[np.float32]:
        """The last weights, float32 [n], NaN for rows not seen since the last call; starts over."""
        newest = self._group.maximum(self.step.clone())
        newest_here = torch.where((self.step == newest) & (newest >= 0), self.last, torch.zeros_like(self.last))
        out = torch.where(newest >= 0, self._group.sum(newest_here), torch.full_like(newest_here, torch.nan))
        self.step.fill_(-1)
        array: npt.NDArray[np.float32] = out.cpu().numpy()
        return array


def effective_sample_size(weights: npt.NDArray[np.float64]) -> float:
    """Relative effective sample size (Σw)² / (n Σw²) (Kish 1965), in (0, 1]; 0 if all weights are 0.

    Equally weighted rows of this share of n would give the same variance.
    """
    scale = weights.max(initial=0.0)
    if scale <= 0.0:
        return 0.0
    scaled = weights / scale  # squares of weights near 1e38 overflow otherwise
    return float(scaled.sum() ** 2 / (len(scaled) * np.square(scaled).sum()))


def summary(weights: npt.NDArray[np.float32], clip: float | None) -> dict[str, float]:
    """Mean, minimum, maximum, clipped share and effective sample size of weights [n], without NaN.

    All are NaN if no row was seen: few steps on a mixed stage may use real rows alone.
    """
    seen = weights[~np.isnan(weights)].astype(np.float64)
    if not len(seen):
        return dict.fromkeys(STATISTICS, float("nan"))
    return {
        "weight_mean": float(seen.mean()),
        "weight_min": float(seen.min()),
        "weight_max": float(seen.max()),
        "weight_clipped": 0.0 if clip is None else float((seen >= np.float32(clip)).mean()),
        "weight_ess": effective_sample_size(seen),
    }
