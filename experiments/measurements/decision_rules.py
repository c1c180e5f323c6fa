"""Which rule should `harness weigh` decide by? Hundreds of simulated users, with a linear model in place of a network.

The users are those of weigh.py: human rows of a benchmark, and generated rows as they are, with 40 % of the labels
flipped, or with half of the texts off topic. Models are logistic regressions on frozen embeddings (of a pair:
difference and product), so that a user takes a second and not minutes. Candidates are those of `harness weigh` that
have a counterpart here. Every rule sees the same cross-validated predictions, and is judged by models of all rows on
the benchmark's test rows:

- regret: accuracy of the best way minus that of the recommended one, in points
- harm: share of the users who are told to use their written rows although that costs a point or more
- use: share of the users who are told so
- coverage: how often the 80 % interval of the gain in accuracy contains the gain on test rows

The true gain is measured on test rows, so coverage is a little too small. Users of a benchmark share its generated and
test rows. So the standard errors that are printed are those of means over benchmarks, sizes and draws, in which the
three kinds of one user are one; there are only four benchmarks.

    python experiments/measurements/decision_rules.py --draws 12 --json results/runtime/decision_rules.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from simulated_users import BENCHMARKS
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer
from weigh import HARM, KINDS, SIZES, User, make_rows, regret

from harness.data.split import Split
from harness.encoders import locate
from harness.seeds import generator
from harness.weigh import candidates
from harness.weigh.analysis import JUDGES, TEST_SHARE
from harness.weigh.decision import CONFIDENCE, Gain, Predictions, choose, corrected_gain, finalists, squared_errors
from harness.weigh.settings import FOLDS, SCREENING, default_encoder

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
NULL = candidates.NULL.key
WAYS = ("generated:ce", "both:ce", "both:mix", "both:dimp", "both:filter")
#: Inverse strength of the ridge penalty, for standardized features.
RIDGE = 0.02


class Embeddings:
    """Mean-pooled, frozen embeddings of texts, each computed once."""

    def __init__(self) -> None:
        encoder = locate(default_encoder())
        self._tokenizer = AutoTokenizer.from_pretrained(encoder)
        self._model = AutoModel.from_pretrained(encoder).eval()
        self._known: dict[str, FloatArray] = {}

    @torch.no_grad()
    def learn(self, texts: set[str]) -> None:
        """Embeds new texts, those of similar length together."""
        new = sorted(texts - self._known.keys(), key=lambda text: (len(text), text))
        for start in track(range(0, len(new), 64), "embeddings"):
            part = new[start : start + 64]
            batch = self._tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            means = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            self._known |= dict(zip(part, means.numpy().astype(np.float64), strict=True))

    def of(self, split: Split) -> FloatArray:
        """[n, D], or [n, 2 D] for pairs."""
        first = np.stack([self._known[text] for text in split.texts])
        if split.pairs is None:
            return first
        second = np.stack([self._known[text] for text in split.pairs])
        return np.concatenate([np.abs(first - second), first * second], axis=1)


def texts_of(*splits: Split) -> set[str]:
    """All of their texts, of pairs both."""
    return {text for split in splits for text in (*split.texts, *(split.pairs or ()))}


class Model:
    """A multinomial logistic regression with weighted rows."""

    def __init__(self, features: FloatArray, labels: IntArray, weights: FloatArray, classes: int) -> None:
        self._classes = classes
        self._model = LogisticRegression(C=RIDGE, max_iter=500, tol=1e-3).fit(features, labels, sample_weight=weights)

    def log_probs(self, features: FloatArray) -> FloatArray:
        """[n, C]; a class that it has not seen has a small probability."""
        out: FloatArray = np.full((len(features), self._classes), 1e-4)
        out[:, self._model.classes_] = np.clip(self._model.predict_proba(features), 1e-6, 1.0)
        log_probs: FloatArray = np.log(out / out.sum(axis=1, keepdims=True))
        return log_probs


@dataclass(frozen=True)
class Rows:
    """Standardized features [n, D] and labels [n]."""

    features: FloatArray
    labels: IntArray

    def take(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """Some of them."""
        return Rows(self.features[rows], self.labels[rows])


def train(people: Rows, written: Rows, classes: int) -> dict[str, Model]:
    """Every way to train, human rows alone first."""
    n, m = len(people.labels), len(written.labels)
    features = np.concatenate([people.features, written.features])
    labels = np.concatenate([people.labels, written.labels])

    def both(weights: FloatArray, human: float = 1.0) -> Model:
        return Model(features, labels, np.concatenate([np.full(n, human), weights]), classes)

    alone = Model(people.features, people.labels, np.ones(n), classes)
    together = both(np.ones(m))
    at = np.arange(m), written.labels
    quality = alone.log_probs(written.features)
    weights = np.exp(quality[at]) / np.exp(together.log_probs(written.features)[at]).clip(0.1)
    return {
        NULL: alone,
        "generated:ce": Model(written.features, written.labels, np.ones(m), classes),
        "both:ce": together,
        "both:mix": both(np.full(m, (n + m) / (2 * m)), (n + m) / (2 * n)),
        "both:dimp": both(weights * m / weights.sum()),
        "both:filter": both((quality.argmax(axis=1) == written.labels).astype(np.float64)),
    }


@dataclass(frozen=True)
class Case:
    """A user.

    Attributes:
        predictions: way -> fold -> those of its human rows.
        test: way -> 1 or 0 for each test row, by a model of all rows.
    """

    user: User
    predictions: Mapping[str, Mapping[int, Sequence[Predictions]]]
    test: Mapping[str, FloatArray]

    @property
    def halves(self) -> dict[str, tuple[float, float]]:
        """Test accuracy on every other row, and on the others."""
        return {way: (float(right[::2].mean()), float(right[1::2].mean())) for way, right in self.test.items()}

    def gain(self, way: str) -> float:
        """True gain over human rows alone."""
        return float(self.test[way].mean() - self.test[NULL].mean())


def make_case(user: User, embeddings: Embeddings, parts: tuple[Split, Split, Split], classes: int) -> Case:
    """Trains everything for a user."""
    raw = [embeddings.of(split) for split in parts]
    mean, spread = raw[1].mean(axis=0), raw[1].std(axis=0) + 1e-6
    people, written, test = (
        Rows((features - mean) / spread, split.labels) for features, split in zip(raw, parts, strict=True)
    )
    folds = stratified(people.labels, generator(user.draw, "folds", user.name))
    predictions: dict[str, dict[int, list[Predictions]]] = {}
    for fold in range(FOLDS):
        held_out = people.take(folds == fold)
        for way, model in train(people.take(folds != fold), written, classes).items():
            of_fold = Predictions(model.log_probs(held_out.features), held_out.labels)
            predictions.setdefault(way, {})[fold] = [of_fold]
    right = {
        way: (model.log_probs(test.features).argmax(axis=1) == test.labels).astype(np.float64)
        for way, model in train(people, written, classes).items()
    }
    return Case(user, predictions, right)


def stratified(labels: IntArray, rng: np.random.Generator) -> IntArray:
    """A fold for each row, the labels evenly."""
    folds = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        folds[rows] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
    return folds


@dataclass(frozen=True)
class Rule:
    """A rule of decision.

    Attributes:
        name: in words.
        score: what is compared, ``accuracy`` or ``brier``.
        folds: that judge.
        overlap: n_test / n_train in the variance, or 0 to leave the correction for overlapping training rows out.
        sure: the confidence that is needed.
        honest: whether each fold of the first round judges what the other one chooses, not one of the finalists that
            it has chosen itself.
    """

    name: str
    score: str
    folds: tuple[int, ...]
    overlap: float
    sure: float
    honest: bool = False

    def gain(self, case: Case) -> tuple[str, Gain]:
        """The best way that uses written rows, and its gain."""
        ways = {way: case.predictions[way] for way in WAYS}
        two = finalists({way: [p for fold in SCREENING for p in folds[fold]] for way, folds in ways.items()})
        best_two = {way: ways[way] for way in two}
        scores = {way: self._scores(case.predictions[way]) for way in (NULL, *two)}
        chosen = {fold: choose(best_two, fold) for fold in self.folds}
        if self.honest:  # as harness.weigh.analysis.Evidence.choices
            for fold in SCREENING:
                others = [other for other in SCREENING if other != fold]
                (chosen[fold],) = finalists({way: [p for f in others for p in ways[way][f]] for way in WAYS}, 1)
        scores |= {way: self._scores(case.predictions[way]) for way in set(chosen.values())}
        gains = [scores[chosen[fold]][fold] - scores[NULL][fold] for fold in self.folds]
        pseudo_rows = 2 if self.score == "accuracy" else 0
        return choose(best_two), corrected_gain(gains, self.overlap, pseudo_rows)

    def recommended(self, case: Case) -> str:
        """What the user is told to train with."""
        best, gain = self.gain(case)
        return best if gain.sure > self.sure else NULL

    def _scores(self, predictions: Mapping[int, Sequence[Predictions]]) -> dict[int, FloatArray]:
        """Fold -> a score of each of its rows, the higher the better."""
        if self.score == "brier":
            return {fold: -errors for fold, errors in squared_errors(predictions).items()}
        return {
            fold: (one.log_probs.argmax(axis=1) == one.truth).astype(np.float64) for fold, (one,) in predictions.items()
        }


NEEDED = 0.5 + CONFIDENCE / 2
EVERY = tuple(range(FOLDS))
RULES = (
    Rule("accuracy, three folds", "accuracy", JUDGES, TEST_SHARE, NEEDED),
    Rule("accuracy, all folds", "accuracy", EVERY, TEST_SHARE, NEEDED),
    Rule("Brier, three folds", "brier", JUDGES, TEST_SHARE, NEEDED),
    Rule("Brier, all folds, some choose what they judge", "brier", EVERY, TEST_SHARE, NEEDED),
    Rule("Brier, all folds (harness weigh)", "brier", EVERY, TEST_SHARE, NEEDED, True),
    Rule("Brier, all folds, 80 % sure", "brier", EVERY, TEST_SHARE, 0.8, True),
    Rule("Brier, all folds, 50 % sure", "brier", EVERY, TEST_SHARE, 0.5, True),
    Rule("accuracy, three folds, uncorrected", "accuracy", JUDGES, 0.0, NEEDED),
    Rule("accuracy, all folds, uncorrected", "accuracy", EVERY, 0.0, NEEDED),
    Rule("Brier, all folds, uncorrected", "brier", EVERY, 0.0, NEEDED, True),
    Rule("Brier, all folds, uncorrected, 80 % sure", "brier", EVERY, 0.0, 0.8, True),
)


def judge(cases: Sequence[Case], recommended: Sequence[str]) -> dict[str, float]:
    """What a rule, or a fixed policy, costs."""
    pairs = list(zip(cases, recommended, strict=True))
    return {
        "regret_points": float(np.mean([regret(case.halves, way) for case, way in pairs])),
        "regret_error": _clustered_error(cases, [regret(case.halves, way) for case, way in pairs]),
        "harmed_share": float(np.mean([way != NULL and case.gain(way) <= HARM for case, way in pairs])),
        "used_share": float(np.mean([way != NULL for _, way in pairs])),
    }


def _clustered_error(cases: Sequence[Case], values: Sequence[float]) -> float:
    """The standard error of a mean over users, where those with the same human rows are one."""
    groups: dict[tuple[str, int, int], list[float]] = {}
    for case, value in zip(cases, values, strict=True):
        groups.setdefault((case.user.benchmark, case.user.rows, case.user.draw), []).append(value)
    means = [np.mean(group) for group in groups.values()]
    return float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")


def coverage(rule: Rule, cases: Sequence[Case]) -> float:
    """How often the interval of a gain in accuracy contains the one on test rows."""
    gains = [(case, *rule.gain(case)) for case in cases]
    return float(np.mean([gain.interval[0] <= case.gain(best) <= gain.interval[1] for case, best, gain in gains]))


def simulate(draws: int) -> list[Case]:
    """All users."""
    users = [
        User(benchmark, rows, kind, draw)
        for draw, benchmark, rows, kind in itertools.product(range(draws), BENCHMARKS, SIZES, KINDS)
    ]
    parts: dict[User, tuple[tuple[Split, Split, Split], int]] = {}
    for user in track(users, "rows"):
        benchmark, people, written, test, _ = make_rows(user)
        people = replace(people, name="people").take(np.arange(user.rows))
        parts[user] = ((people, written, test), len(benchmark.labels))
    embeddings = Embeddings()
    embeddings.learn({text for splits, _ in parts.values() for text in texts_of(*splits)})
    return [make_case(user, embeddings, *parts[user]) for user in track(users, "models")]


def main() -> None:
    """Simulates, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=12, help="of every benchmark, size and kind (default 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    torch.set_num_threads(1)
    cases = simulate(arguments.draws)
    facts: dict[str, dict[str, Any]] = {}
    for way in (NULL, *WAYS):
        facts[f"always {way}"] = judge(cases, [way] * len(cases))
    for rule in RULES:
        facts[rule.name] = judge(cases, [rule.recommended(case) for case in cases])
        if rule.score == "accuracy":
            facts[rule.name]["covered_share"] = coverage(rule, cases)
    table = Table("decision", "regret, points", "harmed", "told to use", "coverage", title=f"{len(cases)} users")
    for name, numbers in facts.items():
        covered = f"{numbers['covered_share']:.1%}" if "covered_share" in numbers else ""
        shares = (f"{numbers[share]:.1%}" for share in ("harmed_share", "used_share"))
        table.add_row(name, f"{numbers['regret_points']:.2f} ± {numbers['regret_error']:.2f}", *shares, covered)
    Console(highlight=False).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"users": len(cases), "rules": facts}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
