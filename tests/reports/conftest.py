"""Synthetic results: a grid with known effects, as read from the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.reports.resampling import TestPredictions
from harness.reports.results import Results

LIFT = {"ce": 0.0, "focal": -0.01, "imp": 0.05, "imp_quality": 0.04, "dimp": 0.06, "filter": 0.01, "prior": 0.02}
BASE = {"real_small": 0.70, "generated": 0.72, "real_large": 0.85, "noisy": 0.68, "both": 0.76}
CHECKED = {"imp": ("quality", "diversity"), "imp_quality": ("quality",), "dimp": ("quality",), "filter": ("quality",)}
LABELS = ("negative", "neutral", "positive")

Build = Callable[..., Results]


def identify(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def make(
    benchmarks: Sequence[str] = ("news",),
    methods: Sequence[str] = ("ce", "imp", "dimp"),
    seeds: Sequence[int] = (0, 1, 2),
    fractions: Sequence[float] = (1.0,),
    sources: Sequence[str] = ("real_small", "generated"),
    variants: Sequence[str] = ("",),
    epochs: int = 3,
    rows: int = 60,
) -> Results:
    """A finished grid. ``ce`` alone is run on every source but the generated one and the large real one."""
    cells = [
        (b, s, m, f, v)
        for v in variants
        for b in benchmarks
        for s in sources
        for m in (methods if s in ("generated", "real_large") else ("ce",))
        for f in (fractions if m in CHECKED else (1.0,) if s == "real_small" else (float("nan"),))
    ]
    trials = [_trial(*cell, seed, True) for cell in cells for seed in seeds]
    known = {trial["trial"] for trial in trials}
    if set(methods) & set(CHECKED):
        for b, f, v, seed in [(b, f, v, s) for b in benchmarks for f in fractions for v in variants for s in seeds]:
            checker = _trial(b, "real_small", "ce", f, v, seed, False)
            if checker["trial"] not in known:
                trials.append(checker)
    frame = pd.DataFrame(trials)
    requested = [t for t in trials if t["requested"]]
    curves = pd.DataFrame([row for t in requested for row in _epochs(t, epochs)])
    weights = pd.DataFrame([row for t in requested if t["source"] == "generated" for row in _weights(t, rows)])
    return Results(frame, curves, weights, _meta(benchmarks))


def edit(results: Results, mask: pd.Series, **changes: Any) -> Results:
    """A copy whose trials have other values where ``mask`` holds; unfinished ones lose their numbers."""
    trials = results.trials.copy()
    for column, value in changes.items():
        trials.loc[mask, column] = value
    lost = trials["status"] != "finished"
    numbers = [c for c in trials.select_dtypes("number").columns if c not in ("seed", "fraction", "threads")]
    trials[numbers] = trials[numbers].astype(float)
    trials.loc[lost, numbers] = np.nan
    gone = set(trials.loc[lost, "trial"])
    keep = [frame[~frame["trial"].isin(gone)] if len(frame) else frame for frame in (results.epochs, results.weights)]
    return Results(trials, keep[0], keep[1], results.meta)


def predict(results: Results, rows: int = 200) -> Results:
    """A copy with predictions of ``rows`` test rows that have the trials' accuracies, to the nearest row.

    Trials of a benchmark are right on nearly the same rows.
    """
    difficulty = np.random.default_rng(0).random(rows)
    predictions: dict[str, TestPredictions] = {}
    trials = results.trials.copy()
    for i, trial in trials[trials["requested"] & (trials["status"] == "finished")].iterrows():
        noise = np.random.default_rng(int(trial["trial"], 16) % 2**32).normal(0, 0.1, rows)
        right = (difficulty + noise).argsort().argsort() < round(trial["test_accuracy"] * rows)
        truth = np.arange(rows, dtype=np.int8) % 3
        benchmark = predictions.setdefault(trial["benchmark"], TestPredictions(truth, 3))
        benchmark.predicted[trial["trial"]] = np.where(right, truth, (truth + 1) % 3).astype(np.int8)
        trials.loc[i, "test_accuracy"] = right.mean()
    return Results(trials, results.epochs, results.weights, results.meta, predictions=predictions)


@pytest.fixture
def build() -> Build:
    return make


@pytest.fixture
def small() -> Results:
    return make()


def _trial(b: str, s: str, m: str, f: float, v: str, seed: int, requested: bool) -> dict[str, Any]:
    rng = np.random.default_rng(int(identify(b, s, m, f, v, seed), 16) % 2**32)
    shared = np.random.default_rng(int(identify(b, s, seed), 16) % 2**32).normal(0, 0.01)
    share = 1.0 if np.isnan(f) else f
    # a checker on a tenth of the rows has lost most of the gain
    gain = LIFT.get(m, 0.0) * (1 + 0.35 * np.log10(share)) + (0.12 * np.log10(share) if s == "real_small" else 0)
    accuracy = BASE[s] + gain + shared + rng.normal(0, 0.005)
    uses = CHECKED.get(m, ())
    spread = 0.6 if uses else 0.0
    return {
        "trial": identify(b, s, m, f, v, seed),
        "benchmark": b,
        "source": s,
        "method": m,
        "seed": seed,
        "fraction": f,
        "variant": v,
        "status": "finished",
        "error": "",
        "requested": requested,
        "quality_checker": identify(b, "real_small", "ce", f, v, seed) if "quality" in uses else None,
        "diversity_checker": identify(b, "generated", "ce", float("nan"), v, seed) if "diversity" in uses else None,
        "epoch": 3,
        "train_loss": 0.4 - gain,
        "validation_accuracy": accuracy + 0.01,
        "validation_f1": accuracy - 0.01,
        "test_accuracy": accuracy,
        "test_f1": accuracy - 0.03,
        "weight_mean": 1.0,
        "weight_min": np.exp(-3 * spread),
        "weight_max": np.exp(3 * spread),
        "weight_clipped": 0.0,
        "weight_ess": 1 / (1 + spread),
        "seconds_load": 2.0 + rng.uniform(0, 0.3),
        "seconds_tokenize": 0.5,
        "seconds_warm_up": 1.0,
        "seconds_train": (10.0 if s == "real_small" else 60.0) + rng.normal(0, 1),
        "seconds_evaluate": 8.0,
        "seconds_score": 6.0 if m == "ce" else 0.0,
        "seconds_meta_gradient": 90.0 if m == "hu" else float("nan"),
        "peak_memory_mb": 900.0 + 10 * len(m),
        "rows_per_second": 50.0,
        "device": "cpu",
        "threads": 1,
    }


def _epochs(trial: dict[str, Any], epochs: int) -> list[dict[str, Any]]:
    names = ("trial", "benchmark", "source", "method", "seed", "fraction", "variant", "weight_mean", "weight_min")
    shared = {name: trial[name] for name in (*names, "weight_max", "weight_clipped", "weight_ess")}
    rising = [1 - 0.25 * 0.4**e for e in range(epochs)]
    return [
        {**shared, "epoch": e + 1, "train_loss": 1 / (e + 1)}
        | {
            f"{s}_{m}": trial[f"{s}_{m}"] * rising[e] / rising[-1]
            for s in ("validation", "test")
            for m in ("accuracy", "f1")
        }
        for e in range(epochs)
    ]


def _weights(trial: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(int(trial["trial"], 16) % 2**32)
    names = ("trial", "benchmark", "source", "method", "seed", "fraction", "variant")
    identity = {name: trial[name] for name in names}
    method = trial["method"]
    out = []
    for i in range(rows):
        label = i % 3
        weight = {
            "imp": np.exp(0.6 * rng.normal() + 0.03 * (i - rows / 2)),
            "imp_quality": rng.beta(3, 1.5),
            "dimp": np.exp(0.4 * rng.normal() + 0.02 * (i - rows / 2)),
            "filter": float(rng.random() > 0.3),
            "prior": (0.6, 1.1, 1.3)[label],
            "focal": rng.beta(1, 3),
        }.get(method, 1.0)
        text = f"generated sentence number {i}, which says something about the market"
        weights = {"weight": float(weight), "mean_weight": float(weight)}
        out.append(identity | {"id": f"g{i:04d}", "label": LABELS[label], "corruption": "", "text": text} | weights)
    return out


def _meta(benchmarks: Sequence[str]) -> dict[str, Any]:
    sizes = {"real_small": 300, "generated": 3000, "validation": 500, "test": 1500}
    return {
        "name": "example",
        "description": "A synthetic grid.",
        "command": "harness run experiments/example.yaml",
        "commit": "0123456789abcdef",
        "dirty": False,
        "started": "2025-01-02T03:04:05Z",
        "versions": {"torch": "2.8.0", "ray": "2.60.0"},
        "hardware": "2 cores",
        "settings": {"name": "example", "seeds": [0, 1, 2], "training": {"epochs": 3}},
        "splits": {
            b: [
                {"split": name, "rows": n, "digest": identify(b, name) * 4, "counts": dict.fromkeys(LABELS, n // 3)}
                for name, n in sizes.items()
            ]
            for b in benchmarks
        },
        "driver_peak_memory_mb": 512.0,
        "wall_seconds": 754.0,
        "epoch_rule": "last",
    }
