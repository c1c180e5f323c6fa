"""Runs a trial from its specification to its stored result, without Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.checkers.scores import Scores, join, load_scores, save_scores, scores_exist
from harness.checkers.temperature import calibrated, fit_temperature
from harness.config.sources import REAL_SPLITS, SOURCES, weighed_splits
from harness.data.selection import select, select_scored
from harness.data.split import IntArray, Split
from harness.data.split_files import load_split
from harness.data.tokens import Tokens, tokenize
from harness.errors import TrialError, UserError
from harness.methods import AnyMethod, AnyPredictor, Predictor, SourceInfo, make_method
from harness.methods.ce import CrossEntropy
from harness.phases import Phase
from harness.planning.trials import ROLES, Job, Role, Trial, TrialStage
from harness.seeds import derive
from harness.store import Store
from harness.training.checkpoint import CheckpointError, Saved, TrialCheckpoint, read, remove, warn
from harness.training.classifier import load_tokenizer, make_classifier
from harness.training.embeddings import embed
from harness.training.evaluation import FloatArray, label_metrics, predict
from harness.training.inner_training import InnerTrainingRun
from harness.training.kept_model import check, is_kept, keep
from harness.training.loop import Inputs, Loop, LoopCheckpoint, Outcome, Report
from harness.training.memory import peak_memory_mb, release_memory, reset_peak_memory
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.trial_result import TrialResult, environment, load_result, save_result
from harness.training.turn import turn
from harness.training.vocabulary import TrimmedVocabulary
from harness.training.weights import STATISTICS

EVALUATED = ("validation", "test")


def run(job: Job, store: Store, report: Report) -> TrialResult:
    """Runs a trial, or returns its stored result; waits for it while another worker is training the same trial.

    Every process of a group calls this, and each calls ``report``; the first one writes to the store.

    Args:
        job: the trial, and what it scores as a checker.
        store: has the splits and the scores of the checkers; takes the result.
        report: called with the metrics of every evaluation.

    Raises:
        TrialError: a loss or weight that is not finite, or missing scores.
        StoreError: the store cannot be read or written.
    """
    group = ProcessGroup.here(job.trial.device)
    with turn(job.trial.id, lambda: _stored(job, store), store, group) as stored:
        if stored is None:
            return _compute(job, store, report, group)
    if group.first:
        _calibrate(job, stored, store)
    for entry in stored.history:
        report(entry)
    return stored


def _stored(job: Job, store: Store) -> TrialResult | None:
    """The stored result of a trial; None also if scores or a model are missing that it has to store beside it."""
    complete = scores_exist(job.trial.id, job.scores.values(), store)
    if not (store.has("trials", job.trial.id) and complete) or (job.keep_model and not is_kept(job.trial, store)):
        return None
    return load_result(job.trial, store)


def _compute(job: Job, store: Store, report: Report, group: ProcessGroup) -> TrialResult:
    """Computes a trial's result and stores it."""
    _reset(job.trial, group)
    method = make_method(job.trial.method)
    if isinstance(method, Predictor):
        result = _predict(job.trial, method, store, report, group)
    else:
        result = _train(job, method, store, report, group)
    if group.first:
        _calibrate(job, result, store)
        save_result(job.trial, result, store)
        if job.resources.checkpoint:
            remove(job.trial, store)
    return result


def _predict(trial: Trial, method: AnyPredictor, store: Store, report: Report, group: ProcessGroup) -> TrialResult:
    """Classifies the test rows without training."""
    timer = PhaseTimer(group.device)
    with timer.phase(Phase.LOAD):
        splits = {name: load_split(digest, store) for name, digest in trial.task.digests.items()}
        examples = training_rows(trial, splits)
    task, test = trial.task, splits["test"]
    prompt = task.prompt
    assert prompt is not None, "planning gives a prompt to every trial that does not train"
    try:
        classified = method.predict(test, examples, prompt, trial.seed, store.folder("answers"))
    except UserError as error:  # a missing key or a server that refuses; the message says what to do
        raise TrialError(str(error)) from None
    timer.seconds[Phase.CLASSIFY] = classified.seconds
    entry = {"epoch": 1.0, "step": 0.0} | label_metrics(classified.labels, test.labels, len(task.labels), "test")
    report(entry)
    runtime = timer.runtime() | classified.costs | peak_memory_mb(group.device)
    log_probs = np.where(classified.labels[:, None] < 0, np.nan, one_hot(classified.labels, len(task.labels)))
    return TrialResult([entry], runtime, environment(group), {"test": log_probs.astype(np.float32)[None]})


