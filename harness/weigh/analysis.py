"""From the predictions of all trials to the numbers of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.seeds import generator
from harness.weigh.candidates import CANDIDATES, NULL, WRITTEN
from harness.weigh.decision import (
    Gain,
    Predictions,
    best_temperature,
    choose,
    corrected_gain,
    finalists,
    log_loss,
    squared_errors,
    verdict,
)
from harness.weigh.folds import fold_name
from harness.weigh.lengths import FIRST_SEED, Lengths
from harness.weigh.result import NEXT, Numbers, Standing
from harness.weigh.rounds import FloatArray, Outcome, Run
from harness.weigh.settings import FOLDS, SCREENING
from harness.weigh.worth import Curves, accuracy_with_interval, next_rows, worth

#: Folds whose human rows report the gain: they did not choose the finalists.
JUDGES = tuple(fold for fold in range(FOLDS) if fold not in SCREENING)
#: n_test / n_train of a fold.
TEST_SHARE = 1.0 / (FOLDS - 1)


@dataclass
class Evidence:
    """The outcomes of the trials so far.

    Attributes:
        lengths: seeds and shares of the trainings.
        outcomes: of every trial.
    """

    lengths: Lengths
    outcomes: dict[Run, Outcome] = field(default_factory=dict)

    def predictions(self, candidate: str, folds: Sequence[int], seeds: Sequence[int]) -> list[Predictions]:
        """The predictions of the human rows of some folds, by the models of a candidate."""
        runs = [self.outcomes[Run(candidate, fold_name(fold), seed)] for fold in folds for seed in seeds]
        return [Predictions(run.log_probs, run.truth) for run in runs]

    def correct(
        self, candidate: str, folds: Sequence[int], seeds: Sequence[int], share: float = 1.0
    ) -> dict[int, FloatArray]:
        """Fold -> 1 or 0 for each of its human rows, averaged over seeds."""
        out = {}
        for fold in folds:
            runs = [Run(candidate, fold_name(fold), seed, share) for seed in seeds]
            out[fold] = np.mean([self.outcomes[run].correct for run in runs], axis=0)
        return out

    def best_two(self) -> list[str]:
        """The candidates that are best on the folds of the first round."""
        return finalists({c.key: self.predictions(c.key, SCREENING, FIRST_SEED) for c in CANDIDATES})

    def by_fold(self, names: Sequence[str]) -> dict[str, dict[int, list[Predictions]]]:
        """Candidate -> fold -> the predictions of its models."""
        seeds = self.lengths.seeds
        return {name: {fold: self.predictions(name, (fold,), seeds) for fold in range(FOLDS)} for name in names}

    def best(self, best_two: Sequence[str]) -> str:
        """The better of two candidates on all folds."""
        return choose(self.by_fold(best_two))

    def choices(self, best_two: Sequence[str]) -> dict[int, str]:
        """Fold -> the candidate that other folds choose for it, so that no fold judges what it has chosen.

        The folds of the first round each get what the other one chooses among all candidates, the further folds the
        finalist that all others prefer.
        """
        predictions = self.by_fold(best_two)
        of_all = {
            fold: finalists({c.key: self.predictions(c.key, [other], FIRST_SEED) for c in CANDIDATES}, 1)[0]
            for fold, other in zip(SCREENING, reversed(SCREENING), strict=True)
        }
        return of_all | {fold: choose(predictions, fold) for fold in JUDGES}

    def score(self, choices: Mapping[int, str]) -> Gain:
        """The reduction of the Brier score against human rows alone, on all folds.

        Args:
            choices: fold -> the candidate that it judges; see ``choices``.
        """
        reductions = self._reductions({fold: choices[fold] for fold in SCREENING}, FIRST_SEED)
        reductions |= self._reductions({fold: choices[fold] for fold in JUDGES}, self.lengths.seeds)
        return corrected_gain(list(reductions.values()), TEST_SHARE, pseudo_rows=0)

    def temperature(self, candidate: str) -> float:
        """The best temperature of the models of the null or of a finalist."""
        return best_temperature(self.predictions(candidate, range(FOLDS), self.lengths.seeds))

    def _reductions(self, choices: Mapping[int, str], seeds: Sequence[int]) -> dict[int, FloatArray]:
        """Fold -> what the Brier scores of its rows are lower by, with the candidate chosen for it."""
        errors = {
            name: squared_errors({fold: self.predictions(name, (fold,), seeds) for fold in choices})
            for name in {NULL.key, *choices.values()}
        }
        return {fold: errors[NULL.key][fold] - errors[name][fold] for fold, name in choices.items()}

    def standings(self, best_two: Sequence[str]) -> tuple[Standing, ...]:
        """How every candidate did in the first round."""
        return tuple(
            Standing(
                candidate.key, _mean(self.correct(candidate.key, SCREENING, FIRST_SEED)),
                log_loss(self.predictions(candidate.key, SCREENING, FIRST_SEED)), candidate.key in best_two,
            )
            for candidate in (NULL, *CANDIDATES)
        )  # fmt: skip

    def curves(self, best: str, people: int) -> Curves:
        """The learning curves of the null and of the best candidate, on the folds that judge."""
        sizes = (*self.lengths.shares, 1.0)
        parts: dict[str, list[FloatArray]] = {}
        for name in (NULL.key, best):
            rows = []
            for size in sizes:
                share = 1.0 if name == WRITTEN.key else size  # it has no human rows to take a share of
                rows.append(self.correct(name, JUDGES, self.lengths.seeds if share == 1.0 else FIRST_SEED, share))
            parts[name] = [np.stack([row[fold] for row in rows]) for fold in JUDGES]
        trained = people * (FOLDS - 1) / FOLDS
        return Curves(np.array([trained * size for size in sizes]), parts[NULL.key], parts[best], TEST_SHARE)

    def numbers(self, best_two: Sequence[str], best: str, people: int) -> Numbers:
        """The numbers of the answer, those on single rows aside.

        Args:
            best_two: the finalists.
            best: the better of them.
            people: number of human rows.
        """
        correct = {name: self.correct(name, JUDGES, self.lengths.seeds) for name in (NULL.key, *best_two)}
        choices = self.choices(best_two)
        chosen = {fold: correct[choices[fold]][fold] for fold in JUDGES}
        gain = corrected_gain([chosen[fold] - correct[NULL.key][fold] for fold in JUDGES], TEST_SHARE)
        score = self.score(choices)
        use = verdict(score, gain) == "use"
        curves = self.curves(best, people)
        alone, both = curves.means()
        return Numbers(
            judged=sum(map(len, correct[NULL.key].values())), best=best, gain=gain, score=score,
            temperature=self.temperature(best if use else NULL.key),
            accuracy=accuracy_with_interval(chosen if use else correct[NULL.key], TEST_SHARE),
            null_accuracy=accuracy_with_interval(correct[NULL.key], TEST_SHARE), standings=self.standings(best_two),
            worth=tuple(worth(curves, generator(0, "worth"))),
            next_rows=next_rows(curves, use, people, NEXT, generator(0, "next rows")),
            curves={round(n): (a, b) for n, a, b in zip(curves.people, alone.tolist(), both.tolist(), strict=True)},
        )  # fmt: skip


def _mean(folds: Mapping[int, FloatArray]) -> float:
    return float(np.concatenate(list(folds.values())).mean())
