"""Which rows go together into a batch: shuffled, but of similar length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.data.split import IntArray
from harness.seeds import generator

#: Rows are sorted by length within windows of this many batches: little padding, still random batches.
WINDOW = 16


def epoch_batches(lengths: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """One pass over n rows as batches of row numbers; every row once, only one batch is smaller.

    Args:
        lengths: tokens per row [n].
        batch_size: rows in a batch.
        seed: the trial's seed; the order comes from its stream "order".
        epoch: number of the pass.
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
    """``(epoch, rows)`` of ``steps`` batches, passing over the rows as often as needed."""
    epoch, done = 0, 0
    while True:
        for rows in epoch_batches(lengths, batch_size, seed, epoch):
            if done == steps:
                return
            yield epoch, rows
            done += 1
        epoch += 1


def evaluation_batches(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """All rows, longest first, so that memory peaks at once and padding is least."""
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