def one_hot(labels: IntArray, classes: int) -> FloatArray:
    """Log-probabilities of certain labels, float32 [n, classes]: 0 for the label, -inf for the others."""
    out: FloatArray = np.where(labels[:, None] == np.arange(classes), np.float32(0.0), np.float32(-np.inf))
    return out


def _train(job: Job, method: AnyMethod, store: Store, report: Report, group: ProcessGroup) -> TrialResult:
    """Trains from the trial's checkpoint, if there is one that can be used, else from the start."""
    saved = read(job.trial, store, group) if job.resources.checkpoint else None
    try:
        return _fine_tune(job, method, store, report, group, saved)
    except CheckpointError as error:
        warn(job.trial, error)
        _reset(job.trial, group)
        return _fine_tune(job, make_method(job.trial.method), store, report, group, None)


def _fine_tune(
    job: Job, method: AnyMethod, store: Store, report: Report, group: ProcessGroup, saved: Saved | None
) -> TrialResult:
    trial = job.trial
    if job.keep_model:
        check(trial)
    timer = PhaseTimer(group.device)
    checkpoint = TrialCheckpoint(job, method, store, group, timer, saved)
    with timer.phase(Phase.LOAD):
        splits = {name: load_split(digest, store) for name, digest in trial.task.digests.items()}
        model = make_classifier(trial.encoder, len(trial.task.labels), trial.seed, trial.training)
        model.to(group.device)
    with timer.phase(Phase.TOKENIZE):
        vocabulary = _vocabulary(trial, model, method, splits, store)
        tokens = Tokenizer(trial, store, vocabulary)
        evaluation = {name: (splits[name], tokens(splits[name])) for name in EVALUATED}
    outcomes: list[Outcome] = []
    for number, stage in enumerate(trial.stages):
        stage_method = method if stage.weighted else CrossEntropy()
        inputs = _inputs(trial, stage, stage_method, splits, evaluation, tokens, store, timer)
        outcome = checkpoint.finished(number)
        if outcome is None:
            kept = checkpoint.of_stage(number, outcomes)
            outcome = _run_stage(trial, number, model, stage_method, inputs, outcomes, report, group, timer, kept)
        else:
            for entry in outcome.history:
                report(entry)
        outcomes.append(outcome)
    for digests in job.scores.values():
        with timer.phase(Phase.SCORE):
            _score(trial, model, vocabulary, outcomes, digests, store, group)
    if job.keep_model and group.first:
        keep(trial, model, store)
    rows_trained = sum(outcome.rows_trained for outcome in outcomes)
    runtime = timer.runtime()
    runtime |= {"rows_per_second": rows_trained / timer.seconds[Phase.TRAIN]} | peak_memory_mb(group.device)
    runtime |= _temperatures(trial, store) | checkpoint.runtime()
    runtime |= {f"diagnostic_{key}": value for key, value in method.diagnostics().items()}
    arrays = {name: np.stack([v for o in outcomes for v in o.predictions[name]]) for name in evaluation}
    arrays["weights"] = _all_weights(trial, splits, outcomes)
    history = [entry for outcome in outcomes for entry in outcome.history]
    return TrialResult(history, runtime, environment(group), arrays)


def _run_stage(
    trial: Trial, number: int, model: nn.Module, method: AnyMethod, inputs: Inputs, earlier: list[Outcome],
    report: Report, group: ProcessGroup, timer: PhaseTimer, checkpoint: LoopCheckpoint,
) -> Outcome:  # fmt: skip
    """Trains the model on one stage, with a new optimizer and schedule.

    Epochs and steps are numbered from the end of the ``earlier`` stages. A stage without weights repeats the weight
    statistics of the stage before it.
    """
    stage = trial.stages[number]
    seed = trial.seed if number == 0 else derive(trial.seed, "stage", number)
    if "inner_training" in method.needs and not checkpoint.exists:
        with timer.phase(Phase.OUTER_ROUNDS), InnerTrainingRun(model, inputs, stage.training, seed, group) as inner:
            method.learn_weights(inner)
    before = sum(len(outcome.history) for outcome in earlier), int(earlier[-1].history[-1]["step"]) if earlier else 0
    statistics = {} if stage.weighted else _weight_statistics(earlier)
    loop = Loop(model, method, inputs, stage.training, seed, group, timer, before)
    outcome = loop.run(lambda entry: report(entry | statistics), checkpoint)
    outcome.history = [entry | statistics for entry in outcome.history]
    return outcome


