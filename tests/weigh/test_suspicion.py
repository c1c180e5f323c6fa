"""Suspicious labels: two views, fused by how much each is worth."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from harness.weigh.suspicion import Fusion, RowViews, _negative_log_posterior, doubt, fuse, judge, predicts


def test_doubt_is_the_log_odds_of_another_label():
    assert doubt(np.log([[0.8, 0.2]]), np.array([0])) == pytest.approx([np.log(0.2 / 0.8)])


def test_a_posterior_by_hand():
    """P'(t) Q'(t)^2 T[t, y], normalized: 0.6 · 0.25 · 0.2 and 0.4 · 0.25 · 0.9."""
    fusion = Fusion((1.0, 2.0), np.zeros(2), np.array([[0.8, 0.2], [0.1, 0.9]]))
    views = RowViews(np.log([[0.6, 0.4]]), np.log([[0.5, 0.5]]))
    assert fusion.posterior(views, np.array([1])) == pytest.approx(np.array([[0.03, 0.09]]) / 0.12)


def view(rng, truth, classes, strength, sharpness=1.0):
    """Log-probabilities of a model that is right more often than not."""
    logits = rng.standard_normal((len(truth), classes))
    logits[np.arange(len(truth)), truth] += strength
    logits *= strength * sharpness  # with a sharpness of 1, the log-probabilities are calibrated
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def made(rng, classes, share, strengths=(2.0, 2.0), sharpness=(1.0, 1.0), rows=(800, 4000), step=None):
    """Views and classes of human rows; views, labels of written ones, and which of these are wrong."""
    people, truth = (rng.integers(classes, size=size) for size in rows)
    wrong = rng.random(rows[1]) < share
    steps = rng.integers(1, classes, rows[1]) if step is None else step
    labels = np.where(wrong, (truth + steps) % classes, truth)
    ours, theirs = (
        RowViews(*(view(rng, t, classes, *pair) for pair in zip(strengths, sharpness, strict=True)))
        for t in (people, truth)
    )
    return (ours, people, theirs, labels), wrong, truth


def test_the_gradient_is_that_of_the_value():
    rng = np.random.default_rng(0)
    arguments, _, _ = made(rng, 3, 0.3, rows=(20, 50))
    x = rng.standard_normal(4 + 6 + 9)
    gradient = _negative_log_posterior(x, *arguments)[1]
    numeric = approx_fprime(x, lambda x: _negative_log_posterior(x, *arguments)[0], 1e-6)
    assert gradient == pytest.approx(numeric, abs=1e-3)


@pytest.mark.parametrize(("classes", "share"), [(2, 0.1), (3, 0.3), (5, 0.05)])
def test_the_share_of_wrong_labels_is_found_and_probabilities_mean_what_they_say(classes, share):
    arguments, wrong, truth = made(np.random.default_rng(classes), classes, share)
    result = judge(*arguments)
    assert result.share == pytest.approx(share, abs=0.04)
    assert result.wrong.mean() == pytest.approx(share, abs=0.04)
    for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 1.0)):
        part = (result.wrong >= low) & (result.wrong < high)
        if part.sum() > 50:
            assert result.wrong[part].mean() == pytest.approx(wrong[part].mean(), abs=0.12)
    assert (result.suggested == truth)[wrong].mean() > 0.8
    assert (result.suggested != arguments[3]).all()
    assert roc_auc_score(wrong, result.wrong) > 0.93


def test_models_that_know_nothing_suspect_nothing():
    arguments, _, _ = made(np.random.default_rng(0), 2, 0.0, strengths=(0.0, 0.0), rows=(60, 300))
    result = judge(*arguments)
    assert np.isnan(result.share)
    assert np.isnan(result.wrong).all()
    assert not result.suspicious.any()


@pytest.mark.parametrize(("classes", "rare"), [(2, 0.5), (2, 0.1), (3, 0.1)])
def test_noise_is_seldom_taken_for_knowledge(classes, rare):
    """Two standard errors: 2.3 % of useless models pass, also where a class is rare."""
    rng = np.random.default_rng(5)
    passed = []
    for _ in range(400):
        labels = np.where(rng.random(300) < rare, 0, rng.integers(1, classes, 300))
        passed.append(predicts(log_softmax(rng.standard_normal((300, classes)), axis=1), labels))
    assert np.mean(passed) < 0.05


def test_knowledge_that_is_weak_is_seen_in_many_rows():
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 3, 3000)
    logits = rng.standard_normal((3000, 3))
    logits[np.arange(3000), labels] += 0.2
    assert predicts(log_softmax(logits, axis=1), labels)


@pytest.mark.parametrize("informed", [False, True])
def test_frequencies_of_classes_are_no_knowledge(informed):
    """A model that always says how frequent the classes are is right more often than not, and knows nothing."""
    rng = np.random.default_rng(3)
    labels = (rng.random(2000) < 0.8).astype(np.int64)
    log_probs = np.log(np.tile([0.2, 0.8], (2000, 1))) + 0.1 * rng.standard_normal((2000, 2))
    log_probs[np.arange(2000), labels] += 0.05 * informed
    assert predicts(log_probs, labels) == informed


def test_two_views_see_more_than_one():
    arguments, wrong, _ = made(np.random.default_rng(0), 3, 0.3, strengths=(1.0, 1.0))
    both = roc_auc_score(wrong, judge(*arguments).wrong)
    assert both > max(roc_auc_score(wrong, doubt(one, arguments[3])) for one in vars(arguments[2]).values()) + 0.03


@pytest.mark.parametrize("weak", [0, 1])
def test_a_view_that_knows_little_and_is_sure_of_itself_counts_little(weak):
    """A plain product would follow it."""
    strengths, sharpness = np.array([2.0, 2.0]), np.array([1.0, 1.0])
    strengths[weak], sharpness[weak] = 0.5, 8.0
    arguments, wrong, _ = made(np.random.default_rng(weak), 3, 0.3, tuple(strengths), tuple(sharpness))
    exponents = fuse(*arguments).exponents
    assert exponents[weak] < 0.35 * exponents[1 - weak]
    fused = roc_auc_score(wrong, judge(*arguments).wrong)
    assert (
        fused > roc_auc_score(wrong, doubt(log_softmax(arguments[2].p + arguments[2].q, axis=1), arguments[3])) + 0.05
    )


def test_labels_that_are_taken_for_one_other_are_found():
    """With 30 % of every class taken for the next one, the label alone says which class it may have been."""
    arguments, wrong, _ = made(np.random.default_rng(1), 3, 0.3, strengths=(1.0, 1.0), step=1)
    confusion = fuse(*arguments).confusion
    assert confusion == pytest.approx(0.7 * np.eye(3) + 0.3 * np.roll(np.eye(3), 1, axis=1), abs=0.1)
    uniform = roc_auc_score(wrong, doubt(log_softmax(arguments[2].p + arguments[2].q, axis=1), arguments[3]))
    assert roc_auc_score(wrong, judge(*arguments).wrong) > uniform + 0.015


def test_the_order_of_the_classes_does_not_matter():
    arguments, _, _ = made(np.random.default_rng(2), 3, 0.2, rows=(100, 400))
    people, truth, written, labels = arguments
    order = np.array([2, 0, 1])
    inverse = np.argsort(order)
    renamed = [RowViews(rows.p[:, order], rows.q[:, order]) for rows in (people, written)]
    result = judge(renamed[0], inverse[truth], renamed[1], inverse[labels])
    assert result.wrong == pytest.approx(judge(*arguments).wrong, abs=1e-3)
