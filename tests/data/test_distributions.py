from __future__ import annotations

import numpy as np
import pytest

from harness.data.distributions import conditional_entropy, conditional_kl, distance

HALF, SURE = np.log([0.5, 0.5]), np.array([0.0, -np.inf])
QUARTER = np.log([0.25, 0.75])


def test_entropy_worked_by_hand():
    assert conditional_entropy(np.array([HALF, SURE])) == pytest.approx(np.log(2) / 2)
    assert conditional_entropy(np.log(np.full((3, 4), 0.25))) == pytest.approx(np.log(4))


def test_kl_worked_by_hand():
    # 1/2 log(2) + 1/2 log(2/3), and 1/4 log(1/2) + 3/4 log(3/2)
    assert conditional_kl(HALF[None], QUARTER[None]) == pytest.approx(0.5 * np.log(4 / 3))
    assert conditional_kl(QUARTER[None], HALF[None]) == pytest.approx(0.75 * np.log(1.5) - 0.25 * np.log(2))
    assert conditional_kl(np.array([HALF, SURE]), np.array([HALF, HALF])) == pytest.approx(np.log(2) / 2)
    assert conditional_kl(HALF[None], SURE[None]) == np.inf
    assert conditional_kl(SURE[None], SURE[None]) == 0.0


def test_each_measure_uses_its_own_rows():
    measures = distance(HALF[None], QUARTER[None], HALF[None], SURE[None])
    assert (measures.entropy_real, measures.entropy_generated) == (pytest.approx(np.log(2)), 0.0)
    assert measures.kl_real_generated == pytest.approx(0.5 * np.log(4 / 3))
    assert measures.kl_generated_real == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [([[-1.0, -1.0]], "add up to 0.735759"), ([-1.0], r"got shape \(1,\)"), (np.zeros((0, 2)), r"shape \(0, 2\)")],
)
def test_errors(values, message):
    with pytest.raises(ValueError, match=message):
        conditional_entropy(np.array(values))
    with pytest.raises(ValueError, match="expected two arrays of one shape"):
        conditional_kl(np.array([HALF, HALF]), HALF[None])
