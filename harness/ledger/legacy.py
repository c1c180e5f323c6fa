"""Ledgers of version 1, whose parent runs have no plan: the plan is recovered from the trials that were started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import yaml

from harness.config.sources import SOURCES
from harness.ledger.artifacts import PlannedTrial, PlanRecord
from harness.ledger.entries import EXPERIMENT, TRIAL, Entry, Reader

#: Suffixes of ids, after a ``+``: how a row was corrupted.
_CORRUPTIONS = ("flip", "swap", "unrelated", "duplicate")


def recover_plan(name: str, parent: Entry, entries: Mapping[str, Entry], reader: Reader) -> PlanRecord:
    """The plan of an experiment of a ledger of version 1.

    Trials that were never started, and the sizes of splits, are unknown. A trial counts as requested if the
    experiment's file lists its method on its source.
    """
    settings = upgrade_experiment(yaml.safe_load(reader.artifact(parent, "experiment.yaml") or b"{}") or {})
    grid = {(row["source"], method["name"]) for row in settings.get("grid", []) for method in row["methods"]}
    trials: list[PlannedTrial] = []
    benchmarks: dict[str, dict[str, Any]] = {}
    for entry in entries.values():
        tags = entry.tags
        raw = reader.artifact(entry, "trial.json") if tags.get(EXPERIMENT) == name else None
        if raw is None:
            continue
        task = json.loads(raw)["task"]
        splits = benchmarks.setdefault(task["name"], {"labels": task["labels"], "splits": []})["splits"]
        names = {row["split"] for row in splits}
        for split, digest in task["digests"].items():
            if split not in names:
                splits.append({"split": split, "rows": None, "digest": digest, "counts": {}})
        trials.append(
            PlannedTrial(
                trial=tags[TRIAL], benchmark=tags["benchmark"], source=tags["source"], method=tags["method"],
                label=tags["label"], seed=int(tags["seed"]),
                fraction=float(tags["fraction"]) if tags["fraction"] else None,
                variants=[v for v in tags.get("variant", "").split("; ") if v],
                requested=(tags["source"], tags["method"]) in grid, quality_checker=tags["quality_checker"] or None,
                diversity_checker=tags["diversity_checker"] or None, threads=int(tags["threads"]),
            )
        )  # fmt: skip
    trials.sort(key=lambda trial: trial.seed)
    remaining = {key: value for key, value in settings.items() if key != "benchmarks"}
    return PlanRecord(name, remaining, benchmarks, describe_sources(), trials, version=1)


def describe_sources() -> dict[str, dict[str, Any]]:
    """The sources as a plan records them."""
    return {
        name: {
            "title": source.title,
            "role": source.role,
            "splits": list(source.splits),
            "weighed": list(source.weighed),
        }
        for name, source in SOURCES.items()
    }


def upgrade_weights(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of weights with the column ``corruption``: version 1 has it as a suffix of ids, ``noisy-3+flip``."""
    if "corruption" in frame:
        return frame
    suffixes = frame["id"].str.rpartition("+")[2].where(frame["id"].str.contains("+", regex=False), "")
    return frame.assign(corruption=suffixes.where(suffixes.isin(_CORRUPTIONS), ""))


def upgrade_experiment(raw: dict[str, Any]) -> dict[str, Any]:
    """An experiment recorded by version 1, with the keys of this version."""
    out = dict(raw)
    checkers = out.pop("checkers", None)
    if checkers:
        out["stages"] = {"real_small": {"steps": checkers["quality_steps"]}}
    out["benchmarks"] = [
        {("license" if key == "licence" else key): value for key, value in entry.items() if key != "limits"}
        if isinstance(entry, dict)
        else entry
        for entry in out.get("benchmarks", [])
    ]
    for row in out.get("grid", []):
        for method in row.get("methods", []):
            settings = method.get("settings", {})
            if "normalise" in settings:
                settings["normalize"] = settings.pop("normalise")
    return out
