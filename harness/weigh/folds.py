"""Cross-fitting: a benchmark for each fold, and one of all rows.

In a fold, models train on the human and written rows of the other folds. The human rows of the fold are the test
split: they only judge. The written rows of the fold are the validation split: they are only scored, and select nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.config.benchmark import Benchmark, DataSource, SplitOrigin
from harness.data.folds import fold_numbers
from harness.data.split import Split
from harness.errors import TrialError, UserError
from harness.files import write_atomically
from harness.weigh.checks import Duplicates
from harness.weigh.reading import Inputs
from harness.weigh.settings import FOLDS

ALL = "all"


def fold_name(fold: int) -> str:
    """The name of a fold in files and benchmarks; counts from 1."""
    return f"fold-{fold + 1}"


def write_benchmarks(inputs: Inputs, duplicates: Duplicates, name: str, folder: Path) -> dict[str, Benchmark]:
    """Writes the rows of every fold as files, and returns the benchmarks: ``fold-1`` … ``fold-5``, and ``all``.

    Folds are stratified, and near-duplicates are in the same fold. Copies of human rows are left out.

    Args:
        inputs: the rows of both files.
        duplicates: near-duplicates among them.
        name: the beginning of the benchmarks' names.
        folder: for the files.

    Raises:
        UserError: there are too few different rows, or all rows of a label are near-duplicates.
    """
    people = inputs.people
    written = inputs.written.take([i for i, id_ in enumerate(inputs.written.ids) if id_ not in duplicates.of_people])
    try:
        of_people, of_written = fold_numbers(people, FOLDS, 0), fold_numbers(written, FOLDS, 0)
    except TrialError as error:
        raise UserError(str(error)) from None
    out = {}
    for fold in range(FOLDS):
        splits = {
            "real_small": people.take(np.flatnonzero(of_people != fold)),
            "generated": written.take(np.flatnonzero(of_written != fold)),
            "validation": written.take(np.flatnonzero(of_written == fold)),
            "test": people.take(np.flatnonzero(of_people == fold)),
        }
        missing = [label for k, label in enumerate(inputs.labels) if k not in splits["real_small"].labels]
        if missing:
            raise UserError(
                f"all human rows of {', '.join(missing)} are near-duplicates of one another: none is left to train on "
                "when they judge. Label more rows."
            )
        out[fold_name(fold)] = write_benchmark(f"{name}.{fold_name(fold)}", splits, inputs, folder / fold_name(fold))
    # a benchmark needs rows to evaluate on, and here nothing is held out
    splits = {"real_small": people, "generated": written, "validation": written.take([0]), "test": people}
    out[ALL] = write_benchmark(f"{name}.{ALL}", splits, inputs, folder / ALL)
    return out


def write_benchmark(name: str, splits: Mapping[str, Split], inputs: Inputs, folder: Path) -> Benchmark:
    """Writes splits as files, unless they are there, and returns their benchmark; near-duplicates are kept.

    Args:
        name: of the benchmark.
        splits: name -> rows.
        inputs: for the labels, and whether texts are pairs.
        folder: for the files.
    """
    columns = ("text", "second") if inputs.people.pairs is not None else ("text",)
    sources: dict[str, SplitOrigin] = {}
    for split, rows in splits.items():
        texts = zip(rows.texts, rows.pairs, strict=True) if rows.pairs is not None else ((text,) for text in rows.texts)
        records = [
            {"id": id_, **dict(zip(columns, text, strict=True)), "label": inputs.labels[label]}
            for id_, text, label in zip(rows.ids, texts, rows.labels.tolist(), strict=True)
        ]
        content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        file = folder / f"{split}.jsonl"
        if not file.is_file() or file.read_bytes() != content:
            write_atomically(file, content)
        sources[split] = DataSource(file=str(file), id="id")
    return Benchmark(
        name=name, labels=inputs.labels, text=columns if len(columns) == 2 else columns[0], splits=sources,
        near_duplicate=None, description=_description(splits),
    )  # fmt: skip


def _description(splits: Mapping[str, Split]) -> str:
    if splits["test"] is splits["real_small"]:
        return "All rows of `harness weigh`. Its test rows are among its training rows: its test results mean nothing."
    return "A fold of `harness weigh`: test are human rows that only judge, validation are written rows held out."


def original_id(id_: str) -> str:
    """The id of a row in ``Inputs``, from its id in a split of a benchmark."""
    return id_.partition("-")[2]
