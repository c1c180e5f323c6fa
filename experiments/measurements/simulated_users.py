"""Files as a user of `harness weigh` has them, from benchmarks whose truth is known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from harness.config.benchmark import Benchmark
from harness.data.benchmarks import load, resolve
from harness.data.split import Split, concatenate
from harness.seeds import generator

BENCHMARKS = ("financial", "tweet_irony", "mrpc", "tweet_sentiment")
#: Human rows of a label at least, so that every fold has one.
LEAST_OF_A_LABEL = 5


@cache
def load_rows(name: str) -> tuple[Benchmark, Split, Split, Split]:
    """A benchmark, all of its human rows for training, its generated rows, and its test rows."""
    benchmark = resolve(name)
    names = [split for split in ("real_small", "real_large", "generated", "test") if split in benchmark.splits]
    splits = load(benchmark, names)
    people = concatenate("people", [splits[split] for split in names if split.startswith("real")])
    return benchmark, people, splits["generated"], splits["test"]


def shuffled(people: Split, rows: int, draw: int, benchmark: str) -> Split:
    """Human rows in a random order in which the first ``rows`` have some of every label."""
    rng = generator(draw, "people", benchmark, rows)
    while True:
        order = rng.permutation(len(people))
        if np.bincount(people.labels[order[:rows]], minlength=int(people.labels.max()) + 1).min() >= LEAST_OF_A_LABEL:
            return people.take(order)


def write_csv(rows: Split, labels: Sequence[str], path: Path) -> None:
    """A file with the columns ``id`` (the number of the row), the text or both texts, and ``label``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        seconds = rows.pairs or [None] * len(rows)
        writer.writerow(["id", "sentence1", "sentence2", "label"] if rows.pairs else ["id", "text", "label"])
        for k, (text, second, label) in enumerate(zip(rows.texts, seconds, rows.labels.tolist(), strict=True)):
            writer.writerow([k, text, *([second] if rows.pairs else []), labels[label]])
