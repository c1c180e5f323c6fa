"""The rounds of trials, each an experiment of its own: planned, run and recorded like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.benchmark import Benchmark
from harness.config.experiment import Experiment, GridRow, MethodChoice
from harness.config.schema import merge, parse
from harness.config.sources import SOURCES
from harness.data.selection import select
from harness.encoders import own_pooling
from harness.errors import UserError
from harness.planning.plan import Plan, make
from harness.planning.trials import Job, describe
from harness.store import Store
from harness.weigh.candidates import NULL, Candidate, key
from harness.weigh.folds import original_id
from harness.weigh.lengths import BATCH, Lengths
from harness.weigh.settings import WeighSettings

FloatArray = npt.NDArray[np.float64]
#: Candidates, each with its seeds.
GridRows = Sequence[tuple[Candidate, Sequence[int]]]
#: Learning rate and pooling were selected on validation rows (experiments/weigh_settings.yaml): trainings are short.
TRAINING = {"batch_size": BATCH, "evaluations": 1, "learning_rate": 2e-4}


@dataclass(frozen=True)
class Run:
    """Identifies a trial within ``harness weigh``."""

    candidate: str
    benchmark: str
    seed: int
    share: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """The predictions of a trial after its training, and the weights of its rows.

    Attributes:
        ids: of the n human rows that judge.
        truth: their classes, int64 [n].
        log_probs: of these rows [n, C].
        written: written id -> log-probabilities [C], for written rows that it did not train on.
        weights: written id -> weight, for rows that its method weighs.
    """

    ids: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    log_probs: FloatArray
    written: Mapping[str, FloatArray]
    weights: Mapping[str, float]

    @property
    def correct(self) -> FloatArray:
        """1 for every row that is predicted right, else 0 [n]."""
        out: FloatArray = (self.log_probs.argmax(axis=1) == self.truth).astype(np.float64)
        return out


def plan_round(
    settings: WeighSettings, name: str, benchmarks: Sequence[Benchmark], rows: GridRows, lengths: Lengths, encoder: str,
    cache: Path, shares: Sequence[float] = (1.0,), resources: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """The plan of a round.

    Models of the human rows also score all written rows that they could have trained on, for the table of rows.

    Args:
        settings: of the command.
        name: of the round, the end of the experiment's name.
        benchmarks: folds.
        rows: candidates, each with its seeds.
        lengths: steps and precision of the trainings.
        encoder: of all models.
        cache: folder for prepared benchmarks.
        shares: of the human rows.
        resources: of a trial, where the settings name none.

    Raises:
        UserError: a setting is not valid.
    """
    raw = {
        "name": f"{settings.title}.{name}",
        "description": f"harness weigh, {name}: are the written rows worth training on?",
        "benchmarks": list(benchmarks),
        "grid": [
            GridRow(source=candidate.source, methods=(MethodChoice(name=candidate.method),), seeds=tuple(seeds))
            for candidate, seeds in rows
        ],
        "quality_fractions": tuple(shares),
        "encoder": encoder,
        "training": TRAINING
        | {"steps": lengths.steps, "precision": lengths.precision, "pooling": own_pooling(encoder)},
        "stages": {"real_small": {"steps": lengths.real_steps}},
        "resources": dict(resources or {}),
    }
    experiment = parse(Experiment, merge(raw, settings.experiment), "experiment")
    plan = make(experiment, cache)
    return replace(plan, jobs=[_with_scores(job, plan) for job in plan.jobs])


def _with_scores(job: Job, plan: Plan) -> Job:
    """A model of all human rows of a fold, with the written rows that it is to score."""
    trial = job.trial
    splits = plan.splits[trial.task.name]
    if key(trial.source, trial.method.name) != NULL.key or trial.fraction != 1.0 or "generated" not in splits:
        return job
    digests = {"generated": splits["generated"].digest}
    return job.model_copy(update={"scores": job.scores | {"generated": digests}})


def outcomes(plan: Plan, store: Store) -> dict[Run, Outcome]:
    """The outcomes of the trials in the grid of a round, all of them finished.

    Raises:
        UserError: the store does not have a result that the ledger says is finished.
    """
    from harness.training.trial_result import load_result

    out = {}
    for job in plan.jobs:
        if not job.requested:  # a checker with other settings may have the same key
            continue
        trial = job.trial
        result = load_result(trial, store)
        if result is None:
            raise UserError(
                f"the store {store.root} has no result of {describe(job)}, which the ledger says is finished. Use the "
                "store that belongs to the ledger, or another --home."
            )
        splits = plan.splits[trial.task.name]
        test, held_out = splits["test"], splits["validation"]
        log_probs = {name: result.arrays[name][-1].astype(np.float64) for name in ("test", "validation")}
        written = dict(zip(map(original_id, held_out.ids), log_probs["validation"], strict=True))
        run = Run(
            key(trial.source, trial.method.name), trial.task.name.rpartition(".")[2], trial.seed, trial.fraction or 1.0
        )
        out[run] = Outcome(
            tuple(map(original_id, test.ids)), test.labels, log_probs["test"], written | _scores(job, plan, store),
            _weights(job, plan, result.arrays["weights"]),
        )  # fmt: skip
    return out


def _scores(job: Job, plan: Plan, store: Store) -> dict[str, FloatArray]:
    """Written id -> log-probabilities, of the training rows that a model of human rows scored."""
    from harness.checkers.scores import load_scores

    if key(job.trial.source, job.trial.method.name) != NULL.key or "generated" not in job.scores:
        return {}
    rows = plan.splits[job.trial.task.name]["generated"]
    values = load_scores(job.trial.id, job.scores["generated"], store).aligned(rows).astype(np.float64)
    return dict(zip(map(original_id, rows.ids), values, strict=True))


def _weights(job: Job, plan: Plan, weights: npt.NDArray[np.float32]) -> dict[str, float]:
    """Written id -> its last weight in the first stage."""
    trial = job.trial
    rows = select(SOURCES[trial.source].splits, plan.splits[trial.task.name], trial.fraction, trial.seed)
    last = weights[0]  # one evaluation a stage
    return {
        original_id(id_): float(weight)
        for id_, weight in zip(rows.ids, last, strict=True)
        if id_.startswith("generated-") and not np.isnan(weight)
    }
