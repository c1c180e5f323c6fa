"""A bag-of-words classifier: TF-IDF of words and bigrams, logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.split import Split


class BagOfWords:
    """Fitted on the rows of a split. The features of a pair are its texts' product, absolute difference and cosine."""

    def __init__(self, rows: Split) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        self._vectors.fit([*rows.texts, *(rows.pairs or ())])
        self._model = LogisticRegression(max_iter=1000, C=10.0).fit(self._features(rows), rows.labels)

    def evaluate(self, rows: Split) -> tuple[float, float]:
        """Accuracy and macro F1 on a split."""
        from sklearn.metrics import accuracy_score, f1_score

        classes = self._model.predict(self._features(rows))
        return float(accuracy_score(rows.labels, classes)), float(f1_score(rows.labels, classes, average="macro"))

    def log_probabilities(self, rows: Split) -> npt.NDArray[np.float64]:
        """log p(y|x) of the classes in the training rows, in ascending order [rows, classes]."""
        log_probs: npt.NDArray[np.float64] = self._model.predict_log_proba(self._features(rows))
        return log_probs

    def _features(self, rows: Split) -> Any:
        from scipy import sparse

        first = self._vectors.transform(rows.texts)
        if rows.pairs is None:
            return first
        second = self._vectors.transform(rows.pairs)
        shared = first.multiply(second)
        cosine = np.asarray(shared.sum(axis=1)).reshape(-1, 1)
        return sparse.hstack([shared, abs(first - second), cosine]).tocsr()
