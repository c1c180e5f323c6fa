"""The weights that examples were given, and what they say of a method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.training.process_group import ProcessGroup


class WeightRecord:
    """The last weight of every row between two evaluations, gathered over all workers.

    Args:
        rows: number of rows n of the source.
        workers: the processes that train together.
    """

    def __init__(self, rows: int, workers: ProcessGroup) -> None:
        self._workers = workers
        self._last = torch.zeros(rows, device=workers.device)
        self._step = torch.full((rows,), -1, dtype=torch.int64, device=workers.device)

    def add(self, rows: Tensor, weights: Tensor, step: int) -> None:
        """Notes the weights [B] of rows [B] at a step."""
        self._last[rows] = weights.detach()
        self._step[rows] = step

    def take(self) -> npt.NDArray[np.float32]:
        """Float32 [n], NaN for rows not seen since the last call; starts anew."""
        newest = self._workers.maximum(self._step.clone())
        mine = torch.where((self._step == newest) & (newest >= 0), self._last, torch.zeros_like(self._last))
        out = torch.where(newest >= 0, self._workers.sum(mine), torch.full_like(mine, torch.nan))
        self._step.fill_(-1)
        array: npt.NDArray[np.float32] = out.cpu().numpy()
        return array


def effective_sample_size(weights: npt.NDArray[np.float64]) -> float:
    """(Σw)² / (n Σw²), in (0, 1]: the share of rows that equal weights would need for the same variance (Kish 1965).

    0 where all weights are 0.
    """
    scale = weights.max(initial=0.0)
    if scale <= 0.0:
        return 0.0
    scaled = weights / scale  # squares of weights near 1e38 overflow otherwise
    return float(scaled.sum() ** 2 / (len(scaled) * np.square(scaled).sum()))


def summary(weights: npt.NDArray[np.float32], clip: float | None) -> dict[str, float]:
    """Mean, extremes, share clipped and effective sample size of weights [n]; rows with NaN are left out."""
    seen = weights[~np.isnan(weights)].astype(np.float64)
    return {
        "weight_mean": float(seen.mean()),
        "weight_min": float(seen.min()),
        "weight_max": float(seen.max()),
        "weight_clipped": 0.0 if clip is None else float((seen >= np.float32(clip)).mean()),
        "weight_ess": effective_sample_size(seen),
    }
