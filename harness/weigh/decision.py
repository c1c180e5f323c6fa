"""Which candidate is best, what it gains over human rows alone, and how sure that is. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.checkers.temperature import calibrated, fit_temperature
from harness.reports.statistics import t_cdf, t_quantile

FloatArray = npt.NDArray[np.float64]
Verdict = Literal["use", "do not use", "cannot tell"]
#: Of all intervals of ``harness weigh``.
CONFIDENCE = 0.8
PSEUDO_ROWS = 2


@dataclass(frozen=True)
class Gain:
    """A mean of paired differences over folds, with its uncertainty.

    Attributes:
        mean: over all rows of the folds.
        error: its standard error.
        df: degrees of freedom of Student's t.
    """

    mean: float
    error: float
    df: float

    @property
    def interval(self) -> tuple[float, float]:
        """The interval with ``CONFIDENCE``."""
        half = t_quantile(0.5 + CONFIDENCE / 2, self.df) * self.error
        return self.mean - half, self.mean + half

    @property
    def sure(self) -> float:
        """The confidence that the true mean is above zero: one minus the one-sided p value."""
        if self.error == 0:
            return 0.5 if self.mean == 0 else float(self.mean > 0)
        return t_cdf(self.mean / self.error, self.df)

    @property
    def verdict(self) -> Verdict:
        """``use`` if the whole interval of a gain is above zero, ``do not use`` if it is below."""
        low, high = self.interval
        return "use" if low > 0 else "do not use" if high < 0 else "cannot tell"


def corrected_gain(differences: Sequence[FloatArray], test_share: float, pseudo_rows: int = PSEUDO_ROWS) -> Gain:
    """The mean of paired differences on several folds, with a variance corrected for overlapping training rows.

    The variance of the mean is (1 / J + n_test / n_train) S² (Nadeau & Bengio 2003, section 4, "corrected resampled
    t-test"), S² the variance of a fold's mean. With few folds their spread alone says little about S²: S² is the larger
    of the variance between the folds' means and the variance that the spread of single rows gives them. Pseudo-rows
    that differ by 1 keep the latter above zero where two models are right on the same rows.

    Args:
        differences: for each of J folds, those of its rows [n_j], averaged over seeds.
        test_share: n_test / n_train.
        pseudo_rows: how many; 0 for differences that are not counts.

    Raises:
        ValueError: there are fewer than two folds.
    """
    folds = len(differences)
    if folds < 2:
        raise ValueError(f"expected at least two folds, found {folds}")
    means = np.array([rows.mean() for rows in differences])
    every = np.concatenate(list(differences))
    between = float(means.var(ddof=1))
    squares = sum(float(((rows - rows.mean()) ** 2).sum()) for rows in differences)
    within = (squares + pseudo_rows) / (len(every) - folds + pseudo_rows)
    of_rows = within * folds / len(every)
    variance = max(between, of_rows)
    df = float(folds - 1) if between > of_rows else float(len(every) - folds)
    return Gain(float(every.mean()), float(np.sqrt((1 / folds + test_share) * variance)), max(1.0, df))


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for rows that judge it.

    Attributes:
        log_probs: log-probabilities [n, C].
        truth: class indices, int64 [n].
    """

    log_probs: FloatArray
    truth: npt.NDArray[np.int64]


def log_loss(predictions: Sequence[Predictions]) -> float:
    """The mean of -log p of the true labels, at the temperature that is best for these predictions.

    On few rows it is less noisy than accuracy, which takes few values only; the temperature keeps models that are
    sure of themselves from looking better, or worse, than they rank the labels.
    """
    truth = np.concatenate([part.truth for part in predictions])
    values = calibrated(np.concatenate([part.log_probs for part in predictions]), best_temperature(predictions))
    return -float(values[np.arange(len(truth)), truth].mean())


def verdict(score: Gain, accuracy: Gain) -> Verdict:
    """What to tell: the verdict of the score, unless accuracy clearly says the opposite."""
    opposite = {"use": "do not use", "do not use": "use"}.get(score.verdict)
    return "cannot tell" if accuracy.verdict == opposite else score.verdict


def squared_errors(predictions: Mapping[int, Sequence[Predictions]]) -> dict[int, FloatArray]:
    """The Brier score of every row, at the temperature that is best for these predictions.

    That is the sum over all C labels of (p_c - 1[c is true])², from 0 to 2, averaged over the models of a fold. Like
    ``log_loss`` it is less noisy than accuracy, and a single row cannot outweigh the others.

    Args:
        predictions: fold -> those of its models, on the same rows.

    Returns:
        Fold -> the scores of its rows [n].
    """
    temperature = best_temperature([part for parts in predictions.values() for part in parts])
    return {
        fold: np.mean([_squared_errors(part, temperature) for part in parts], axis=0)
        for fold, parts in predictions.items()
    }


def _squared_errors(predictions: Predictions, temperature: float) -> FloatArray:
    errors = np.exp(calibrated(predictions.log_probs, temperature))
    errors[np.arange(len(errors)), predictions.truth] -= 1.0
    out: FloatArray = (errors**2).sum(axis=1)
    return out


def best_temperature(predictions: Sequence[Predictions]) -> float:
    """The temperature with the smallest log loss."""
    log_probs = np.concatenate([part.log_probs for part in predictions])
    return fit_temperature(log_probs, np.concatenate([part.truth for part in predictions]))


def finalists(predictions: Mapping[str, Sequence[Predictions]], count: int = 2) -> list[str]:
    """The candidates with the smallest log loss, best first.

    Args:
        predictions: of the models of every candidate.
        count: how many.
    """
    losses = {name: log_loss(parts) for name, parts in predictions.items()}
    return sorted(losses, key=lambda name: losses[name])[:count]


def choose(predictions: Mapping[str, Mapping[int, Sequence[Predictions]]], without: int | None = None) -> str:
    """The candidate with the smallest log loss on all folds but one.

    Args:
        predictions: candidate -> fold -> those of its models.
        without: the fold that does not count.
    """
    kept = {
        name: [part for fold, parts in folds.items() if fold != without for part in parts]
        for name, folds in predictions.items()
    }
    return finalists(kept, 1)[0]
