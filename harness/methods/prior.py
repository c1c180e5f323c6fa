"""Prior control: corrects the class prior alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import TrialError
from harness.methods.base import Method, MethodSettings, MicroBatch, SourceInfo

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Prior(Method[MethodSettings]):
    """w_i = P(y_i) / Q(y_i): the share of label y_i among the real rows over its share in the source."""

    name = "prior"
    needs = frozenset({"real"})

    def prepare(self, info: SourceInfo) -> None:
        """Computes the ratio of label shares.

        Raises:
            TrialError: the small real set was not given.
        """
        if info.real_labels is None:
            raise TrialError("prior needs the labels of real_small")
        real = np.bincount(info.real_labels, minlength=info.classes) / len(info.real_labels)
        source = np.bincount(info.labels, minlength=info.classes) / len(info.labels)
        # the floor avoids a division by zero for classes without rows in the source, whose ratio is never used
        self._ratios = (real / np.maximum(source, 1 / len(info.labels))).astype(np.float32)

    def weights(self, batch: MicroBatch) -> Tensor:
        """P(y) / Q(y) [B]."""
        return batch.logits.new_tensor(self._ratios)[batch.labels]
