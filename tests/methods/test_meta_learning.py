"""What hu, ren and sungen make of the derivatives that they are told, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config.experiment import Training
from harness.methods import SourceInfo, methods
from tests.methods.steps import make, make_step


class FixedLookahead:
    """Answers with given derivatives, and notes what it was asked."""

    def __init__(self, slopes, total=24):
        self.slopes, self.total = torch.tensor(slopes), total
        self.calls = []

    @property
    def size(self):
        return len(self.slopes)

    def sensitivity(self, weights, rule, real_rows, form="linear"):
        self.calls.append((weights.tolist(), rule, real_rows, form))
        return self.slopes

    def sum(self, values):
        return values.sum()

    def scatter(self, values):
        out = torch.zeros(self.total)
        out[: self.size] = values
        return out


def step_of(lookahead, epoch=1):
    rows = lookahead.size
    return replace(make_step(np.zeros((rows, 3)), [0] * rows), gradients=lookahead, epoch=epoch)


@pytest.mark.parametrize("name", ["hu", "ren"])
def test_warm_up_epochs_are_plain_cross_entropy(name):
    lookahead, method = FixedLookahead([-1.0, 2.0]), make(name, warm_up=2)
    assert method.weights(step_of(lookahead, epoch=1)).tolist() == [1.0, 1.0]
    assert not lookahead.calls
    assert method.weights(step_of(lookahead, epoch=2)).tolist() != [1.0, 1.0]
    assert make(name, warm_up=0).weights(step_of(lookahead, epoch=0)).tolist() != [1.0, 1.0]


def test_ren_keeps_what_lowers_the_real_loss():
    lookahead = FixedLookahead([-2.0, 1.0, -6.0, 0.0])
    method = make("ren", lookahead="adam", real_rows=None, form="exact")
    assert method.weights(step_of(lookahead)).tolist() == [1.0, 0.0, 3.0, 0.0]  # 2 and 6 of 8, times four rows
    assert lookahead.calls == [([0.0, 0.0, 0.0, 0.0], "adam", None, "exact")]


def test_ren_gives_no_weight_at_all_where_no_row_helps():
    assert make("ren").weights(step_of(FixedLookahead([2.0, 0.0, 1.0]))).tolist() == [0.0, 0.0, 0.0]


def test_hu_by_hand():
    lookahead, method = FixedLookahead([-0.3, 0.1, 0.5]), make("hu", relative=False, decay=5, warm_up=0, real_rows=7)
    # 1/5 + 0.3, 1/5 - 0.1, floor; their mean is 0.60001/3
    expected = np.array([0.5, 0.1, 1e-5])
    np.testing.assert_allclose(method.weights(step_of(lookahead)), expected * 3 / expected.sum(), rtol=1e-5)
    # the second time the look ahead is at those weights, and they are a fifth of what they were
    expected = np.array([0.1 + 0.3, 0.02 - 0.1, 2e-6 - 0.5]).clip(min=1e-5)
    np.testing.assert_allclose(method.weights(step_of(lookahead)), expected * 3 / expected.sum(), rtol=1e-5)
    assert lookahead.calls[0] == ([1.0, 1.0, 1.0], "adam", 7, "linear")
    np.testing.assert_allclose(lookahead.calls[1][0], np.array([0.5, 0.1, 1e-5]) * 3 / 0.60001, rtol=1e-5)


def test_hu_relative_to_the_batch_does_not_depend_on_the_size_of_the_derivatives():
    small, large = ([float(v) for v in np.array([-3.0, 1.0, 2.0]) * size] for size in (1e-7, 1e3))
    options = {"relative": True, "decay": 2, "warm_up": 0, "step_size": 0.5}
    weights = [make("hu", **options).weights(step_of(FixedLookahead(values))) for values in (small, large)]
    torch.testing.assert_close(*weights)
    expected = np.array([0.5 + 0.75, 0.5 - 0.25, 0.5 - 0.5]).clip(min=1e-5)  # the mean size is 2
    np.testing.assert_allclose(weights[0], expected * 3 / expected.sum(), rtol=1e-4)
    still = make("hu", **options).weights(step_of(FixedLookahead([0.0, 0.0])))
    assert still.tolist() == [1.0, 1.0]


def test_hu_softmax_is_of_mean_one_and_in_the_order_of_the_linear_weights():
    options = {"relative": False, "warm_up": 0, "decay": 1}
    lookahead = FixedLookahead([-1.0, 0.0, 0.5])
    weights = make("hu", normalization="softmax", **options).weights(step_of(lookahead))
    expected = np.exp([2.0, 1.0, 0.5])
    np.testing.assert_allclose(weights, expected * 3 / expected.sum(), rtol=1e-5)


def test_hu_rows_outside_the_batch_keep_their_weights():
    method = make("hu", warm_up=0)
    method.weights(step_of(FixedLookahead([-1.0, 1.0])))
    assert method.learned[2:].tolist() == [1.0] * 22
    assert method.learned[0] > method.learned[1]


def test_hu_learns_nothing_from_a_batch_of_one_row():
    lookahead, method = FixedLookahead([-3.0]), make("hu", warm_up=0)
    assert method.weights(step_of(lookahead)).tolist() == [1.0]
    assert not lookahead.calls


class Inner:
    """Inner trainings that nobody makes: notes what is asked for, answers with given inner products."""

    def __init__(self, products):
        self.products, self.trained, self.looked = np.array(products, dtype=np.float32), [], []

    @property
    def size(self):
        return len(self.products)

    def shuffled(self, number):
        return np.random.Generator(np.random.PCG64(number)).permutation(self.size)

    def train(self, weights, rows, epochs):
        self.trained.append((weights.tolist(), rows.tolist(), epochs))

    def inner_products(self, rows, outer, loss):
        self.looked.append((rows.tolist(), None if outer is None else outer.tolist(), loss))
        return torch.from_numpy(self.products[rows])


def sungen(rows, labels=None, **options):
    kind = methods.get("sungen")
    method = kind(kind.settings_type()(**options))
    labels = np.zeros(rows, np.int64) if labels is None else np.array(labels)
    method.prepare(SourceInfo(labels, 3, np.zeros(2, np.int64)))
    return method


def test_sungen_takes_steps_of_adam_towards_rows_whose_gradients_agree_with_the_outer_one():
    inner, method = Inner([3.0, -0.1, 2.0, -5.0]), sungen(4, rounds=3, step_size=0.1, outer="real", inner_epochs=2)
    method.learn_weights(inner)
    # the first steps of Adam are of the full size, whatever the gradient's
    expected = [[0.5] * 4, [0.6, 0.4, 0.6, 0.4], [0.7, 0.3, 0.7, 0.3]]
    np.testing.assert_allclose([weights for weights, *_ in inner.trained], expected, atol=1e-5)
    assert [(rows, epochs) for _, rows, epochs in inner.trained] == [([0, 1, 2, 3], 2)] * 3
    assert [(sorted(rows), outer, loss) for rows, outer, loss in inner.looked] == [([0, 1, 2, 3], None, "bounded")] * 3
    np.testing.assert_allclose(method.learned, [0.8, 0.2, 0.8, 0.2], atol=1e-5)
    weights = method.weights(make_step(np.zeros((4, 3)), [0] * 4))
    np.testing.assert_allclose(weights, [1.6, 0.4, 1.6, 0.4], atol=1e-4)
    assert not weights.requires_grad


def test_sungen_weights_stay_within_0_and_1():
    method = sungen(2, rounds=9, outer="real")
    method.learn_weights(Inner([1.0, -1.0]))
    assert method.learned.tolist() == [1.0, 0.0]


def test_sungen_looks_at_the_rows_of_each_class_with_the_greatest_weights():
    products = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    inner, method = Inner(products), sungen(6, [0, 0, 0, 0, 2, 2], rounds=2, outer_share=0.5, folds=1)
    method.learn_weights(inner)
    first, second = (outer for _, outer, _ in inner.looked)
    assert len(first) == 3, "at first all are equal, and chance decides"
    assert sorted(second) == [0, 3, 4]


@pytest.mark.parametrize(("balanced", "expected"), [(True, [0.6, 0.4, 0.4, 0.6]), (False, [0.6, 0.6, 0.4, 0.4])])
def test_sungen_rows_compete_within_their_class(balanced, expected):
    method = sungen(4, [0, 0, 1, 1], rounds=1, step_size=0.1, balanced=balanced, outer="real")
    method.learn_weights(Inner([9.0, 7.0, -8.0, -6.0]))
    np.testing.assert_allclose(method.learned, expected, atol=1e-5)


def test_sungen_judges_rows_by_others():
    inner, method = Inner(np.ones(9)), sungen(9, rounds=2, folds=3, outer_share=1.0)
    method.learn_weights(inner)
    assert len(inner.trained) == 2
    for number in (0, 3):
        looked = inner.looked[number : number + 3]
        assert sorted(row for rows, *_ in looked for row in rows) == list(range(9)), "each row once a round"
        for rows, outer, _ in looked:
            assert sorted(rows + outer) == list(range(9))


def test_sungen_trains_on_a_share_and_changes_only_its_weights():
    inner, method = Inner(10.0 ** np.arange(10)), sungen(10, rounds=1, inner_share=0.3)
    method.learn_weights(inner)
    ((_, rows, _),) = inner.trained
    assert len(rows) == 3
    assert np.flatnonzero(method.learned.numpy() != 0.5).tolist() == rows


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("ce", {}, 3.0),
        ("ren", {"warm_up": 5}, 3.0),
        ("ren", {"warm_up": 0}, 7.5),
        ("ren", {"warm_up": 2, "form": "exact"}, (3.0 + 7.5 + 4 * 8) / 2),
    ],
)
def test_what_a_row_costs(name, options, passes):
    assert make(name, **options).forward_cost(Training(batch_size=8), 4.0) == passes


def test_more_rounds_cost_more():
    costs = [make("sungen", rounds=rounds).forward_cost(Training(), 5.0) for rounds in (1, 10)]
    assert 3 < costs[0] < costs[1]
