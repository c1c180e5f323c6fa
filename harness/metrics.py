"""The metrics of a classifier, in one table: key, title, function, and which direction is better.

NumPy and scikit-learn are imported when a metric is computed: titles and keys cost no start-up time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    LogProbs = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.integer[Any]]


def accuracy(log_probs: LogProbs, labels: Labels) -> float:
    """Share of the rows whose most probable class is the label.

    Args:
        log_probs: log-probabilities [n, C].
        labels: class indices [n].
    """
    return label_accuracy(log_probs.argmax(axis=1), labels)


def macro_f1(log_probs: LogProbs, labels: Labels) -> float:
    """Unweighted mean of the F1 scores of all C classes; a class neither present nor predicted counts as 0."""
    return label_macro_f1(log_probs.argmax(axis=1), labels, log_probs.shape[1])


def loss(log_probs: LogProbs, labels: Labels) -> float:
    """Mean cross-entropy in nats, averaged in float64."""
    import numpy as np

    return float(-log_probs[np.arange(len(labels)), labels].astype(np.float64).mean())


def label_accuracy(predicted: Labels, labels: Labels) -> float:
    """Accuracy of predicted class indices; an index outside the classes is wrong."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predicted))


def label_macro_f1(predicted: Labels, labels: Labels, classes: int) -> float:
    """Macro F1 of predicted class indices over ``classes`` classes; an index outside of them is wrong."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, labels=list(range(classes)), average="macro", zero_division=0))


@dataclass(frozen=True)
class Metric:
    """A metric of a split.

    Attributes:
        key: its part of a column's name, e.g. ``f1`` in ``test_f1``.
        title: how reports call it, inside a sentence.
        compute: from log-probabilities [n, C] and class indices [n].
        higher_is_better: the direction of improvement.
        is_share: whether its values lie in [0, 1] and are shown in percent.
    """

    key: str
    title: str
    compute: Callable[[LogProbs, Labels], float]
    higher_is_better: bool = True
    is_share: bool = True

    def column(self, split: str) -> str:
        """The column of results that holds its value on a split."""
        return f"{split}_{self.key}"


ACCURACY = Metric("accuracy", "accuracy", accuracy)
MACRO_F1 = Metric("f1", "macro F1", macro_f1)
LOSS = Metric("loss", "loss", loss, higher_is_better=False, is_share=False)
#: All metrics by key. The first is the primary one: findings and figures are about it.
METRICS = {metric.key: metric for metric in (ACCURACY, MACRO_F1, LOSS)}
PRIMARY = ACCURACY
#: The metrics shown in tables of scores and gains, in percent.
SCORES = tuple(metric for metric in METRICS.values() if metric.is_share)
