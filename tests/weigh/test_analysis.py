"""From predictions to the decision."""

import numpy as np
import pytest

from harness.weigh.analysis import JUDGES, Evidence
from harness.weigh.candidates import CANDIDATES, NULL
from harness.weigh.folds import fold_name
from harness.weigh.lengths import FIRST_SEED, Lengths
from harness.weigh.rounds import Outcome, Run
from harness.weigh.settings import FOLDS

ROWS = 30
BEST = ["both:ce", "both:dimp"]


def outcome(logits):
    """Predictions of two classes, the first of them true."""
    scores = np.stack([logits, np.zeros_like(logits)], axis=1)
    log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return Outcome(tuple(map(str, range(len(logits)))), np.zeros(len(logits), dtype=np.int64), log_probs, {}, {})


def evidence(shift):
    """All candidates rank the rows alike, but for ``shift`` of the best two: fold -> logit [ROWS]."""
    rng = np.random.default_rng(0)
    found = Evidence(Lengths(10, 10, FIRST_SEED, (0.25, 0.5), 0.0, "float32"))
    for fold in range(FOLDS):
        logits = 0.5 + rng.standard_normal(ROWS)
        for candidate in (NULL, *CANDIDATES):
            moved = shift(fold, logits) if candidate.key in BEST else 0.0
            for share in (1.0, *found.lengths.shares):
                found.outcomes[Run(candidate.key, fold_name(fold), 0, share)] = outcome(logits + moved)
    return found


def test_better_probabilities_decide_where_accuracy_is_the_same():
    # right rows become surer, wrong ones nearer to right, none changes sides
    found = evidence(lambda fold, logits: np.where(logits > 0, 1.5 * logits, -0.7 * logits))
    numbers = found.numbers(BEST, BEST[0], people=150)
    assert numbers.gain.mean == 0
    assert numbers.gain.verdict == "cannot tell"
    assert numbers.score.verdict == "use"
    assert numbers.score.mean > 0.05


def test_all_folds_decide_and_three_report_the_gain_in_accuracy():
    found = evidence(lambda fold, logits: 0.0 if fold in JUDGES else np.where(logits < 0, -1.1 * logits, 0.0))
    numbers = found.numbers(BEST, BEST[0], people=150)
    assert numbers.gain.mean == 0
    assert numbers.judged == len(JUDGES) * ROWS
    assert numbers.score.mean > 0.02


def test_models_that_predict_the_same_decide_nothing():
    numbers = evidence(lambda fold, logits: 0.0).numbers(BEST, BEST[0], people=150)
    assert (numbers.score.mean, numbers.score.sure, numbers.score.verdict) == (0.0, 0.5, "cannot tell")
    assert numbers.accuracy.value == pytest.approx(numbers.null_accuracy.value)


def test_worse_probabilities_advise_against():
    found = evidence(lambda fold, logits: np.where(logits > 0, -0.8 * logits, 0.8 * logits))
    assert found.numbers(BEST, BEST[0], people=150).score.verdict == "do not use"
