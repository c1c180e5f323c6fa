"""Every weight against a value worked by hand in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.errors import TrialError
from harness.methods import Method, MethodSettings, SourceInfo
from harness.methods.base import LOG_FLOOR, ratio
from tests.methods.steps import make, make_step

# softmax([ln 1, ln 2, ln 5]) = 1/8, 2/8, 5/8 and softmax([ln 6, ln 3, ln 1]) = 0.6, 0.3, 0.1
LOGITS = [[0.0, math.log(2), math.log(5)], [math.log(6), math.log(3), 0.0]]
LABELS = [2, 1]
P_MODEL = [0.625, 0.3]
QUALITY = [[0.1, 0.4, 0.5], [0.15, 0.75, 0.1]]
DIVERSITY = [[0.3, 0.3, 0.4], [0.0625, 0.9, 0.0375]]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("ce", {}, [1.0, 1.0]),
        ("focal", {"gamma": 0}, [1.0, 1.0]),
        ("focal", {"gamma": 1}, [0.375, 0.7]),
        ("focal", {}, [0.140625, 0.49]),
        ("focal", {"gamma": 2}, [0.140625, 0.49]),
        ("focal", {"gamma": 0.5}, [math.sqrt(0.375), math.sqrt(0.7)]),
        ("imp", {}, [0.5 / 0.4, 0.75 / 0.9]),
        ("imp_quality", {}, [0.5, 0.75]),
        ("dimp", {}, [0.5 / 0.625, 0.75 / 0.3]),
        ("filter", {}, [1.0, 1.0]),
        ("imp", {"clip": 1.1}, [1.1, 0.75 / 0.9]),
        ("dimp", {"clip": 2.0}, [0.8, 2.0]),
        ("ce", {"clip": 0.25}, [0.25, 0.25]),
    ],
)
def test_weights(name, settings, expected):
    weights = make(name, **settings).checked_weights(make_step(LOGITS, LABELS, QUALITY, DIVERSITY))
    np.testing.assert_allclose(weights.numpy(), expected, rtol=2e-6)


def test_normalise_is_left_to_the_loop():
    plain, normalized = (
        make("imp", normalize=flag).checked_weights(make_step(LOGITS, LABELS, QUALITY, DIVERSITY))
        for flag in (False, True)
    )
    assert torch.equal(plain, normalized)


def test_filter_keeps_what_the_quality_checker_agrees_with():
    quality = [[0.1, 0.4, 0.5], [0.1, 0.4, 0.5], [0.2, 0.7, 0.1], [0.5, 0.5, 0.0]]
    weights = make("filter").weights(make_step(np.zeros((4, 3)), [2, 1, 1, 1], quality))
    assert weights.tolist() == [1.0, 0.0, 1.0, 0.0]  # the first of equal classes counts


def test_prior_is_the_ratio_of_label_shares():
    method = make("prior")
    source = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    method.prepare(SourceInfo(source, 3, np.array([0, 1, 1, 2])))
    weights = method.weights(make_step(np.zeros((4, 3)), [0, 1, 2, 0]))
    np.testing.assert_allclose(weights.numpy(), [0.25 / 0.5, 0.5 / 0.3, 0.25 / 0.2, 0.25 / 0.5], rtol=1e-6)
    everything = method.weights(make_step(np.zeros((10, 3)), source))
    assert everything.mean().item() == pytest.approx(1.0, rel=1e-6)


def test_prior_of_a_class_that_only_one_side_has():
    method = make("prior")
    method.prepare(SourceInfo(np.array([0, 0, 1]), 3, np.array([0, 2])))
    weights = method.weights(make_step(np.zeros((3, 3)), [0, 1, 2]))
    assert weights[0].item() == pytest.approx(0.75)
    assert weights[1].item() == 0.0
    assert weights[2].isfinite()


def test_prior_without_real_labels():
    with pytest.raises(TrialError, match="prior needs the labels of real_small"):
        make("prior").prepare(SourceInfo(np.array([0, 1]), 2, None))


def test_focal_near_certainty():
    # 1 - p = e^-z / (1 + e^-z), as good as float32's log p allows, and never negative
    for z in (3.0, 5.0, 8.0, 20.0):
        weights = make("focal", gamma=1).weights(make_step([[z, 0.0]], [0]))
        assert weights.item() == pytest.approx(math.exp(-z) / (1 + math.exp(-z)), rel=1e-6, abs=1.2e-7)
        assert weights.item() >= 0.0


def test_ratio_of_impossible_and_certain():
    nothing, certain = torch.tensor([-math.inf]), torch.tensor([0.0])
    assert ratio(nothing, nothing).item() == 1.0
    assert ratio(nothing, certain).item() == pytest.approx(math.exp(LOG_FLOOR), rel=1e-5)
    assert ratio(certain, nothing).item() == pytest.approx(math.exp(-LOG_FLOOR), rel=1e-5)
    assert math.isfinite(ratio(certain, nothing).item())


class Broken(Method[MethodSettings]):
    """One weight for the whole batch."""

    name = "broken"

    def weights(self, step):
        return torch.ones(1)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(TrialError) as caught:
        Broken().checked_weights(make_step(LOGITS, LABELS))
    assert str(caught.value) == "method 'broken': expected weights of shape [2], got [1]"


def test_a_checker_that_was_not_declared_is_a_programming_error():
    with pytest.raises(AssertionError, match="does not declare that it needs a quality checker"):
        make("imp").weights(make_step(LOGITS, LABELS, None, DIVERSITY))
    with pytest.raises(AssertionError, match="does not declare that it needs a diversity checker"):
        make("imp").weights(make_step(LOGITS, LABELS, QUALITY, None))
