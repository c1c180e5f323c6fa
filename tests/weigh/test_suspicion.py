"""Suspicious labels: the product of two views, calibrated."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from harness.weigh.suspicion import doubt, judge, product


def test_the_product_is_normalized():
    p = np.log([[0.5, 0.5], [0.9, 0.1]])
    q = np.log([[0.8, 0.2], [0.5, 0.5]])
    assert np.exp(product(p, q)) == pytest.approx(np.array([[0.8, 0.2], [0.9, 0.1]]))


def test_doubt_is_the_log_odds_of_another_label():
    assert doubt(np.log([[0.8, 0.2]]), np.array([0])) == pytest.approx([np.log(0.2 / 0.8)])


def views(rng, truth, classes, strength):
    """Log-probabilities of a model that is right more often than not."""
    logits = rng.standard_normal((len(truth), classes))
    logits[np.arange(len(truth)), truth] += strength
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("classes", "share"), [(2, 0.1), (3, 0.3), (5, 0.05)])
def test_the_share_of_wrong_labels_is_found_and_probabilities_mean_what_they_say(classes, share):
    rng = np.random.default_rng(classes)
    people, truth = rng.integers(classes, size=800), rng.integers(classes, size=4000)
    wrong = rng.random(4000) < share
    labels = np.where(wrong, (truth + rng.integers(1, classes, 4000)) % classes, truth)
    ours = product(views(rng, people, classes, 2.0), views(rng, people, classes, 2.0))
    theirs = product(views(rng, truth, classes, 2.0), views(rng, truth, classes, 2.0))
    result = judge(ours, people, theirs, labels)
    assert result.share == pytest.approx(share, abs=0.04)
    assert result.wrong.mean() == pytest.approx(share, abs=0.04)
    for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 1.0)):
        part = (result.wrong >= low) & (result.wrong < high)
        if part.sum() > 50:
            assert result.wrong[part].mean() == pytest.approx(wrong[part].mean(), abs=0.12)
    assert (result.suggested == truth).mean() > 0.8
    assert roc_auc_score(wrong, result.wrong) > 0.93


def test_models_that_know_nothing_suspect_nothing():
    rng = np.random.default_rng(0)
    people, truth = rng.integers(2, size=60), rng.integers(2, size=300)
    blind = [product(views(rng, rows, 2, 0.0), views(rng, rows, 2, 0.0)) for rows in (people, truth)]
    result = judge(blind[0], people, blind[1], truth)
    assert np.isnan(result.share)
    assert np.isnan(result.wrong).all()
    assert not result.suspicious.any()


def test_two_views_see_more_than_one():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=3000)
    wrong = rng.random(3000) < 0.3
    labels = np.where(wrong, (truth + 1) % 3, truth)
    p, q = views(rng, truth, 3, 1.0), views(rng, truth, 3, 1.0)
    both, one = (roc_auc_score(wrong, doubt(view, labels)) for view in (product(p, q), p))
    assert both > one + 0.03
