"""Every weight against a value worked by hand in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import TrialError, UserError
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
    ("name", "options", "expected"),
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
        ("gce", {}, [0.625**0.7, 0.3**0.7]),
        ("gce", {"q": 1}, [0.625, 0.3]),
        ("gce", {"q": 0}, [1.0, 1.0]),
        ("power", {}, [1.0, 1.0]),
        ("power", {"a": 2, "b": -0.5}, [0.25 / math.sqrt(0.625), 0.5625 / math.sqrt(0.3)]),
        ("power", {"a": -1, "b": 3}, [0.625**3 / 0.5, 0.3**3 / 0.75]),
        ("rho", {}, [0.0, 2.0]),  # P' / p is 0.8 and 2.5
        ("rho", {"share": 0.01}, [0.0, 2.0]),
        ("rho", {"share": 1}, [1.0, 1.0]),
        ("mix", {}, [1.0, 1.0]),  # as many real rows as others
        ("mix", {"alpha": 0.2}, [1.6, 0.4]),  # the second row is real
        ("mix", {"alpha": 1}, [0.0, 2.0]),
        ("relabel", {}, [1.0, 1.0]),
        ("imp", {"clip": 1.1}, [1.1, 0.75 / 0.9]),
        ("dimp", {"clip": 2.0}, [0.8, 2.0]),
        ("ce", {"clip": 0.25}, [0.25, 0.25]),
    ],
)
def test_weights(name, options, expected):
    weights = make(name, **options).checked_weights(make_step(LOGITS, LABELS, QUALITY, DIVERSITY))
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


def test_mix_shares_the_loss_between_real_rows_and_others():
    method = make("mix", alpha=0.3)
    is_real = np.array([True, False, False, True, False, False, False, False])
    method.prepare(SourceInfo(np.zeros(8, np.int64), 2, None, is_real))
    batch = replace(make_step(np.zeros((8, 2)), [0] * 8), real=torch.from_numpy(is_real))
    weights = method.weights(batch).double().numpy()
    np.testing.assert_allclose(weights, np.where(is_real, 0.3 * 8 / 2, 0.7 * 8 / 6), rtol=1e-7)
    assert weights[is_real].sum() / 8 == pytest.approx(0.3, rel=1e-6)
    assert weights.mean() == pytest.approx(1.0, rel=1e-6)


@settings(deadline=None)
@given(real=st.integers(1, 10**5), others=st.integers(1, 10**5))
def test_mix_in_proportion_to_the_rows_is_cross_entropy(real, others):
    is_real = np.arange(real + others) < real
    method = make("mix", alpha=real / (real + others))
    method.prepare(SourceInfo(is_real.astype(np.int64), 2, None, is_real))
    assert method.weights(make_step(np.zeros((2, 2)), [0, 0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("is_real", "found"),
    [([True, True], "2 real rows among 2"), ([False, False], "0 real rows among 2"), (None, "0 real rows among 2")],
)
def test_mix_without_real_rows_or_without_others(is_real, found):
    info = SourceInfo(np.array([0, 1]), 2, None, None if is_real is None else np.array(is_real))
    with pytest.raises(TrialError) as caught:
        make("mix").prepare(info)
    assert str(caught.value) == f"mix needs real rows and others, found {found}"


def test_rho_keeps_the_rows_with_the_greatest_reducible_loss():
    # P' / p of label 0: 2, 0.5, 1, 4, 1
    quality = [[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.4, 0.6]]
    model = [[0.4, 0.6], [0.4, 0.6], [0.4, 0.6], [0.25, 0.75], [0.4, 0.6]]
    batch = make_step(np.log(model), [0] * 5, quality)
    np.testing.assert_allclose(make("rho").scores(batch).numpy(), np.log([2, 0.5, 1, 4, 1]), atol=1e-6)
    for share, expected in (
        (0.1, [0, 0, 0, 5, 0]),
        (0.4, [2.5, 0, 0, 2.5, 0]),
        (0.6, [5 / 3, 0, 5 / 3, 5 / 3, 0]),  # the first of two equal rows
        (0.8, [1.25, 0, 1.25, 1.25, 1.25]),
    ):
        np.testing.assert_allclose(make("rho", share=share).weights(batch).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("q", [1.0, 0.7, 0.3, 1e-4])
def test_gce_has_the_gradient_of_its_loss(q):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(20, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(4, (20,), generator=generator)
    batch = replace(make_step(np.zeros((20, 4)), labels), logits=logits)
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (weighted,) = torch.autograd.grad((make("gce", q=q).weights(batch) * cross_entropy).sum(), logits)
    p = logits.softmax(-1)[torch.arange(20), labels]
    (expected,) = torch.autograd.grad(((1 - p**q) / q).sum(), logits)
    torch.testing.assert_close(weighted, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "ce"), ({"a": 1}, "imp_quality"), ({"a": 1, "b": -1}, "dimp"), ({"b": 0.7}, "gce")],
)
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_power_contains_other_methods(options, name, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    quality = rng.dirichlet(np.full(3, 0.1), 8)
    batch = make_step(rng.normal(0, 20, (8, 3)), rng.integers(0, 3, 8), quality)
    assert torch.equal(make("power", **options).weights(batch), make(name).weights(batch))


def test_power_stays_finite():
    impossible = make_step([[0.0, 200.0]], [0], [[0.0, 1.0]])
    for a, b in ((-10, -10), (10, 10), (-10, 10)):
        assert make("power", a=a, b=b).weights(impossible).isfinite().all()


def step_of_epoch(probabilities, rows, epoch):
    """Rows of class 0, with these probabilities by the model and P' = 0.5."""
    p = np.array(probabilities)
    batch = make_step(np.log(np.stack([p, 1 - p], 1)), [0] * len(p), np.full((len(p), 2), 0.5))
    return replace(batch, rows=torch.tensor(rows), epoch=epoch)


