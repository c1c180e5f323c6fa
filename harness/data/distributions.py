"""Distances between two conditional label distributions, from the log-probabilities of two checkers.

P(y|x) is the quality checker's distribution, Q(y|x) the diversity checker's. Functions are pure, values in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """Distances between real data (P) and generated data (Q), in nats.

    Attributes:
        entropy_real: H(Y|X) of the quality checker on real rows.
        entropy_generated: H(Y|X) of the diversity checker on generated rows.
        kl_real_generated: KL(P||Q), mean over real rows.
        kl_generated_real: KL(Q||P), mean over generated rows.
    """

    entropy_real: float
    entropy_generated: float
    kl_real_generated: float
    kl_generated_real: float


def conditional_entropy(log_probs: FloatArray) -> float:
    """H(Y|X): mean over rows of -sum_y p log p.

    Args:
        log_probs: [rows, classes], each row normalized.

    Raises:
        ValueError: rows are not normalized, or the array is not two-dimensional with at least one row.
    """
    checked = _checked(log_probs)
    return float(-_expected(checked, checked).mean())


def conditional_kl(log_p: FloatArray, log_q: FloatArray) -> float:
    """KL(P||Q): mean over rows of sum_y p (log p - log q); infinite where q is 0 and p is not.

    Args:
        log_p: log-probabilities of P on rows drawn from P's data [rows, classes].
        log_q: log-probabilities of Q on the same rows [rows, classes].

    Raises:
        ValueError: the shapes differ; and see ``conditional_entropy``.
    """
    p, q = _checked(log_p), _checked(log_q)
    if p.shape != q.shape:
        raise ValueError(f"expected two arrays of one shape, got {p.shape} and {q.shape}")
    return float((_expected(p, p) - _expected(p, q)).mean())


def distance(quality_real: FloatArray, diversity_real: FloatArray, quality_generated: FloatArray,
             diversity_generated: FloatArray) -> Distance:  # fmt: skip
    """All distances, from both checkers' log-probabilities [rows, classes] on real and on generated rows.

    Raises:
        ValueError: see ``conditional_kl``.
    """
    return Distance(
        conditional_entropy(quality_real),
        conditional_entropy(diversity_generated),
        conditional_kl(quality_real, diversity_real),
        conditional_kl(diversity_generated, quality_generated),
    )


def _expected(log_p: FloatArray, values: FloatArray) -> FloatArray:
    """sum_y p(y) values(y) of each row [rows]; a term with p(y) = 0 is 0."""
    p = np.exp(log_p)
    return np.asarray(np.where(p > 0, p * np.where(p > 0, values, 0.0), 0.0).sum(axis=1))


def _checked(log_probs: FloatArray) -> FloatArray:
    values = np.asarray(log_probs, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"expected log-probabilities [rows, classes] of at least one row, got shape {values.shape}")
    total = np.exp(values).sum(axis=1)
    if not np.allclose(total, 1.0, atol=1e-4):
        worst = total[np.abs(total - 1.0).argmax()]
        raise ValueError(f"expected normalized log-probabilities, got a row whose probabilities add up to {worst:g}")
    return values
