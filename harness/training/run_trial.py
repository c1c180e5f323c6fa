"""A trial from its specification to its stored result. Runs without Ray, anywhere torch runs."""

from __future__ import annotations

import os

import numpy as np
import torch

from harness.checkers.scores import Scores, load_scores, save_scores, scores_exist
from harness.config.sources import REAL_SPLITS, SOURCES, weighed_splits
from harness.data.selection import select
from harness.data.split import IntArray, Split
from harness.data.split_files import load_split
from harness.data.tokens import Tokens, tokenize
from harness.errors import TrialError, UserError
from harness.methods import AnyMethod, AnyPredictor, Predictor, SourceInfo, make_method
from harness.methods.ce import CrossEntropy
from harness.planning.trials import Job, Trial, TrialStage
from harness.seeds import derive
from harness.store import Store
from harness.training.classifier import load_classifier, load_tokenizer
from harness.training.evaluation import FloatArray, label_metrics, predict
from harness.training.inner_training import InnerTrainingRun
from harness.training.loop import Inputs, Loop, Outcome, Report
from harness.training.memory import peak_memory_mb, release_memory, reset_peak_memory
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.trial_result import TrialResult, environment, load_result, save_result

EVALUATED = ("validation", "test")


def run(job: Job, store: Store, report: Report) -> TrialResult:
    """Runs a trial, or hands out its stored result.

    Every worker of a group calls this, and each calls ``report``; the first one writes.

    Args:
        job: the trial and what it scores afterwards.
        store: holds the splits and the checkers' scores; takes the result.
        report: gets the metrics of every evaluation.

    Raises:
        TrialError: the trial cannot give a result (a loss that is not finite, scores of other data).
    """
    workers = ProcessGroup.here(job.trial.device)
    stored = load_result(job.trial, store)
    if stored is not None and scores_exist(job.trial.id, job.scores.values(), store):
        for entry in stored.history:
            report(entry)
        return stored
    _reset(job.trial, workers)
    method = make_method(job.trial.method)
    if isinstance(method, Predictor):
        result = _predict(job.trial, method, store, report, workers)
    else:
        result = _train(job, method, store, report, workers)
    if workers.first:
        save_result(job.trial, result, store)
    return result


def _predict(trial: Trial, method: AnyPredictor, store: Store, report: Report, workers: ProcessGroup) -> TrialResult:
    """Classifies the test rows without training."""
    phases = PhaseTimer(workers.device)
    with phases.phase("load"):
        splits = {name: load_split(digest, store) for name, digest in trial.task.digests.items()}
        examples = training_rows(trial, splits)
    task, test = trial.task, splits["test"]
    assert task.prompt is not None, "planning adds the prompt to every trial that does not train"
    try:
        predicted = method.predict(test, examples, task.prompt, trial.seed, store.folder("answers"))
    except UserError as error:  # a missing key, a server that refuses: the message says what to do
        raise TrialError(str(error)) from None
    phases.seconds["classify"] = predicted.seconds
    entry = {"epoch": 1.0, "step": 0.0} | label_metrics(predicted.labels, test.labels, len(task.labels), "test")
    report(entry)
    runtime = {f"seconds_{name}": seconds for name, seconds in phases.seconds.items()} | predicted.costs
    runtime |= peak_memory_mb(workers.device)
    log_probs = np.where(predicted.labels[:, None] < 0, np.nan, one_hot(predicted.labels, len(task.labels)))
    return TrialResult([entry], runtime, environment(workers), {"test": log_probs.astype(np.float32)[None]})


def one_hot(labels: IntArray, classes: int) -> FloatArray:
    """Log-probabilities that are sure of a label: 0 for it, -inf for the others [n, classes]."""
    out: FloatArray = np.where(labels[:, None] == np.arange(classes), np.float32(0.0), np.float32(-np.inf))
    return out


def _train(job: Job, method: AnyMethod, store: Store, report: Report, workers: ProcessGroup) -> TrialResult:
    trial = job.trial
    phases = PhaseTimer(workers.device)
    with phases.phase("load"):
        splits = {name: load_split(digest, store) for name, digest in trial.task.digests.items()}
        model = load_classifier(trial.encoder, len(trial.task.labels), trial.seed, trial.training.attention)
        model.to(workers.device)
    with phases.phase("tokenize"):
        evaluation = {name: (splits[name], tokens_of(trial, splits[name], store)) for name in EVALUATED}
    outcomes: list[Outcome] = []
    for number, stage in enumerate(trial.stages):
        chosen = method if stage.weighted else CrossEntropy()
        inputs = _inputs(trial, stage, chosen, splits, evaluation, store, phases)
        seed = trial.seed if number == 0 else derive(trial.seed, "stage", number)
        if "inner_training" in chosen.needs:
            with (
                phases.phase("outer_rounds"),
                InnerTrainingRun(model, inputs, stage.training, seed, workers) as inner,
            ):
                chosen.learn_weights(inner)
        before = sum(len(o.history) for o in outcomes), int(outcomes[-1].history[-1]["step"]) if outcomes else 0
        weighed = {} if stage.weighted else _weight_statistics(outcomes)
        loop = Loop(model, chosen, inputs, stage.training, seed, workers, phases, before)
        outcomes.append(loop.run(lambda entry, weighed=weighed: report(entry | weighed)))  # type: ignore[misc]
        outcomes[-1].history = [entry | weighed for entry in outcomes[-1].history]
    for digests in job.scores.values():
        with phases.phase("score"):
            scored = {name: load_split(d, store) for name, d in digests.items()}
            rows = select(tuple(digests), scored, trial.fraction, trial.seed)
            size, precision = trial.training.evaluation_batch_size, trial.training.precision
            log_probs = predict(model, tokens_of(trial, rows, store), len(trial.task.labels), size, precision, workers)
            if workers.first:
                save_scores(Scores(trial.id, rows.ids, log_probs), digests, store)
    trained = sum(outcome.rows_trained for outcome in outcomes)
    runtime = {f"seconds_{name}": seconds for name, seconds in phases.seconds.items()}
    runtime |= {"rows_per_second": trained / phases.seconds["train"]} | peak_memory_mb(workers.device)
    arrays = {name: np.stack([v for o in outcomes for v in o.predictions[name]]) for name in evaluation}
    arrays["weights"] = _all_weights(trial, splits, outcomes)
    history = [entry for outcome in outcomes for entry in outcome.history]
    return TrialResult(history, runtime, environment(workers), arrays)


