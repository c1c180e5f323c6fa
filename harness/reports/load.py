"""From the ledger to tidy frames. Nothing else is read."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from harness.checkers.scores import artifact_name
from harness.config.sources import SOURCES
from harness.data.distributions import distance
from harness.data.split import Split
from harness.errors import UserError
from harness.ledger.mlflow_ledger import Entry, Ledger
from harness.planning.plan import Plan
from harness.planning.trials import Job
from harness.reports.results import Results

STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "interrupted"}
IDENTITY = ("trial", "benchmark", "source", "method", "seed", "fraction", "variant")
RUNTIME = ("peak_memory_mb", "peak_gpu_memory_mb", "rows_per_second")


def load(plan: Plan, ledger: Ledger) -> Results:
    """The results of an experiment; every planned trial has its row, done or not.

    Raises:
        UserError: the ledger has no run of the experiment.
    """
    name = plan.experiment.name
    parent = ledger.parent(name)
    if parent is None:
        raise UserError(f"the ledger {ledger.uri} has no run of the experiment {name!r}; start it with `harness run`")
    entries = ledger.trials()
    trials: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    weights: list[pd.DataFrame] = []
    distances: list[dict[str, Any]] = []
    known: dict[tuple[str, ...], dict[str, float] | None] = {}
    for job in plan.jobs:
        entry = entries.get(job.trial.id)
        history = _history(entry, ledger)
        for variant in job.variants or ("",):
            identity = _identity(job, variant)
            trials.append(identity | _row(job, entry, history, plan.experiment.report.epoch))
            epochs += [identity | {"epoch": int(point["epoch"])} | _metrics(point) for point in history]
            if job.requested and history and entry is not None and job.trial.source in SOURCES:
                weights.append(_weights(identity, entry, len(history), ledger))
            pair = job.trial.quality, job.trial.diversity
            if pair[0] and pair[1]:
                key = (pair[0], pair[1], job.trial.source)
                if key not in known:
                    known[key] = _distance(job, entries, ledger)
                if found := known[key]:
                    distances.append({k: v for k, v in identity.items() if k not in ("trial", "method")} | found)
    columns = [*IDENTITY, "id", "label", "text", "weight"]
    told = pd.concat(weights, ignore_index=True) if weights else pd.DataFrame(columns=columns)
    frame = pd.DataFrame(epochs) if epochs else pd.DataFrame(columns=[*IDENTITY, "epoch"])
    apart = pd.DataFrame(distances).drop_duplicates() if distances else pd.DataFrame()
    return Results(pd.DataFrame(trials), frame, told, _meta(plan, parent), apart)


def _identity(job: Job, variant: str) -> dict[str, Any]:
    trial = job.trial
    fraction = np.nan if trial.fraction is None else trial.fraction
    values = (trial.id, trial.task.name, trial.source, job.label, trial.seed, fraction, variant)
    return dict(zip(IDENTITY, values, strict=True))


def _row(job: Job, entry: Entry | None, history: list[dict[str, float]], rule: str) -> dict[str, Any]:
    status = "missing" if entry is None else STATUS.get(entry.status, "missing")
    if status == "finished" and not history:
        status = "missing"  # its artifact is gone
    row: dict[str, Any] = {
        "status": status, "error": "" if entry is None or status == "finished" else entry.error,
        "requested": job.requested, "quality_checker": job.trial.quality, "diversity_checker": job.trial.diversity,
        "device": "", "threads": job.trial.threads,
    }  # fmt: skip
    if not history or entry is None:
        return row
    best = int(np.argmax([point.get("validation_accuracy", 0.0) for point in history]))
    chosen = history[-1] if rule == "last" else history[best]
    runtime = {k: v for k, v in entry.metrics.items() if k.startswith(("seconds_", "llm_")) or k in RUNTIME}
    return (
        row
        | {"epoch": int(chosen["epoch"])}
        | _metrics(chosen)
        | runtime
        | {"device": entry.tags.get("env.device", "")}
    )


def _metrics(point: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in point.items() if key not in ("epoch", "step")}


def _history(entry: Entry | None, ledger: Ledger) -> list[dict[str, float]]:
    if entry is None or entry.status != "FINISHED":
        return []
    raw = ledger.artifact(entry.run, "history.json")
    return [] if raw is None else json.loads(raw)


def _weights(identity: dict[str, Any], entry: Entry, evaluations: int, ledger: Ledger) -> pd.DataFrame:
    raw = ledger.artifact(entry.run, "weights.parquet")
    if raw is None:
        return pd.DataFrame()
    frame = pd.read_parquet(io.BytesIO(raw))
    text = frame["text"] if "pair" not in frame else frame["text"] + "  //  " + frame["pair"]
    told = pd.DataFrame({"id": frame["id"], "label": frame["label"], "text": text})
    every = frame[[f"weight_{number}" for number in range(1, evaluations + 1)]]
    return told.assign(weight=frame[f"weight_{evaluations}"], mean_weight=every.mean(axis=1), **identity)


def _distance(job: Job, entries: dict[str, Entry], ledger: Ledger) -> dict[str, float] | None:
    """How far real and generated labels are apart as the trial's two checkers see them, on test and source rows."""
    checkers = [entries.get(id_ or "") for id_ in (job.trial.quality, job.trial.diversity)]
    source, labels = job.trial.source, job.trial.task.labels
    name = artifact_name(source, {split: job.trial.task.digests[split] for split in SOURCES[source]})
    said, ids = [], []
    for entry in checkers:
        if entry is None or entry.status != "FINISHED":
            return None
        predictions = ledger.artifact(entry.run, "predictions.parquet")
        scores = ledger.artifact(entry.run, f"{name}.parquet")
        if predictions is None or scores is None:
            return None
        tested = pd.read_parquet(io.BytesIO(predictions))
        last = tested[tested["epoch"] == tested["epoch"].max()]
        with np.errstate(divide="ignore"):
            real = np.log(last[[f"p_{label}" for label in labels]].to_numpy(np.float64))
        scored = pd.read_parquet(io.BytesIO(scores))
        said.append((real, scored[[f"log_p_{label}" for label in labels]].to_numpy()))
        ids.append((tuple(last["id"]), tuple(scored["id"])))
    if ids[0] != ids[1]:
        return None  # not the same rows: nothing to compare
    (quality_real, quality_generated), (diversity_real, diversity_generated) = said
    return asdict(distance(quality_real, diversity_real, quality_generated, diversity_generated))


