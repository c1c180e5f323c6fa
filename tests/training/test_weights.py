from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.training.weights import WeightRecord, effective_sample_size, summary
from tests.training.small import HERE


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 1, 1, 1], 1.0),
        ([0.3, 0.3], 1.0),
        ([1, 0, 0, 0], 0.25),
        ([1, 1, 0, 0], 0.5),
        ([1, 3], 16 / 20),
        ([2, 1, 1], 16 / 18),
        ([0, 0], 0.0),
        ([8e37, 8e37], 1.0),
        ([1e-300, 1e-300, 0.0, 0.0], 0.5),
    ],
)
def test_effective_sample_size(weights, expected):
    assert effective_sample_size(np.array(weights, np.float64)) == pytest.approx(expected)


@given(arrays.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 3e38)))
def test_effective_sample_size_is_between_one_row_and_all(weights):
    actual = effective_sample_size(weights)
    if weights.max() == 0:
        assert actual == 0.0
    else:
        assert 1 / len(weights) * (1 - 1e-9) <= actual <= 1 + 1e-9
        assert effective_sample_size(weights[::-1]) == pytest.approx(actual)
        if weights.max() > 1e-200:
            assert effective_sample_size(weights / 8) == pytest.approx(actual)


def test_summary_by_hand():
    actual = summary(np.array([0.5, 2.0, np.nan, 2.0, 1.5], np.float32), clip=2.0)
    assert actual == {
        "weight_mean": 1.5,
        "weight_min": 0.5,
        "weight_max": 2.0,
        "weight_clipped": 0.5,
        "weight_ess": pytest.approx(36 / (4 * 10.5)),
    }
    assert summary(np.array([3.0], np.float32), None)["weight_clipped"] == 0.0
    # the clip is compared as the weights are kept: float32(0.1) is above 0.1
    assert summary(np.float32([0.1, 0.05]), 0.1)["weight_clipped"] == 0.5


def test_record_keeps_the_last_weight_of_each_row_and_starts_anew():
    record = WeightRecord(5, HERE)
    record.add(torch.tensor([0, 2]), torch.tensor([0.5, 1.5], requires_grad=True), 0)
    record.add(torch.tensor([2, 3]), torch.tensor([2.5, 0.0]), 1)
    np.testing.assert_array_equal(record.take(), np.float32([0.5, np.nan, 2.5, 0.0, np.nan]))
    record.add(torch.tensor([4]), torch.tensor([7.0]), 2)
    np.testing.assert_array_equal(record.take(), np.float32([np.nan, np.nan, np.nan, np.nan, 7.0]))
    assert all(math.isnan(value) for value in record.take())


def test_record_of_two_workers_takes_the_newer_weight():
    """Two records that exchange what they would all-reduce."""
    second = WeightRecord(3, HERE)
    second.add(torch.tensor([2]), torch.tensor([3.0]), 0)
    second.add(torch.tensor([1]), torch.tensor([9.0]), 1)

    class Pair(type(HERE)):
        def __init__(self, other):
            super().__init__(torch.device("cpu"), 0, 2)
            object.__setattr__(self, "other", other)

        def maximum(self, tensor):
            return torch.maximum(tensor, self.other.step)

        def sum(self, tensor):
            newest = torch.tensor([0, 1, 0])
            theirs = torch.where(self.other.step == newest, self.other.last, torch.zeros(3))
            return tensor + theirs

    first = WeightRecord(3, Pair(second))
    first.add(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]), 0)
    np.testing.assert_array_equal(first.take(), np.float32([1.0, 9.0, 3.0]))
