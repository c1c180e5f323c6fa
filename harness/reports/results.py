"""What a report is made from: plain frames, whatever ledger they were read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.config.sources import SOURCES
from harness.metrics import METRICS
from harness.reports.resampling import ResampledScores, TestPredictions

OUTCOMES = (
    "epoch",
    "train_loss",
    *(metric.column(split) for split in ("validation", "test") for metric in METRICS.values()),
)
WEIGHT_STATISTICS = ("weight_mean", "weight_min", "weight_max", "weight_clipped", "weight_ess")
LANGUAGE_MODEL = ("llm_calls", "llm_unparsable", "llm_tokens_in", "llm_tokens_out", "llm_cost", "llm_seconds")
#: Of calibrated scores; in the results of an experiment that has any.
TEMPERATURES = ("quality_temperature", "diversity_temperature")
#: Start of the columns with what methods found out about their rows.
DIAGNOSTIC = "diagnostic_"
#: How often a trial went on from a checkpoint; in the results of an experiment in which one did.
RESUMED = "resumed"
MACHINE = ("peak_memory_mb", "peak_gpu_memory_mb", "rows_per_second", "device", "threads")


@dataclass(frozen=True)
class Results:
    """An experiment's results.

    Attributes:
        trials: one row a planned trial (and variant, where a trial serves several). Columns: ``trial`` (id),
            ``benchmark``, ``source``, ``method`` (display label), ``seed``, ``fraction`` (share of ``real_small``
            used; NaN where the trial does not depend on it), ``variant`` ("" without a sweep), ``status`` (finished,
            failed, interrupted or missing), ``error``, ``requested`` (False if the trial is planned only as a
            checker), ``quality_checker`` and ``diversity_checker`` (ids or None), ``diversity_folds`` (ids of the
            checkers of all folds, a tuple), ``epoch`` (the chosen one),
            ``train_loss``, ``validation_`` and ``test_`` ``accuracy``, ``f1``, ``loss`` (the first two in [0, 1],
            macro F1), ``weight_mean``, ``weight_min``, ``weight_max``, ``weight_clipped`` (share), ``weight_ess``
            (effective sample size / n), ``seconds_*`` (one column a phase; ``seconds_score`` is the writing of scores
            as a checker), ``peak_memory_mb``, ``peak_gpu_memory_mb``, ``rows_per_second``, ``device``, ``threads``.
            Of a language model's own row: ``llm_calls``, ``llm_unparsable``, ``llm_tokens_in``, ``llm_tokens_out``,
            ``llm_cost`` (in the currency of its prices), ``llm_seconds`` (inside the calls, added up).
            Where they apply: ``quality_temperature``, ``diversity_temperature``, ``diagnostic_*`` of methods, and
            ``resumed`` (how often the trial went on from a checkpoint; its seconds are then the sum over its parts).
            A measured column that no trial has may be absent: it is added, empty.
        epochs: one row a trial and epoch (1, 2, ...): the identifying columns, ``train_loss``, the accuracies, F1s
            and weight statistics.
        weights: one row a trial and training row: the identifying columns, ``id``, ``label`` (name), ``corruption``
            ("" for a clean row), ``text``,
            ``weight`` (of the last epoch), ``mean_weight`` (over all epochs); for sources with corrupted rows
            ``quality`` and ``diversity``, the checkers' probabilities of the label, NaN where they are not known.
        distances: one row a pair of checkers that some trial uses: ``benchmark``, ``source``, ``seed``, ``fraction``,
            ``variant``, and the fields of ``harness.data.distributions.Distance``. May be empty.
        predictions: benchmark -> predictions of the test rows by its requested finished trials, at the chosen epoch.
            Benchmarks and trials whose predictions are not in the ledger are absent.
        meta: ``name``, ``description``, ``command``, ``commit``, ``dirty``, ``started``, ``versions``,
            ``hardware``, ``settings``, ``splits`` ({benchmark: [{split, rows, digest, counts}]}),
            ``driver_peak_memory_mb``, ``wall_seconds``, ``epoch_rule`` ("last" or "best_validation").
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    weights: pd.DataFrame
    meta: dict[str, Any]
    distances: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: dict[str, TestPredictions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        absent = [
            name for name in (*OUTCOMES, *WEIGHT_STATISTICS, *MACHINE, *LANGUAGE_MODEL) if name not in self.trials
        ]
        if absent:
            object.__setattr__(self, "trials", self.trials.assign(**dict.fromkeys(absent, np.nan)))

    @cached_property
    def resampled(self) -> ResampledScores:
        """Scores of the trials on resampled test rows."""
        return ResampledScores(self.predictions)

    def role(self, source: str) -> str:
        """What a source is for in the report, as the ledger recorded it (see ``harness.config.sources``)."""
        recorded = self.meta.get("sources", {}).get(source)
        known = SOURCES.get(source)
        return str(recorded["role"]) if recorded else known.role if known else "mixed"

    def title(self, source: str) -> str:
        """What the rows of a source are called."""
        recorded = self.meta.get("sources", {}).get(source)
        known = SOURCES.get(source)
        return str(recorded["title"]) if recorded else known.title if known else source