def _score(
    trial: Trial, model: nn.Module, vocabulary: TrimmedVocabulary | None, outcomes: list[Outcome],
    digests: dict[str, str], store: Store, group: ProcessGroup,
) -> None:  # fmt: skip
    """Stores the model's log-probabilities for the rows of these splits."""
    splits = {name: load_split(digest, store) for name, digest in digests.items()}
    rows = select_scored(tuple(digests), splits, trial.fraction, trial.seed, trial.fold)
    tokens = tokens_of(trial, rows, store)
    if vocabulary is not None:
        trainings = [(stage.training, outcome.steps) for stage, outcome in zip(trial.stages, outcomes, strict=True)]
        tokens = vocabulary.extend(tokens, trainings)
    size, precision = trial.training.evaluation_batch_size, trial.training.precision
    log_probs = predict(model, tokens, len(trial.task.labels), size, precision, group)
    if group.first:
        save_scores(Scores(trial.id, rows.ids, log_probs), digests, store)


def _calibrate(job: Job, result: TrialResult, store: Store) -> None:
    """Stores calibrated scores where they are wanted and missing: no training or forward pass is needed for them."""
    trial = job.trial
    missing = [d for d in job.calibrated_scores if not scores_exist(trial.id, (), store, [d])]
    if not missing:
        return
    validation = load_split(trial.task.digests["validation"], store)
    temperature = fit_temperature(result.arrays["validation"][-1], validation.labels)
    for digests in missing:
        scores = load_scores(trial.id, digests, store)
        values = calibrated(scores.log_probabilities, temperature).astype(np.float32)
        save_scores(replace(scores, log_probabilities=values, temperature=temperature), digests, store)


def _inputs(
    trial: Trial, stage: TrialStage, method: AnyMethod, splits: dict[str, Split],
    evaluation: dict[str, tuple[Split, Tokens]], tokens_of_rows: Tokenizer, store: Store, timer: PhaseTimer,
) -> Inputs:  # fmt: skip
    """The rows of a stage with the data that its method needs. Calls ``method.prepare``."""
    with timer.phase(Phase.LOAD):
        source = select(stage.splits, splits, trial.fraction, trial.seed, trial.fold)
        weighed, rows = _weighed_rows(trial, stage, splits, source)
        quality = diversity = None
        if stage.weighted:
            quality, diversity = (_aligned(_scores(trial, role, store), rows) for role in ROLES)
    with timer.phase(Phase.TOKENIZE):
        tokens = tokens_of_rows(source)
    is_real = None
    if method.weighs_real_rows:
        is_real = _is_real(trial, stage, splits)
        if weighed is not None:
            quality, diversity = (_spread(scores, weighed, len(source)) for scores in (quality, diversity))
            weighed, rows = None, source
    needs = method.needs_with(method.settings)
    real = select(("real_small",), splits, trial.fraction, trial.seed) if "real" in needs else None
    real_labels, embeddings = None if real is None else real.labels, None
    if "embeddings" in needs:
        assert real is not None, "methods that need embeddings need real rows too"
        with timer.phase(Phase.EMBED):
            names = weighed_splits(stage.splits)
            embeddings = (
                _embeddings(trial, names, rows, splits, store, timer.device),
                _embeddings(trial, ("real_small",), real, splits, store, timer.device),
            )
    info = SourceInfo(
        rows.labels, len(trial.task.labels), real_labels, is_real, diversity, embeddings, seed=trial.seed
    )  # fmt: skip
    method.prepare(info)
    real_inputs = None
    if real is not None and needs & {"gradients", "inner_training"}:  # other methods only use the labels
        real_inputs = (real, tokens_of_rows(real))
    return Inputs(source, tokens, quality, diversity, evaluation, real_inputs, weighed, is_real)


def _embeddings(
    trial: Trial, names: tuple[str, ...], rows: Split, splits: dict[str, Split], store: Store, device: torch.device
) -> FloatArray:
    """The embeddings of some rows of the named splits, float32 [n, D]; those of whole splits are stored."""
    parts = [embed(trial, splits[name], tokens_of(trial, splits[name], store), store, device) for name in names]
    position = {id_: number for number, id_ in enumerate(id_ for name in names for id_ in splits[name].ids)}
    out: FloatArray = np.concatenate(parts)[[position[id_] for id_ in rows.ids]]
    return out