def _inputs(
    trial: Trial, stage: TrialStage, method: AnyMethod, splits: dict[str, Split],
    evaluation: dict[str, tuple[Split, Tokens]], store: Store, phases: PhaseTimer,
) -> Inputs:  # fmt: skip
    """The rows of a stage, with what its method needs; the method is prepared."""
    with phases.phase("load"):
        source = select(stage.splits, splits, trial.fraction, trial.seed)
        weighed, rows = _weighed_rows(trial, stage, method, splits, source)
        quality = diversity = None
        if stage.weighted:
            quality, diversity = (_scores(trial, checker, rows, store) for checker in (trial.quality, trial.diversity))
    with phases.phase("tokenize"):
        tokens = tokens_of(trial, source, store)
    needs = method.needs_with(method.settings)
    real = select(("real_small",), splits, trial.fraction, trial.seed) if "real" in needs else None
    method.prepare(SourceInfo(rows.labels, len(trial.task.labels), None if real is None else real.labels))
    read = None
    if real is not None and needs & {"gradients", "inner_training"}:  # others want its labels alone
        read = (real, tokens_of(trial, real, store))
    is_real = None
    if method.weighs_real_rows:
        is_real = np.concatenate(
            [np.full(len(select((n,), splits, trial.fraction, trial.seed)), n in REAL_SPLITS) for n in stage.splits]
        )
    return Inputs(source, tokens, quality, diversity, evaluation, read, weighed, is_real)


def _weighed_rows(
    trial: Trial, stage: TrialStage, method: AnyMethod, splits: dict[str, Split], source: Split
) -> tuple[IntArray | None, Split]:
    """Positions of the rows that the method weighs (None for all), and these rows."""
    names = weighed_splits(stage.splits)
    if method.weighs_real_rows or names == stage.splits:
        return None, source
    rows = select(names, splits, trial.fraction, trial.seed)
    positions = {id_: position for position, id_ in enumerate(source.ids)}
    return np.array([positions[id_] for id_ in rows.ids], dtype=np.int64), rows


def _weight_statistics(outcomes: list[Outcome]) -> dict[str, float]:
    """The last statistics of the method's weights, which a later stage without weights repeats."""
    last = outcomes[-1].history[-1] if outcomes else {}
    return {key: value for key, value in last.items() if key.startswith("weight_")}


def _all_weights(trial: Trial, splits: dict[str, Split], outcomes: list[Outcome]) -> FloatArray:
    """The weights of all rows of the source at every evaluation [evaluations, n]; NaN for rows of another stage."""
    if len(outcomes) == 1:
        return np.stack(outcomes[0].weights)
    source = training_rows(trial, splits)
    positions = {id_: position for position, id_ in enumerate(source.ids)}
    parts = []
    for stage, outcome in zip(trial.stages, outcomes, strict=True):
        rows = select(stage.splits, splits, trial.fraction, trial.seed)
        part = np.full((len(outcome.weights), len(source)), np.nan, dtype=np.float32)
        part[:, [positions[id_] for id_ in rows.ids]] = np.stack(outcome.weights)
        parts.append(part)
    return np.concatenate(parts)


def training_rows(trial: Trial, splits: dict[str, Split]) -> Split:
    """The rows of the trial's source."""
    return select(SOURCES[trial.source].splits, splits, trial.fraction, trial.seed)


def tokens_of(trial: Trial, split: Split, store: Store) -> Tokens:
    """The tokens of rows under the trial's encoder, from the store or made."""
    return tokenize(
        split, lambda: load_tokenizer(trial.encoder), trial.encoder_identity, trial.training.max_length, store
    )


def _scores(trial: Trial, checker: str | None, source: Split, store: Store) -> FloatArray | None:
    if checker is None:
        return None
    digests = {name: trial.task.digests[name] for name in SOURCES[trial.source].weighed}
    return load_scores(checker, digests, store).aligned(source)


def _reset(trial: Trial, workers: ProcessGroup) -> None:
    """Brings a process, new or reused, into the state in which every trial starts."""
    release_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(trial.threads)
    torch.manual_seed(0)
    reset_peak_memory(workers.device)