@pytest.mark.parametrize(
    ("lag", "expected"),
    [
        ("none", [[0.4, 0.2, 0.1], [0.8, 0.6, 0.9], [0.3, 0.7, 0.95]]),
        ("epoch", [[0.4, 0.2, 0.1], [0.4, 0.2, 0.1], [0.8, 0.6, 0.9]]),
        ("first", [[0.4, 0.2, 0.1], [0.4, 0.2, 0.1], [0.4, 0.2, 0.1]]),
    ],
)
def test_dimp_divides_by_the_probability_of_an_earlier_epoch(lag, expected):
    method, single = make("dimp", lag=lag), lambda tensor: tensor
    method.prepare(SourceInfo(np.zeros(3, np.int64), 2, None))
    model = [{0: 0.4, 1: 0.2, 2: 0.1}, {0: 0.8, 1: 0.6, 2: 0.9}, {0: 0.3, 1: 0.7, 2: 0.95}]
    orders = [([0, 1], [2]), ([2, 0], [1]), ([1], [0, 2])]
    for epoch, batches in enumerate(orders):
        if epoch:
            method.end_epoch(single)
        for rows in batches:
            weights = method.weights(step_of_epoch([model[epoch][row] for row in rows], rows, epoch))
            np.testing.assert_allclose(weights.numpy(), [0.5 / expected[epoch][row] for row in rows], rtol=1e-5)
            assert not weights.requires_grad


def test_dimp_with_a_lag_sums_the_rows_of_all_processes():
    """Two processes, each with one of two rows; in the second epoch they change places."""
    first, second = (make("dimp", lag="epoch") for _ in range(2))
    for method in (first, second):
        method.prepare(SourceInfo(np.zeros(2, np.int64), 2, None))
    first.weights(step_of_epoch([0.4], [0], 0))
    second.weights(step_of_epoch([0.2], [1], 0))
    total = first._recorded + second._recorded
    for method in (first, second):
        method.end_epoch(lambda tensor: total)
    assert first.weights(step_of_epoch([0.9], [1], 1)).item() == pytest.approx(0.5 / 0.2)
    assert second.weights(step_of_epoch([0.9], [0], 1)).item() == pytest.approx(0.5 / 0.4)


# thresholds: mean of 0.9, 0.6, 0.3 = 0.6 for class 0; of 0.5, 0.1 = 0.3 for class 1; class 2 has no row
OUT_OF_FOLD = [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.45, 0.5, 0.05], [0.7, 0.1, 0.2]]


