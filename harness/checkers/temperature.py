"""Temperature scaling of a checker's scores (Guo et al., ICML 2017, arXiv 1706.04599)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import TrialError

FloatArray = npt.NDArray[np.floating[Any]]
#: Smallest and largest temperature; the best one is 0 where a checker gets every validation row right.
BOUNDS = (0.05, 20.0)


def fit_temperature(log_probs: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """The temperature T that minimizes the mean of -log softmax(z / T) of the labels, in float64.

    The loss is convex in 1 / T, so its derivative has at most one root.

    Args:
        log_probs: log-probabilities [n, C] of validation rows; as logits z they give the same softmax.
        labels: class indices [n].

    Returns:
        T, within ``BOUNDS``.

    Raises:
        TrialError: a log-probability is not finite.
    """
    z = log_probs.astype(np.float64)
    if not np.isfinite(z).all():
        raise TrialError("no temperature can be fitted: a log-probability of a validation row is not finite")
    given = z[np.arange(len(z)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the loss with respect to 1 / T."""
        return float(((np.exp(calibrated(z, 1.0 / inverse)) * z).sum(axis=1) - given).mean())

    low, high = 1.0 / BOUNDS[1], 1.0 / BOUNDS[0]
    if slope(low) >= 0.0:
        return BOUNDS[1]
    if slope(high) <= 0.0:
        return BOUNDS[0]
    from scipy.optimize import brentq

    return 1.0 / float(brentq(slope, low, high, xtol=1e-12, rtol=1e-12))


def calibrated(log_probs: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """log softmax(z / T) for log-probabilities or logits z, in float64 [n, C]."""
    z = log_probs.astype(np.float64) / temperature
    z = z - z.max(axis=1, keepdims=True)
    out: npt.NDArray[np.float64] = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return out