def _meta(plan: Plan, parent: Entry) -> dict[str, Any]:
    tags = parent.tags
    versions = {k.removeprefix("version."): v for k, v in tags.items() if k.startswith("version.")}
    return {
        "name": plan.experiment.name,
        "description": plan.experiment.description,
        "command": tags.get("command", ""),
        "commit": tags.get("commit", ""),
        "dirty": tags.get("dirty") == "true",
        "started": pd.Timestamp(parent.started, unit="ms").strftime("%Y-%m-%d %H:%M UTC"),
        "versions": versions,
        "hardware": tags.get("hardware", ""),
        "settings": plan.experiment.model_dump(mode="json", exclude={"benchmarks"}),
        "splits": {
            name: [_split_row(split, plan.benchmarks[name].labels) for split in splits.values()]
            for name, splits in plan.splits.items()
        },
        "driver_peak_memory_mb": parent.metrics.get("driver_peak_memory_mb"),
        "wall_seconds": parent.metrics.get("wall_seconds"),
        "epoch_rule": plan.experiment.report.epoch,
    }


def _split_row(split: Split, labels: tuple[str, ...]) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(labels))
    return {"split": split.name, "rows": len(split), "digest": split.digest,
            "counts": {label: int(n) for label, n in zip(labels, counts, strict=True)}}  # fmt: skip
