"""The prior control: how much of a gain is nothing but a corrected class prior?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.errors import TrialError
from harness.methods.base import Method, MethodSettings, MicroBatch, SourceInfo

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class Prior(Method[MethodSettings]):
    """w_i = share of y_i among the real rows / share of y_i in the source."""

    name = "prior"
    needs = frozenset({"real"})

    def prepare(self, preparation: SourceInfo) -> None:
        """Counts the labels.

        Raises:
            TrialError: the small real set was not given.
        """
        if preparation.real_labels is None:
            raise TrialError("prior needs the labels of real_small")
        real = np.bincount(preparation.real_labels, minlength=preparation.classes) / len(preparation.real_labels)
        source = np.bincount(preparation.labels, minlength=preparation.classes) / len(preparation.labels)
        # a class that the source lacks is never asked for; the floor only keeps the division quiet
        self._shares = (real / np.maximum(source, 1 / len(preparation.labels))).astype(np.float32)

    def weights(self, step: MicroBatch) -> Tensor:
        """P(y) / Q(y) [B]."""
        return step.logits.new_tensor(self._shares)[step.labels]
