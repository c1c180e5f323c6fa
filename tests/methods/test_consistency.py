"""Theorem B.1 of arXiv 2410.21526: with Q(x) = P(x) and true ratios, IMP's loss on rows of Q estimates E_P[CE]."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.methods import MicroBatch
from tests.methods.steps import make

# Four texts, three classes: P(x) = Q(x), and a generator whose labels are wrong in its own way.
P_X = np.array([0.4, 0.3, 0.2, 0.1])
P_Y = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.05, 0.15, 0.8]])
Q_Y = np.array([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
CLASSIFIER = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.2, 0.3], [0.1, 0.3, 0.6]])
LOSSES = -np.log(CLASSIFIER)

E_P = float((P_X[:, None] * P_Y * LOSSES).sum())
E_Q = float((P_X[:, None] * Q_Y * LOSSES).sum())
SIZES = np.array([100, 316, 1_000, 3_162, 10_000, 31_623, 100_000])


def imp_table() -> np.ndarray:
    """The weight of every (x, y) cell by the real method, in float32: [4, 3]."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(4), np.arange(3), indexing="ij"))
    step = MicroBatch(
        ids=tuple(map(str, range(12))),
        rows=torch.arange(12),
        labels=torch.from_numpy(y),
        logits=torch.from_numpy(np.log(CLASSIFIER[x])).float(),
        quality=torch.from_numpy(np.log(P_Y[x])).float(),
        diversity=torch.from_numpy(np.log(Q_Y[x])).float(),
        epoch=0,
    )
    return make("imp").weights(step).numpy().astype(np.float64).reshape(4, 3)


def estimates(cells: np.ndarray, rows: int, replications: int, rng: np.random.Generator) -> np.ndarray:
    """Means of ``cells[x, y]`` over ``rows`` draws of (x, y) ~ Q, by their counts: [replications]."""
    counts = rng.multinomial(rows, (P_X[:, None] * Q_Y).ravel(), size=replications)
    return counts @ cells.ravel() / rows


def test_weighted_loss_is_unbiased():
    assert (P_X[:, None] * Q_Y * imp_table() * LOSSES).sum() == pytest.approx(E_P, rel=1e-6)


def test_error_falls_with_the_square_root_of_the_rows():
    rng = np.random.Generator(np.random.PCG64(2410))
    weighted = imp_table() * LOSSES
    rms = [float(np.sqrt(np.mean((estimates(weighted, rows, 2_000, rng) - E_P) ** 2))) for rows in SIZES]
    slope = np.polyfit(np.log(SIZES), np.log(rms), 1)[0]
    assert -0.55 < slope < -0.45
    second_moment = float((P_X[:, None] * Q_Y * weighted**2).sum())
    exact = np.sqrt((second_moment - E_P**2) / SIZES)
    np.testing.assert_allclose(rms, exact, rtol=0.1)


def test_plain_cross_entropy_converges_to_the_wrong_value():
    rng = np.random.Generator(np.random.PCG64(2410))
    assert abs(E_Q - E_P) > 0.2
    means = estimates(LOSSES, int(SIZES[-1]), 200, rng)
    np.testing.assert_allclose(means, E_Q, atol=0.02)
    assert np.abs(means - E_P).min() > 0.2


def test_one_large_sample_row_by_row():
    rng = np.random.Generator(np.random.PCG64(7))
    x = rng.choice(4, 100_000, p=P_X)
    y = (rng.random(len(x))[:, None] > Q_Y[x].cumsum(axis=1)).sum(axis=1)
    step = MicroBatch(
        ids=("",) * len(x), rows=torch.arange(len(x)), labels=torch.from_numpy(y),
        logits=torch.from_numpy(np.log(CLASSIFIER[x])).float(), quality=torch.from_numpy(np.log(P_Y[x])).float(),
        diversity=torch.from_numpy(np.log(Q_Y[x])).float(), epoch=0,
    )  # fmt: skip
    weights = make("imp").weights(step)
    losses = torch.nn.functional.cross_entropy(step.logits, step.labels, reduction="none")
    assert (weights * losses).double().mean().item() == pytest.approx(E_P, abs=0.02)
    assert losses.double().mean().item() == pytest.approx(E_Q, abs=0.02)
    assert weights.double().mean().item() == pytest.approx(1.0, abs=0.01)