def _weighed_rows(
    trial: Trial, stage: TrialStage, splits: dict[str, Split], source: Split
) -> tuple[IntArray | None, Split]:
    """Positions in the stage of the rows beside which real rows keep weight 1 (None for all), and these rows."""
    names = weighed_splits(stage.splits)
    if names == stage.splits:
        return None, source
    rows = select(names, splits, trial.fraction, trial.seed)
    positions = {id_: position for position, id_ in enumerate(source.ids)}
    return np.array([positions[id_] for id_ in rows.ids], dtype=np.int64), rows


def _is_real(trial: Trial, stage: TrialStage, splits: dict[str, Split]) -> npt.NDArray[np.bool_]:
    """Which rows of a stage are real [n]."""
    sizes = {name: len(select((name,), splits, trial.fraction, trial.seed)) for name in stage.splits}
    return np.concatenate([np.full(size, name in REAL_SPLITS) for name, size in sizes.items()])


def _spread(scores: FloatArray | None, positions: IntArray, rows: int) -> FloatArray | None:
    """Scores [m, C] at their positions among ``rows`` rows, NaN for the others [rows, C]."""
    if scores is None:
        return None
    out: FloatArray = np.full((rows, scores.shape[1]), np.nan, dtype=np.float32)
    out[positions] = scores
    return out


def _weight_statistics(outcomes: list[Outcome]) -> dict[str, float]:
    """The weight statistics of the last evaluation."""
    last = outcomes[-1].history[-1] if outcomes else {}
    return {key: last[key] for key in STATISTICS if key in last}


def _all_weights(trial: Trial, splits: dict[str, Split], outcomes: list[Outcome]) -> FloatArray:
    """Weights of all rows of the source, float32 [evaluations, n]; NaN for rows that are not in the stage."""
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
    return select(SOURCES[trial.source].splits, splits, trial.fraction, trial.seed, trial.fold)


def _vocabulary(
    trial: Trial, model: nn.Module, method: AnyMethod, splits: dict[str, Split], store: Store
) -> TrimmedVocabulary | None:
    """The vocabulary of all rows that the trial trains and evaluates on; None to keep that of the encoder."""
    if trial.training.vocabulary == "full":
        return None
    rows = [training_rows(trial, splits), *(splits[name] for name in EVALUATED)]
    if method.needs_with(method.settings) & {"gradients", "inner_training"} and "real_small" in splits:
        rows.append(select(("real_small",), splits, trial.fraction, trial.seed))
    return TrimmedVocabulary(model, [tokens_of(trial, part, store) for part in rows])


@dataclass(frozen=True)
class Tokenizer:
    """The tokens of a trial's rows, by the numbers of its vocabulary."""

    trial: Trial
    store: Store
    vocabulary: TrimmedVocabulary | None

    def __call__(self, rows: Split) -> Tokens:
        tokens = tokens_of(self.trial, rows, self.store)
        return tokens if self.vocabulary is None else self.vocabulary.renumber(tokens)


def tokens_of(trial: Trial, split: Split, store: Store) -> Tokens:
    """The tokens of rows for the trial's encoder, from the store if they are there."""
    return tokenize(
        split, lambda: load_tokenizer(trial.encoder), trial.encoder_identity, trial.training.max_length, store
    )


def _scores(trial: Trial, role: Role, store: Store) -> list[Scores]:
    """The scores of the rows that are weighed, of each checker in a role."""
    digests = {name: trial.task.digests[name] for name in SOURCES[trial.source].weighed}
    checkers = trial.checkers_of(role)
    return [load_scores(checker, digests, store, role in trial.calibrated) for checker in checkers]


def _aligned(scores: list[Scores], rows: Split) -> FloatArray | None:
    """The log-probabilities of these rows, float32 [m, C]; None without a checker."""
    return join(scores).aligned(rows) if scores else None


def _temperatures(trial: Trial, store: Store) -> dict[str, float]:
    """The temperatures of the calibrated scores that a trial uses, the mean over several checkers."""
    parts = {role: _scores(trial, role, store) for role in trial.calibrated}
    return {
        f"{role}_temperature": float(np.mean([part.temperature or np.nan for part in scores]))
        for role, scores in parts.items()
    }


def _reset(trial: Trial, group: ProcessGroup) -> None:
    """Brings a new or reused process into the initial state of every trial."""
    release_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(trial.threads)
    torch.manual_seed(0)
    reset_peak_memory(group.device)