def test_confident_leaves_out_what_is_confidently_another_class():
    method = make("confident")
    with np.errstate(divide="ignore"):
        scores = np.log(np.array(OUT_OF_FOLD, np.float32))
    method.prepare(SourceInfo(np.array([0, 0, 0, 1, 1]), 3, None, diversity=scores))
    # row 2: class 1 is above 0.3 and the most probable one; row 4: class 0 is above 0.6
    step = make_step(np.zeros((5, 3)), [0, 0, 0, 1, 1])
    assert method.weights(step).tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert method.weights(replace(step, rows=torch.tensor([4, 3, 2, 1, 0]))).tolist() == [0.0, 1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_confident_finds_the_rows_that_cleanlab_finds(classes):
    from cleanlab.filter import find_label_issues

    found = 0
    for seed in range(20):
        rng = np.random.Generator(np.random.PCG64(seed))
        clean = rng.integers(0, classes, 300)
        labels = np.where(rng.random(300) < 0.3, rng.integers(0, classes, 300), clean)
        labels[:classes] = np.arange(classes)
        logits = rng.normal(0, 1.5, (300, classes)) + 2.0 * np.eye(classes)[clean]
        logits[:, 0] += rng.normal(0, 2)  # other thresholds for other classes
        scores = torch.from_numpy(logits).log_softmax(-1).numpy().astype(np.float32)
        method = make("confident", classes)
        method.prepare(SourceInfo(labels, classes, None, diversity=scores))
        weights = method.weights(make_step(np.zeros((300, classes)), labels))
        p = np.exp(scores.astype(np.float64))
        issues = find_label_issues(labels, p / p.sum(1, keepdims=True), filter_by="confident_learning", n_jobs=1)
        assert np.array_equal(weights.numpy() == 0.0, issues)
        found += issues.sum()
    assert 20 * 300 * 0.1 < found < 20 * 300 * 0.6


def test_confident_keeps_everything_where_the_scores_know_nothing():
    method = make("confident")
    method.prepare(SourceInfo(np.arange(9) % 3, 3, None, diversity=np.full((9, 3), -np.log(3), np.float32)))
    assert method.weights(make_step(np.zeros((9, 3)), np.arange(9) % 3)).tolist() == [1.0] * 9


def test_ratio_is_the_flattened_density_ratio(monkeypatch):
    """log r = (ln 4, -ln 9): r = 4 and 1/9."""
    seen = []
    log_r = np.array([math.log(4), -math.log(9)])
    monkeypatch.setattr("harness.methods.ratio.log_density_ratio", lambda *args: seen.append(args) or (log_r, 0.8))
    embeddings = (np.zeros((2, 3), np.float32), np.ones((6, 3), np.float32))
    info = SourceInfo(np.array([2, 1]), 3, np.array([0, 1, 2] * 2), embeddings=embeddings, seed=7)
    step = make_step(LOGITS, LABELS, QUALITY, DIVERSITY)
    for options, expected in (
        ({}, [4, 1 / 9]),
        ({"tau": 0.5, "c": 3.0}, [2, 1 / 3]),
        ({"tau": 2}, [16, 1 / 81]),
        ({"times_imp": True}, [4 * 0.5 / 0.4, 0.75 / 0.9 / 9]),
        ({"times_imp": True, "tau": 0.5}, [2 * 0.5 / 0.4, 0.75 / 0.9 / 3]),
        ({"clip": 2.0}, [2, 1 / 9]),
    ):
        method = make("ratio", **options)
        method.prepare(info)
        np.testing.assert_allclose(method.checked_weights(step).numpy(), expected, rtol=2e-6)
        assert method.diagnostics() == {"auc": 0.8}
        assert seen[-1][:2] == embeddings
        assert seen[-1][2:] == (options.get("c", 1.0), 7)


def test_ratio_stays_finite(monkeypatch):
    monkeypatch.setattr("harness.methods.ratio.log_density_ratio", lambda *_: (np.array([500.0, -500.0]), 1.0))
    weights = make("ratio", times_imp=True).weights(make_step(LOGITS, LABELS, QUALITY, DIVERSITY))
    assert weights.isfinite().all()


def test_ratio_does_not_compare_real_rows_with_themselves():
    for splits in (("generated",), ("real_large",), ("real_small", "generated")):
        make("ratio").check_splits(splits)
    with pytest.raises(UserError) as caught:
        make("ratio").check_splits(("real_small",))
    assert str(caught.value) == (
        "method 'ratio' compares the texts of a source with those of real_small: expected a source of other rows, "
        "found real_small"
    )


def test_relabel_learns_the_soft_labels_of_the_checker():
    batch = make_step(LOGITS, LABELS, QUALITY)
    np.testing.assert_allclose(make("relabel").targets(batch), QUALITY, rtol=1e-6)
    assert make("dimp").targets(batch) is None


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


class WrongTargets(Method[MethodSettings]):
    """Targets of one class too few."""

    name = "wrong_targets"

    def targets(self, batch):
        return batch.logits.detach()[:, 1:]

    def weights(self, batch):
        return torch.ones(len(batch.labels))


def test_targets_of_another_shape_are_refused():
    with pytest.raises(TrialError) as caught:
        WrongTargets().checked_targets(make_step(LOGITS, LABELS))
    assert str(caught.value) == "method 'wrong_targets': expected targets of shape [2, 3], got [2, 2]"


def test_a_checker_that_was_not_declared_is_a_programming_error():
    with pytest.raises(AssertionError, match="does not declare that it needs a quality checker"):
        make("imp").weights(make_step(LOGITS, LABELS, None, DIVERSITY))
    with pytest.raises(AssertionError, match="does not declare that it needs a diversity checker"):
        make("imp").weights(make_step(LOGITS, LABELS, QUALITY, None))
