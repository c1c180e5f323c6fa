"""The recorded tables, each with its file name, its columns, and how it is written and read.

Files written by earlier versions are still read: ``from_frame`` and ``from_bytes`` accept their columns.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.checkers.scores import scores_key
from harness.store import digest

#: Increment when the meaning of a file changes. Files without a version are version 1.
VERSION = 2
FloatArray = npt.NDArray[np.float64]
Classes = npt.NDArray[np.signedinteger[Any]]
#: The prediction where a language model's answer contained no label.
NO_PREDICTION = "(none)"


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A table as the bytes of a parquet file."""
    return frame.to_parquet(index=False)


def from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table in the bytes of a parquet file, or some of its columns."""
    return pd.read_parquet(io.BytesIO(content), columns=None if columns is None else list(columns))


def best_epoch(entries: Sequence[Mapping[str, float]]) -> int:
    """The number of the evaluation with the best validation accuracy, the first of ties; counts from 1."""
    return int(np.argmax([entry.get("validation_accuracy", 0.0) for entry in entries])) + 1


@dataclass(frozen=True)
class History:
    """The metrics of every evaluation of a trial, in order; ``epoch`` counts from 1."""

    FILE = "history.json"
    entries: list[dict[str, float]]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return json.dumps({"version": VERSION, "entries": self.entries}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> History:
        """Reads a file of this or an earlier version."""
        raw = json.loads(content)
        return cls(raw["entries"] if isinstance(raw, dict) else raw)

    def chosen(self, rule: str) -> dict[str, float]:
        """The evaluation that is a trial's result.

        Args:
            rule: ``last``, or any other value for the best on validation rows.
        """
        return self.entries[-1] if rule == "last" else self.entries[best_epoch(self.entries) - 1]


@dataclass(frozen=True)
class Predictions:
    """A trial's predictions of the test rows, at the last epoch and at the best on validation rows.

    Columns: ``id``, ``epoch``, ``label``, ``prediction``, and ``p_<label>`` for the probability of every label.
    """

    FILE = "predictions.parquet"
    CLASSES = ("id", "epoch", "label", "prediction")
    """The columns that ``class_indices`` reads."""
    frame: pd.DataFrame

    @classmethod
    def to_frame(
        cls, ids: Sequence[str], labels: Sequence[str], truth: npt.NDArray[np.int64],
        log_probs: Mapping[int, npt.NDArray[np.float32]],
    ) -> pd.DataFrame:  # fmt: skip
        """The table.

        Args:
            ids: of the n rows.
            labels: label names, in the order of the class indices.
            truth: class indices [n].
            log_probs: epoch -> log-probabilities [n, C]; NaN in a row without a prediction.
        """
        names, parts = np.array(labels), []
        for epoch, values in sorted(log_probs.items()):
            valid = ~np.isnan(values).any(axis=1)
            predictions = np.where(valid, names[values.argmax(axis=1)], NO_PREDICTION)
            columns = {"id": ids, "epoch": epoch, "label": names[truth], "prediction": predictions}
            columns |= {f"p_{name}": np.exp(values[:, k]) for k, name in enumerate(labels)}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Predictions:
        """Wraps the table of a file."""
        return cls(frame)

    def last(self, labels: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
        """Ids and log-probabilities [n, C] of the last epoch."""
        rows = self.frame[self.frame["epoch"] == self.frame["epoch"].max()]
        with np.errstate(divide="ignore"):
            return tuple(rows["id"]), np.log(rows[[f"p_{label}" for label in labels]].to_numpy(np.float64))

    def class_indices(self, epoch: int, labels: Sequence[str]) -> tuple[tuple[str, ...], Classes, Classes]:
        """Ids, true and predicted class indices of an epoch, -1 for a row without a prediction.

        Indices are int8 for up to 127 labels, else int16. All three are empty if the epoch was not recorded.
        """
        rows = self.frame[self.frame["epoch"] == epoch]
        index = pd.Index(labels)
        dtype: type[np.signedinteger[Any]] = np.int8 if len(labels) <= 127 else np.int16
        truth, predicted = (np.asarray(index.get_indexer(pd.Index(rows[name])), dtype) for name in self.CLASSES[2:])
        return tuple(rows["id"].tolist()), truth, predicted


@dataclass(frozen=True)
class Weights:
    """The weights of the rows that a method weighs, of every evaluation.

    Columns: ``id``, ``label``, ``corruption`` ("" for a clean row), and ``weight_<k>`` for every evaluation, NaN
    where a row was not trained on since the one before.
    """

    FILE = "weights.parquet"
    frame: pd.DataFrame
    texts: pd.Series[str] | None = None
    """In files of version 1."""

    @classmethod
    def to_frame(
        cls, ids: Sequence[str], labels: Sequence[str], corruptions: Sequence[str] | None,
        weights: npt.NDArray[np.float32],
    ) -> pd.DataFrame:  # fmt: skip
        """The table.

        Args:
            ids: of the n rows.
            labels: their label names.
            corruptions: the corruption of each row, "" for a clean one; None if all are clean.
            weights: [evaluations, n].
        """
        columns: dict[str, Any] = {"id": ids, "label": labels, "corruption": corruptions or [""] * len(ids)}
        return pd.DataFrame(columns | {f"weight_{k + 1}": weights[k] for k in range(len(weights))})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Weights:
        """Reads the table of a file; version 1 has texts in it (see ``harness.ledger.legacy`` for its corruptions)."""
        texts = None
        if "text" in frame:
            texts = frame["text"] if "pair" not in frame else frame["text"] + "  //  " + frame["pair"]
            frame = frame.drop(columns=["text", "pair"], errors="ignore")
        return cls(frame, texts)

    def summary(self) -> pd.DataFrame:
        """``id``, ``label``, ``corruption``, ``weight`` and ``mean_weight`` (over all evaluations).

        ``weight`` is that of the last evaluation of the first stage: later stages train on other rows.
        """
        every = self.frame.filter(regex=r"^weight_\d+$")
        first = every[every.iloc[:, 0].notna()]
        last = [column for column in every if first[column].notna().any()][-1]
        return self.frame[["id", "label", "corruption"]].assign(weight=every[last], mean_weight=every.mean(axis=1))


@dataclass(frozen=True)
class Scores:
    """A checker's log-probabilities of rows. Columns: ``id`` and ``log_p_<label>`` for every label."""

    frame: pd.DataFrame

    @staticmethod
    def file(checker: str, digests: Mapping[str, str]) -> str:
        """The file name: the key of the scores, as in the store."""
        return f"scores_{scores_key(checker, digests)[:16]}.parquet"

    @staticmethod
    def file_version_1(source: str, digests: Mapping[str, str]) -> str:
        """The file name in ledgers of version 1."""
        return f"scores_{source}_{digest(dict(digests))[:8]}.parquet"

    @classmethod
    def to_frame(cls, ids: Sequence[str], labels: Sequence[str], log_probs: npt.NDArray[np.float32]) -> pd.DataFrame:
        """The table of log-probabilities [n, C]."""
        return pd.DataFrame({"id": ids} | {f"log_p_{name}": log_probs[:, k] for k, name in enumerate(labels)})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Scores:
        """Wraps the table of a file."""
        return cls(frame)

    def log_probs(self, labels: Sequence[str]) -> tuple[tuple[str, ...], FloatArray]:
        """Ids and log-probabilities [n, C]."""
        return tuple(self.frame["id"]), self.frame[[f"log_p_{label}" for label in labels]].to_numpy(np.float64)


