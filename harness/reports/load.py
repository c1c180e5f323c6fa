"""From the ledger to tidy frames. Nothing else is read: no data, no encoder, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.data.distributions import distance
from harness.ledger.artifacts import (
    History,
    PlannedTrial,
    PlanRecord,
    Predictions,
    Scores,
    Texts,
    Weights,
    from_parquet,
)
from harness.ledger.entries import Entry, Reader
from harness.ledger.legacy import upgrade_experiment, upgrade_weights
from harness.reports.resampling import TestPredictions
from harness.reports.results import DIAGNOSTIC, RESUMED, TEMPERATURES, Results
from harness.reports.state import find_parent, read_plan, state_key

STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "interrupted"}
IDENTITY = ("trial", "benchmark", "source", "method", "seed", "fraction", "variant")
RUNTIME = ("peak_memory_mb", "peak_gpu_memory_mb", "rows_per_second", RESUMED)
PREFIXES = ("seconds_", "llm_", DIAGNOSTIC)
WEIGHT_COLUMNS = [*IDENTITY, "id", "label", "corruption", "text", "weight", "mean_weight", "quality", "diversity"]
#: Columns of earlier versions.
RENAMED = {"seconds_tokenise": "seconds_tokenize"}


def load(name: str, reader: Reader, entries: Mapping[str, Entry] | None = None) -> Results:
    """The results of an experiment; every planned trial has its row, done or not.

    Args:
        name: of the experiment.
        reader: of the ledger.
        entries: those of all trials, where they have been read.

    Raises:
        UserError: the ledger has no run of the experiment.
    """
    loader, parent = _open(name, reader, entries)
    return loader.results(parent)


def load_metrics(name: str, reader: Reader, entries: Mapping[str, Entry] | None = None) -> Results | None:
    """The results of an experiment from the metrics of its trials alone: no artifact of a trial is read.

    They lack epochs, weights, distances and predictions. None if the last evaluation is not a trial's result.

    Args:
        name: of the experiment.
        reader: of the ledger.
        entries: those of all trials, where they have been read.

    Raises:
        UserError: the ledger has no run of the experiment.
    """
    loader, parent = _open(name, reader, entries)
    return loader.metrics(parent) if loader.rule == "last" else None


def load_scores(name: str, reader: Reader) -> Results:
    """The trials of an experiment and their predictions: epochs, weights, texts and scores of checkers are not read.

    Raises:
        UserError: the ledger has no run of the experiment.
    """
    loader, parent = _open(name, reader)
    return loader.scores(parent)


def _open(name: str, reader: Reader, entries: Mapping[str, Entry] | None = None) -> tuple[_Loader, Entry]:
    parent = find_parent(name, reader)
    entries = reader.trials() if entries is None else entries
    return _Loader(read_plan(name, parent, entries, reader), entries, reader), parent


class _Loader:
    """Reads each artifact once."""

    def __init__(self, plan: PlanRecord, entries: Mapping[str, Entry], reader: Reader) -> None:
        self.plan, self.entries, self.reader = plan, entries, reader
        self.rule = plan.settings.get("report", {}).get("epoch", "last")
        self._texts: dict[str, dict[str, str]] = {}
        self._distances: dict[tuple[str, str, str], dict[str, float] | None] = {}
        self._test_ids: dict[str, tuple[str, ...]] = {}
        self._predictions: dict[str, TestPredictions] = {}

    def results(self, parent: Entry) -> Results:
        self._read_texts(parent)
        self._fetch(Predictions.FILE, Weights.FILE)
        trials: list[dict[str, Any]] = []
        epochs: list[dict[str, Any]] = []
        weights: list[pd.DataFrame] = []
        distances: list[dict[str, Any]] = []
        for trial in self.plan.trials:
            entry = self.entries.get(trial.trial)
            history = self._history(entry)
            if history is not None and trial.requested:
                self._read_predictions(trial, entry, int(history.chosen(self.rule)["epoch"]))
            for variant in trial.variants or [""]:
                identity = _identity(trial, variant)
                trials.append(identity | self._row(trial, entry, history))
                if history is None or entry is None:
                    continue
                epochs += [identity | {"epoch": int(point["epoch"])} | _metrics(point) for point in history.entries]
                if trial.requested:
                    weights += self._weights(trial, identity, entry)
                measures = self._distance(trial)
                if measures:
                    distances.append({k: v for k, v in identity.items() if k not in ("trial", "method")} | measures)
        return Results(
            pd.DataFrame(trials),
            pd.DataFrame(epochs) if epochs else pd.DataFrame(columns=[*IDENTITY, "epoch"]),
            pd.concat(weights, ignore_index=True) if weights else pd.DataFrame(columns=WEIGHT_COLUMNS),
            self._meta(parent) | {"key": state_key(parent, self.plan, self.entries)},
            pd.DataFrame(distances).drop_duplicates() if distances else pd.DataFrame(),
            self._predictions,
        )

    def scores(self, parent: Entry) -> Results:
        self._fetch(Predictions.FILE)
        rows = []
        for trial in self.plan.trials:
            entry = self.entries.get(trial.trial)
            history = self._history(entry)
            if history is not None and trial.requested:
                self._read_predictions(trial, entry, int(history.chosen(self.rule)["epoch"]))
            row = self._row(trial, entry, history)
            rows += [_identity(trial, variant) | row for variant in trial.variants or [""]]
        return self._of_trials(rows, parent)

    def metrics(self, parent: Entry) -> Results:
        rows = []
        for trial in self.plan.trials:
            entry = self.entries.get(trial.trial)
            done = entry is not None and entry.status == "FINISHED"
            history = History([{**entry.metrics, "epoch": float(entry.epoch)}]) if entry is not None and done else None
            row = self._row(trial, entry, history)
            rows += [_identity(trial, variant) | row for variant in trial.variants or [""]]
        return self._of_trials(rows, parent)

    def _of_trials(self, rows: list[dict[str, Any]], parent: Entry) -> Results:
        return Results(
            pd.DataFrame(rows), pd.DataFrame(columns=[*IDENTITY, "epoch"]), pd.DataFrame(columns=WEIGHT_COLUMNS),
            self._meta(parent), predictions=self._predictions,
        )  # fmt: skip

    def _history(self, entry: Entry | None) -> History | None:
        content = self._artifact(entry, History.FILE)
        return History.from_bytes(content) if content else None

    def _fetch(self, *files: str) -> None:
        """Gets the history of every finished trial, and the given files of those in the grid."""
        pairs = [(trial, self.entries.get(trial.trial)) for trial in self.plan.trials]
        self.reader.fetch(
            (entry, file)
            for trial, entry in pairs if entry is not None and entry.status == "FINISHED"
            for file in (History.FILE, *(files if trial.requested else ()))
        )  # fmt: skip

    def _artifact(self, entry: Entry | None, file: str) -> bytes | None:
        return self.reader.artifact(entry, file) if entry is not None and entry.status == "FINISHED" else None

    def _row(self, trial: PlannedTrial, entry: Entry | None, history: History | None) -> dict[str, Any]:
        status = "missing" if entry is None else STATUS.get(entry.status, "missing")
        if status == "finished" and history is None:
            status = "missing"  # its artifact is gone
        row: dict[str, Any] = {
            "status": status, "error": "" if entry is None or status == "finished" else entry.error,
            "requested": trial.requested, "quality_checker": trial.quality_checker,
            "diversity_checker": trial.diversity_checker, "diversity_folds": tuple(trial.diversity_folds), "device": "",
            "threads": trial.threads,
        }  # fmt: skip
        if history is None or entry is None:
            return row
        chosen = history.chosen(self.rule)
        metrics = {RENAMED.get(key, key): value for key, value in entry.metrics.items()}
        runtime = {k: v for k, v in metrics.items() if k.startswith(PREFIXES) or k in (*RUNTIME, *TEMPERATURES)}
        device = {"device": entry.tags.get("env.device", "")}
        return row | {"epoch": int(chosen["epoch"])} | _metrics(chosen) | runtime | device

    def _read_texts(self, parent: Entry) -> None:
        for name in self.plan.benchmarks:
            content = self.reader.artifact(parent, Texts.file(name))
            self._texts[name] = Texts.from_frame(from_parquet(content)) if content else {}

    def _read_predictions(self, trial: PlannedTrial, entry: Entry | None, epoch: int) -> None:
        """Adds a trial's predictions; without an artifact, or with other test rows than the first trial, none."""
        content = self._artifact(entry, Predictions.FILE)
        if content is None:
            return
        labels = self.plan.benchmarks[trial.benchmark]["labels"]
        frame = from_parquet(content, Predictions.CLASSES)
        ids, truth, predicted = Predictions.from_frame(frame).class_indices(epoch, labels)
        if not ids or ids != self._test_ids.setdefault(trial.benchmark, ids):
            return
        benchmark = self._predictions.setdefault(trial.benchmark, TestPredictions(truth, len(labels), {}, ids))
        benchmark.predicted[trial.trial] = predicted

    def _weights(self, trial: PlannedTrial, identity: dict[str, Any], entry: Entry) -> list[pd.DataFrame]:
        content = self._artifact(entry, Weights.FILE)
        if content is None:
            return []
        weights = Weights.from_frame(upgrade_weights(from_parquet(content)))
        rows = weights.summary()
        texts = rows["id"].map(self._texts[trial.benchmark]) if weights.texts is None else weights.texts
        if (rows["corruption"] != "").any():
            rows = rows.assign(
                quality=self._label_scores(trial, trial.quality_checker, rows),
                diversity=self._label_scores(trial, trial.diversity_checker, rows),
            )
        return [rows.assign(text=texts, **identity)]

    def _label_scores(self, trial: PlannedTrial, checker: str | None, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """A checker's probability of the label of every row [n]; NaN where it is not known."""
        labels = self.plan.benchmarks[trial.benchmark]["labels"]
        content = self._artifact(self.entries.get(checker or ""), self.plan.scores_file(checker or "", trial))
        if content is None:
            return np.full(len(rows), np.nan)
        ids, log_probs = Scores.from_frame(from_parquet(content)).log_probs(labels)
        scored = pd.DataFrame(np.exp(log_probs), index=list(ids), columns=labels).reindex(rows["id"])
        columns = [labels.index(label) for label in rows["label"]]
        probabilities: npt.NDArray[np.float64] = scored.to_numpy()[np.arange(len(rows)), columns]
        return probabilities

    def _distance(self, trial: PlannedTrial) -> dict[str, float] | None:
        """How far real and generated labels are apart as the trial's two checkers see them, on test and source rows."""
        if not trial.quality_checker or not trial.diversity_checker:
            return None
        key = (trial.quality_checker, trial.diversity_checker, trial.source)
        if key not in self._distances:
            self._distances[key] = self._measure(trial)
        return self._distances[key]

    def _measure(self, trial: PlannedTrial) -> dict[str, float] | None:
        labels = self.plan.benchmarks[trial.benchmark]["labels"]
        tested, scored = [], []
        for checker in (trial.quality_checker, trial.diversity_checker):
            entry = self.entries.get(checker or "")
            predictions = self._artifact(entry, Predictions.FILE)
            scores = self._artifact(entry, self.plan.scores_file(checker or "", trial))
            if predictions is None or scores is None:
                return None
            tested.append(Predictions.from_frame(from_parquet(predictions)).last(labels))
            scored.append(Scores.from_frame(from_parquet(scores)).log_probs(labels))
        if tested[0][0] != tested[1][0] or scored[0][0] != scored[1][0]:
            return None  # not the same rows: nothing to compare
        return asdict(distance(tested[0][1], tested[1][1], scored[0][1], scored[1][1]))

    def _meta(self, parent: Entry) -> dict[str, Any]:
        tags, settings = parent.tags, self.plan.settings
        experiment = self.reader.artifact(parent, "experiment.yaml") or b""
        return {
            "name": self.plan.name,
            "description": settings.get("description", ""),
            "command": tags.get("command", ""),
            "commit": tags.get("commit", ""),
            "dirty": tags.get("dirty") == "true",
            "started": pd.Timestamp(parent.started, unit="ms").strftime("%Y-%m-%d %H:%M UTC"),
            "versions": {k.removeprefix("version."): v for k, v in tags.items() if k.startswith("version.")},
            "hardware": tags.get("hardware", ""),
            "settings": settings,
            "sources": self.plan.sources,
            "splits": {name: benchmark["splits"] for name, benchmark in self.plan.benchmarks.items()},
            "driver_peak_memory_mb": parent.metrics.get("driver_peak_memory_mb"),
            "wall_seconds": parent.metrics.get("wall_seconds"),
            "epoch_rule": self.rule,
            "experiment": self._experiment(experiment),
        }

    def _experiment(self, content: bytes) -> str:
        """The experiment's file, as today's version reads it."""
        if self.plan.version >= 2 or not content:
            return content.decode()
        import yaml

        upgraded = upgrade_experiment(yaml.safe_load(content))
        return str(yaml.safe_dump(upgraded, sort_keys=False, allow_unicode=True))


def _identity(trial: PlannedTrial, variant: str) -> dict[str, Any]:
    fraction = np.nan if trial.fraction is None else trial.fraction
    values = (trial.trial, trial.benchmark, trial.source, trial.label, trial.seed, fraction, variant)
    return dict(zip(IDENTITY, values, strict=True))


def _metrics(point: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in point.items() if key not in ("epoch", "step")}
