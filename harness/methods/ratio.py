"""Density ratio of the texts: rows whose texts look like real ones weigh more, whatever their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from harness.config.sources import weighed_splits
from harness.data.density_ratio import log_density_ratio
from harness.errors import UserError
from harness.methods.base import LOG_FLOOR, Method, MethodSettings, MicroBatch, Need, SourceInfo, log_ratio

if TYPE_CHECKING:  # listing and planning load no torch
    from torch import Tensor


class RatioSettings(MethodSettings):
    """Settings of the density ratio."""

    tau: float = Field(default=1.0, ge=0.0, le=10.0)
    """Exponent that flattens the ratio; with 0 every weight is 1."""
    times_imp: bool = False
    """Multiply by the weight of ``imp``, which assumes that the ratio is 1."""
    c: float = Field(default=1.0, gt=0.0)
    """Inverse of the L2 penalty of the classifier that tells real texts from others; large values give few large
    weights."""


class Ratio(Method[RatioSettings]):
    """w_i = r(x_i)^τ, r the density of real texts over that of the source: d/(1-d) · n/m; or r^τ · P'/Q'.

    d = P(real|x) is cross-fitted on frozen embeddings (likelihood-free importance weights, Grover et al., NeurIPS 2019,
    arXiv 1906.09531; for language-model data: DSIR, Xie et al., NeurIPS 2023, arXiv 2302.03169).

    Attributes:
        auc: how well the classifier tells real texts from others; 0.5 if it cannot, and the weights are then noise.
    """

    name = "ratio"
    needs = frozenset({"real", "embeddings", "quality", "diversity"})

    @classmethod
    def needs_with(cls, settings: RatioSettings) -> frozenset[Need]:
        """Checkers only with ``times_imp``."""
        return cls.needs if settings.times_imp else cls.needs - {"quality", "diversity"}

    def check_splits(self, splits: tuple[str, ...]) -> None:
        """Reject the small real set, whose texts are those that the source's are compared with."""
        if "real_small" in weighed_splits(splits):
            raise UserError(
                f"method 'ratio' compares the texts of a source with those of real_small: expected a source of other "
                f"rows, found {' + '.join(splits)}"
            )

    def prepare(self, info: SourceInfo) -> None:
        """Fits the classifier."""
        import torch  # listing and planning load no torch

        assert info.embeddings is not None, "the method needs embeddings"
        log_r, self.auc = log_density_ratio(*info.embeddings, self.settings.c, info.seed)
        self._log_r = torch.from_numpy((self.settings.tau * log_r).astype(np.float32))

    def diagnostics(self) -> dict[str, float]:
        """The AUC of the classifier."""
        return {"auc": self.auc}

    def weights(self, batch: MicroBatch) -> Tensor:
        """r^τ, or r^τ · P'/Q' of the given labels, at most exp(-LOG_FLOOR) = 8.5e37, so that it is finite [B]."""
        log_weight = self._log_r.to(batch.rows.device)[batch.rows]
        if self.settings.times_imp:
            log_weight = log_weight + log_ratio(batch.log_quality, batch.log_diversity)
        return log_weight.clamp(max=-LOG_FLOOR).exp()
