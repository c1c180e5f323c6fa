"""Which labels are probably wrong: two independent views multiplied, calibrated by labels flipped on purpose.

One view is P', of models that human rows trained; the other is Q', of models that the other written rows trained. Their
product asks both; a ratio, as in a training weight, would ask where they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: Probabilities of a wrong label from which a row is suspicious.
SUSPICIOUS = 0.5
#: Pseudo-rows with wrong and with right labels: what is assumed where the rows say nothing.
PRIOR = (1.0, 9.0)
_STEPS = 200
_FLOOR = 1e-6


@dataclass(frozen=True)
class Suspicion:
    """What is known of the labels of n written rows.

    Attributes:
        wrong: probability that the label is wrong [n]; NaN where the models cannot tell.
        suggested: the class with the highest product of both views, int64 [n].
        share: estimated share of wrong labels, if written rows are as easy as human ones; NaN where they cannot tell.
    """

    wrong: FloatArray
    suggested: IntArray
    share: float

    @property
    def suspicious(self) -> npt.NDArray[np.bool_]:
        """Rows whose label is more probably wrong than right [n]."""
        return self.wrong > SUSPICIOUS


def product(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """Log of the normalized product of two distributions over classes [n, C]."""
    total = log_p + log_q
    peak = total.max(axis=1, keepdims=True)
    return np.asarray(total - peak - np.log(np.exp(total - peak).sum(axis=1, keepdims=True)))


def doubt(log_product: FloatArray, labels: IntArray) -> FloatArray:
    """The log odds that a label is wrong, by the product of both views [n]."""
    p = np.exp(log_product[np.arange(len(labels)), labels]).clip(_FLOOR, 1 - _FLOOR)
    return np.asarray(np.log1p(-p) - np.log(p))


def judge(people: FloatArray, truth: IntArray, written: FloatArray, labels: IntArray) -> Suspicion:
    """The probability that each written label is wrong.

    Human rows calibrate the doubt: with their own labels it is that of right labels, with each other label on purpose
    that of wrong ones. A logistic regression tells the two apart, for as many wrong labels as right ones; the share of
    wrong labels among the written rows is then the one with which the mean of the probabilities is the share itself
    (Saerens, Latinne & Decaestecker 2002, by expectation maximization). All probabilities are NaN if the doubt does not
    tell flipped labels of human rows from their own: if its AUROC exceeds 0.5 by less than 1 / sqrt(m), about two
    standard errors at chance.

    Args:
        people: log of the product of both views for m human rows, by models that have seen neither them nor their
            written fold [m, C].
        truth: their classes [m].
        written: the same for n written rows [n, C].
        labels: their classes [n].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    classes = people.shape[1]
    right = doubt(people, truth)
    others = [(truth + shift) % classes for shift in range(1, classes)]
    flipped = np.concatenate([doubt(people, other) for other in others])
    features = np.concatenate([right, flipped])[:, None]
    is_wrong = np.arange(len(features)) >= len(right)
    weights = np.where(is_wrong, 1.0 / (classes - 1), 1.0)
    if roc_auc_score(is_wrong, features[:, 0], sample_weight=weights) < 0.5 + 1.0 / np.sqrt(len(truth)):
        return Suspicion(np.full(len(labels), np.nan), written.argmax(axis=1).astype(np.int64), float("nan"))
    model = LogisticRegression(C=1e3).fit(features, is_wrong, sample_weight=weights)
    log_ratio = model.decision_function(doubt(written, labels)[:, None])
    share = _share(log_ratio)
    return Suspicion(_sigmoid(log_ratio + _log_odds(share)), written.argmax(axis=1).astype(np.int64), share)


def _share(log_ratio: FloatArray) -> float:
    """The share of wrong labels, from the log of the ratio of the densities of wrong and right ones."""
    share = PRIOR[0] / sum(PRIOR)
    for _ in range(_STEPS):
        total = float(_sigmoid(log_ratio + _log_odds(share)).sum())
        share = (total + PRIOR[0]) / (len(log_ratio) + sum(PRIOR))
    return share


def _sigmoid(x: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(x))


def _log_odds(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))
