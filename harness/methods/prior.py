"""The prior control: how much of a gain is nothing but a corrected class prior?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.errors import TrialError
from harness.methods.base import Method, MethodSettings, SourceInfo, Step


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
        self._shares = torch.from_numpy((real / np.maximum(source, 1 / len(preparation.labels))).astype(np.float32))

    def weights(self, step: Step) -> Tensor:
        """P(y) / Q(y) [B]."""
        self._shares = self._shares.to(step.labels.device)
        return self._shares[step.labels]
