"""Confident learning: leaves out rows whose label a model that has not seen them is confident to be another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.methods.base import Method, MethodSettings, MicroBatch, SourceInfo

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor

#: Differences of probabilities up to this one do not count, as in cleanlab.
TOLERANCE = 1e-6


class Confident(Method[MethodSettings]):
    """w_i = 0 where the out-of-fold prediction is confidently another class than the label, else 1.

    Confident learning (Northcutt et al., JAIR 2021, arXiv 1911.00068). The threshold t_c of a class is its mean
    self-confidence, the mean of Q'(c|x) over the rows with label c. A row is left out if its most probable class is not
    its label and Q'(c|x_i) is at least t_c for some other class c: the rows that cleanlab's ``find_label_issues`` finds
    with the filter ``confident_learning``.
    """

    name = "confident"
    needs = frozenset({"diversity", "out_of_fold"})

    def prepare(self, info: SourceInfo) -> None:
        """Finds the rows to leave out."""
        import torch  # listing and planning load no torch

        assert info.diversity is not None, "the method needs a diversity checker"
        p, rows = np.exp(info.diversity.astype(np.float64)), np.arange(len(info.labels))
        given = info.labels[:, None] == np.arange(info.classes)
        counts = given.sum(axis=0)
        thresholds = np.where(counts, (p * given).sum(axis=0) / np.maximum(counts, 1), np.inf)
        confident = (p >= np.maximum(thresholds, 2 * TOLERANCE) - TOLERANCE) & ~given
        likely = p[rows, info.labels] + TOLERANCE >= p.max(axis=1)  # the label is the most probable class
        self._weights = torch.from_numpy((likely | ~confident.any(axis=1)).astype(np.float32))

    def weights(self, batch: MicroBatch) -> Tensor:
        """Zeros and ones [B]."""
        return self._weights.to(batch.rows.device)[batch.rows]
