"""Which labels are probably wrong: two independent views, fused by how much each is worth, and the labels' own errors.

One view is P', of models that human rows trained; the other is Q', of models that the other written rows trained. A
ratio, as in a training weight, would ask where they differ; a product asks both. Which of them knows more is not the
same for everyone (few human rows, or many wrong labels), and neither is which labels are taken for which. Both are
estimated, together, from the labels that the human and the written rows have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: Probabilities of a wrong label from which a row is suspicious.
SUSPICIOUS = 0.5
#: Pseudo-rows with wrong and with right labels: what is assumed of the share of errors where the rows say nothing.
PRIOR = (1.0, 9.0)
#: How many rows of every class the assumption counts that all errors have the same probability.
EVENNESS = 10.0
#: Standard deviations of the normal priors of the logarithm of a view's exponent, and of the shift of a class.
EXPONENT_SD, SHIFT_SD = 1.0, 0.3
_FLOOR = 1e-6


@dataclass(frozen=True)
class RowViews:
    """The two views of n rows: log-probabilities, by models that have seen neither them nor their near-duplicates.

    Attributes:
        p: by models that human rows trained [n, C].
        q: by models that written rows trained [n, C].
    """

    p: FloatArray
    q: FloatArray


@dataclass(frozen=True)
class Suspicion:
    """What is known of the labels of n written rows.

    Attributes:
        wrong: probability that the label is wrong [n]; NaN where the models cannot tell.
        suggested: the likeliest other class, int64 [n].
        share: estimated share of wrong labels; NaN where the models cannot tell.
    """

    wrong: FloatArray
    suggested: IntArray
    share: float

    @property
    def suspicious(self) -> npt.NDArray[np.bool_]:
        """Rows whose label is more probably wrong than right [n]."""
        return self.wrong > SUSPICIOUS


@dataclass(frozen=True)
class Fusion:
    """How labels come about: the true class of a row is t with a probability proportional to
    P'(t)^a Q'(t)^b exp(c_t), and a written row of class t has the label y with the probability T[t, y].

    Attributes:
        exponents: a and b.
        shifts: c [C].
        confusion: T [C, C]; rows sum to 1.
    """

    exponents: tuple[float, float]
    shifts: FloatArray
    confusion: FloatArray

    def prior(self, written: RowViews) -> FloatArray:
        """The log-probability of every true class of rows whose labels are not looked at [n, C]."""
        a, b = self.exponents
        return _log_softmax(a * written.p + b * written.q + self.shifts)

    def posterior(self, written: RowViews, labels: IntArray) -> FloatArray:
        """The probability of every true class of written rows, given their labels [n, C]."""
        return np.exp(_log_softmax(self.prior(written) + np.log(self.confusion)[:, labels].T))


def doubt(log_probs: FloatArray, labels: IntArray) -> FloatArray:
    """The log odds that a label is wrong, by one distribution over classes for each row [n]."""
    p = np.exp(log_probs[np.arange(len(labels)), labels]).clip(_FLOOR, 1 - _FLOOR)
    return np.asarray(np.log1p(-p) - np.log(p))


def judge(people: RowViews, truth: IntArray, written: RowViews, labels: IntArray) -> Suspicion:
    """The probability that each written label is wrong.

    All probabilities are NaN if both views together do not predict the written labels: see ``predicts``.

    Args:
        people: of m human rows.
        truth: their classes [m].
        written: of n written rows.
        labels: their classes [n].
    """
    fusion = fuse(people, truth, written, labels)
    posterior = fusion.posterior(written, labels)
    wrong = 1.0 - posterior[np.arange(len(labels)), labels]
    others = posterior.copy()
    others[np.arange(len(labels)), labels] = -1.0
    if not predicts(fusion.prior(written), labels):
        wrong = np.full(len(labels), np.nan)
    return Suspicion(wrong, others.argmax(axis=1).astype(np.int64), float(wrong.mean()))


def predicts(log_probs: FloatArray, labels: IntArray) -> bool:
    """Whether log-probabilities [n, C] say more of labels [n] than how frequent each class is.

    Then the doubt about each other label is larger than about the label itself. All classes count the same, so that
    the AUROC of these doubts is 0.5 at chance. It has to exceed 0.5 by two standard errors, which are those of a sum
    over rows: the doubts of a row depend on one another.
    """
    classes = log_probs.shape[1]
    own, *others = (doubt(log_probs, (labels + shift) % classes) for shift in range(classes))
    weights = 1.0 / np.bincount(labels, minlength=classes).clip(1)[labels]
    weights /= weights.sum()
    above = 1.0 - np.mean([_share_below(other, weights, own) for other in others], axis=0)  # of others, by own doubt
    below = np.mean([_share_below(own, weights, other) for other in others], axis=0)  # of own ones, by others' doubt
    auroc = float(weights @ above)
    influence = weights * ((above - auroc) + (below - auroc))
    return bool(auroc >= 0.5 + 2.0 * np.sqrt((influence**2).sum()))


def _share_below(values: FloatArray, weights: FloatArray, at: FloatArray) -> FloatArray:
    """The weighted share of values [n] that lie below each of ``at`` [k]; equal ones count half."""
    order = np.argsort(values, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    low, high = (np.searchsorted(values[order], at, side) for side in ("left", "right"))
    return np.asarray((sums[low] + sums[high]) / 2.0)


def fuse(people: RowViews, truth: IntArray, written: RowViews, labels: IntArray) -> Fusion:
    """Fits the fusion: the most probable one, by the labels of written rows and of human rows, which are all right.

    Human rows say how sure P' may be: their exponent a is that of written rows. Their b and c are their own, because
    models of written rows, and the shares of classes, need not fit human rows. The likelihood of noisy labels is that
    of a noise adaptation layer (Goldberger & Ben-Reuven 2017), with two models for one network. The rows of T are drawn
    toward those of even errors, E[t, t] = 1 - e and e / (C - 1) elsewhere, by ``EVENNESS`` times the Kullback-Leibler
    divergence of T[t] from E[t]; e has the prior Beta(2, 10) of ``PRIOR`` and is estimated too.

    Args:
        people: of m human rows.
        truth: their classes [m].
        written: of n written rows.
        labels: their classes [n].
    """
    from scipy.optimize import minimize

    classes = written.p.shape[1]
    share = PRIOR[0] / sum(PRIOR)
    start = np.concatenate([
        np.zeros(3), [np.log(share / (1 - share))], np.zeros(2 * classes), np.log(_even(share, classes)).ravel()
    ])  # fmt: skip
    best = minimize(
        _negative_log_posterior, start, (people, truth, written, labels), "L-BFGS-B", jac=True,
        options={"maxiter": 500},
    ).x  # fmt: skip
    (log_a, log_b, _, _), (shifts, _), logits = _parts(best, classes)
    return Fusion((float(np.exp(log_a)), float(np.exp(log_b))), shifts, np.exp(_log_softmax(logits)))


def _even(share: float, classes: int) -> FloatArray:
    """The confusion of even errors [C, C]."""
    out = np.full((classes, classes), share / (classes - 1))
    np.fill_diagonal(out, 1.0 - share)
    return out


def _parts(x: FloatArray, classes: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """log a, log b, log b of human rows, log odds of e; c and c of human rows [2, C]; the logits of T [C, C]."""
    middle = 4 + 2 * classes
    return x[:4], x[4:middle].reshape(2, classes), x[middle:].reshape(classes, classes)


def _negative_log_posterior(
    x: FloatArray, people: RowViews, truth: IntArray, written: RowViews, labels: IntArray
) -> tuple[float, FloatArray]:
    """Minus the log of likelihood and priors, and its gradient; see ``fuse``."""
    classes = written.p.shape[1]
    numbers, shifts, logits = _parts(x, classes)
    log_exponents, (a, b, b_people), e = numbers[:3], np.exp(numbers[:3]), 1.0 / (1.0 + np.exp(-numbers[3]))
    log_t, even = _log_softmax(logits), _even(e, classes)
    log_s = _log_softmax(a * written.p + b * written.q + shifts[0])
    joint = log_s + log_t[:, labels].T
    log_likelihood = np.logaddexp.reduce(joint, axis=1)
    posterior = np.exp(joint - log_likelihood[:, None])
    log_s_people = _log_softmax(a * people.p + b_people * people.q + shifts[1])

    value = log_likelihood.sum() + log_s_people[np.arange(len(truth)), truth].sum()
    value -= EVENNESS * (even * (np.log(even) - log_t)).sum()
    value += PRIOR[0] * np.log(e) + PRIOR[1] * np.log1p(-e)
    value -= (log_exponents**2).sum() / (2 * EXPONENT_SD**2) + (shifts**2).sum() / (2 * SHIFT_SD**2)

    residual = posterior - np.exp(log_s)
    residual_people = -np.exp(log_s_people)
    residual_people[np.arange(len(truth)), truth] += 1.0
    slopes = np.array([
        (residual * written.p).sum() + (residual_people * people.p).sum(),
        (residual * written.q).sum(),
        (residual_people * people.q).sum(),
    ])  # fmt: skip
    counts = np.stack([posterior[labels == label].sum(axis=0) for label in range(classes)], axis=1) + EVENNESS * even
    by_e = _even(1.0, classes) - np.eye(classes)  # derivative of the even confusion
    slope_e = PRIOR[0] / e - PRIOR[1] / (1.0 - e) - EVENNESS * (by_e * (np.log(even) - log_t)).sum()
    gradient = np.concatenate([
        np.exp(log_exponents) * slopes - log_exponents / EXPONENT_SD**2,
        [slope_e * e * (1.0 - e)],
        (np.stack([residual.sum(axis=0), residual_people.sum(axis=0)]) - shifts / SHIFT_SD**2).ravel(),
        (counts - counts.sum(axis=1, keepdims=True) * np.exp(log_t)).ravel(),
    ])  # fmt: skip
    return -float(value), -gradient


def _log_softmax(x: FloatArray) -> FloatArray:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(x, axis=1))
