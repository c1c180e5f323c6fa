"""How much more often a text occurs among real texts than among others, by a classifier that tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import TrialError
from harness.seeds import derive

FloatArray = npt.NDArray[np.floating[Any]]
#: Folds of the classifier: every row is judged by one that was fitted without it.
FOLDS = 5


def log_density_ratio(others: FloatArray, real: FloatArray, c: float, seed: int) -> tuple[FloatArray, float]:
    """log r(x) of n texts, r = d / (1 - d) · n / m with d = P(real | x), and the AUC of the classifier.

    d comes from logistic regressions on embeddings of unit length, cross-fitted. n / m corrects for the shares of the
    two kinds of texts (Grover et al., NeurIPS 2019, arXiv 1906.09531, likelihood-free importance weights).

    Args:
        others: embeddings of the n texts, [n, D].
        real: embeddings of m real texts, [m, D].
        c: inverse of the L2 penalty, as in scikit-learn.
        seed: the trial's seed; folds are drawn with its stream ``density_ratio``.

    Returns:
        float64 [n], and the mean over the folds of the area under the ROC curve.

    Raises:
        TrialError: there are fewer texts of a kind than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    n, m = len(others), len(real)
    if min(n, m) < FOLDS:
        raise TrialError(f"expected at least {FOLDS} texts of each kind, found {m} real ones and {n} others")
    features = np.concatenate([others, real]).astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    is_real = np.arange(n + m) >= n
    logits, areas = np.zeros(n + m), []
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=derive(seed, "density_ratio") % 2**32)
    with threadpool_limits(1):  # the number of threads would change the bits
        for fitted, held_out in folds.split(features, is_real):
            model = LogisticRegression(C=c, max_iter=1000).fit(features[fitted], is_real[fitted])
            logits[held_out] = model.decision_function(features[held_out])
            areas.append(roc_auc_score(is_real[held_out], logits[held_out]))
    return logits[:n] + np.log(n / m), float(np.mean(areas))