@dataclass(frozen=True)
class Texts:
    """The texts of a benchmark's training rows. Columns: ``id``, ``text``; a pair is joined to one text."""

    @staticmethod
    def file(benchmark: str) -> str:
        """The file name."""
        return f"texts_{benchmark}.parquet"

    @classmethod
    def to_frame(cls, ids: Sequence[str], texts: Sequence[str], pairs: Sequence[str] | None) -> pd.DataFrame:
        """The table."""
        joined_texts = texts if pairs is None else [f"{a}  //  {b}" for a, b in zip(texts, pairs, strict=True)]
        return pd.DataFrame({"id": ids, "text": joined_texts})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> dict[str, str]:
        """Id -> text."""
        return dict(zip(frame["id"], frame["text"], strict=True))


@dataclass(frozen=True)
class PlannedTrial:
    """A trial as a report needs it; see ``harness.planning.trials.Job``."""

    trial: str
    benchmark: str
    source: str
    method: str
    label: str
    seed: int
    fraction: float | None
    variants: list[str]
    requested: bool
    quality_checker: str | None
    diversity_checker: str | None
    threads: int
    diversity_folds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlanRecord:
    """The plan of an experiment, as a report needs it.

    Attributes:
        name: of the experiment.
        settings: the experiment, resolved, without its benchmarks.
        benchmarks: name -> ``labels`` and ``splits``, a list of ``split``, ``rows``, ``digest``, ``counts`` by label.
        sources: name -> ``title``, ``role``, ``splits``, ``weighed``.
        trials: every planned trial.
        version: of this schema.
    """

    FILE = "plan.json"
    name: str
    settings: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    trials: list[PlannedTrial] = field(default_factory=list)
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """The content of the file."""
        content = {**vars(self), "trials": [vars(trial) for trial in self.trials]}
        return json.dumps(content, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> PlanRecord:
        """Reads the file."""
        raw = json.loads(content)
        return cls(**{**raw, "trials": [PlannedTrial(**trial) for trial in raw["trials"]]})

    def weighed_digests(self, trial: PlannedTrial) -> dict[str, str]:
        """split -> digest of the splits whose rows the trial's method weighs."""
        digests = {row["split"]: row["digest"] for row in self.benchmarks[trial.benchmark]["splits"]}
        return {name: digests[name] for name in self.sources[trial.source]["weighed"]}

    def scores_file(self, checker: str, trial: PlannedTrial) -> str:
        """The file name of a checker's scores for the rows that a trial weighs."""
        digests = self.weighed_digests(trial)
        return Scores.file_version_1(trial.source, digests) if self.version < 2 else Scores.file(checker, digests)
