"""From predictions to the decision."""

import numpy as np

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
    out = Evidence(Lengths(10, 10, FIRST_SEED, (0.25, 0.5), 0.0, "float32"))
    for fold in range(FOLDS):
        logits = 0.5 + rng.standard_normal(ROWS)
        for candidate in (NULL, *CANDIDATES):
            moved = shift(fold, logits) if candidate.key in BEST else 0.0
            for share in (1.0, *out.lengths.shares):
                out.outcomes[Run(candidate.key, fold_name(fold), 0, share)] = outcome(logits + moved)
    return out


def test_better_probabilities_decide_where_accuracy_is_the_same():
    # right rows become surer, wrong ones nearer to right, none changes sides
    better = evidence(lambda fold, logits: np.where(logits > 0, 1.5 * logits, -0.7 * logits))
    numbers = better.numbers(BEST, BEST[0], people=150)
    assert numbers.gain.mean == 0
    assert numbers.gain.verdict == "cannot tell"
    assert numbers.score.verdict == "use"
    assert numbers.score.mean > 0.05


def test_all_folds_decide_and_three_report_the_gain_in_accuracy():
    better = evidence(lambda fold, logits: 0.0 if fold in JUDGES else np.where(logits < 0, -1.1 * logits, 0.0))
    numbers = better.numbers(BEST, BEST[0], people=150)
    assert numbers.gain.mean == 0
    assert numbers.judged == len(JUDGES) * ROWS
    assert numbers.score.mean > 0.02


def test_models_that_predict_the_same_decide_nothing():
    numbers = evidence(lambda fold, logits: 0.0).numbers(BEST, BEST[0], people=150)
    assert (numbers.score.mean, numbers.score.sure, numbers.verdict) == (0.0, 0.5, "cannot tell")


def test_worse_probabilities_advise_against():
    worse = evidence(lambda fold, logits: np.where(logits > 0, -0.8 * logits, 0.8 * logits))
    assert worse.numbers(BEST, BEST[0], people=150).verdict == "do not use"


def test_choosing_the_best_of_equals_is_no_gain():
    """Seven ways that are as good as human rows alone, each with noise of its own: the best of them gains nothing."""
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(60):
        noisy = Evidence(Lengths(10, 10, FIRST_SEED, (0.5,), 0.0, "float32"))
        for fold in range(FOLDS):
            shared = 0.5 + rng.standard_normal(ROWS)
            for candidate in (NULL, *CANDIDATES):
                noisy.outcomes[Run(candidate.key, fold_name(fold), 0)] = outcome(shared + rng.standard_normal(ROWS))
        scores.append(noisy.score(noisy.choices(noisy.best_two())))
    means = np.array([score.mean for score in scores])
    assert abs(means.mean()) < 2.5 * means.std() / np.sqrt(len(means))
    assert np.mean([score.verdict == "use" for score in scores]) <= 0.1
