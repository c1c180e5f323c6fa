"""Batches of row numbers: shuffled, but with rows of similar length together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.data.split import IntArray
from harness.seeds import generator

#: Rows are sorted by length within windows of this many batches, which needs little padding and keeps batches random.
WINDOW = 16
#: An evaluation batch ends before a row that is shorter than this share of its longest row, ...
SIMILAR = 0.9
#: ... once it has this share of ``batch_size`` rows.
SMALLEST = 0.25


def epoch_batches(lengths: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """One pass over n rows as batches of row numbers. Every row occurs once; at most one batch is smaller.

    Args:
        lengths: tokens per row [n].
        batch_size: rows per batch.
        seed: the trial's seed; the order is drawn with its stream ``order``.
        epoch: number of the pass, from 0.
    """
    rng = generator(seed, "order", epoch)
    shuffled = rng.permutation(len(lengths))
    batches: list[IntArray] = []
    for start in range(0, len(shuffled), batch_size * WINDOW):
        window = shuffled[start : start + batch_size * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def training_batches(lengths: IntArray, batch_size: int, seed: int, steps: int) -> Iterator[tuple[int, IntArray]]:
    """``(epoch, rows)`` of ``steps`` batches, from as many passes over the rows as that takes."""
    epoch, step = 0, 0
    while True:
        for rows in epoch_batches(lengths, batch_size, seed, epoch):
            if step == steps:
                return
            yield epoch, rows
            step += 1
        epoch += 1


def longest_first(rows: IntArray, lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Rows in batches of ``batch_size``, longest first; for gradients, where every further batch has its cost.

    Args:
        rows: row numbers.
        lengths: tokens per row, of all rows.
        batch_size: rows per batch; the last one may be smaller.
    """
    ordered = rows[np.argsort(-lengths[rows], kind="stable")]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def evaluation_batches(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Batches of all rows, longest first, so that memory peaks in the first batch.

    A batch is smaller where lengths differ: long rows are few, and short ones beside them would be mostly padding.

    Args:
        lengths: tokens per row [n].
        batch_size: most rows of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        size = stop - start
        differs = stop < len(order) and lengths[order[stop]] < SIMILAR * lengths[order[start]]
        if stop == len(order) or size == batch_size or (differs and size >= SMALLEST * batch_size):
            batches.append(order[start:stop])
            start = stop
    return batches
