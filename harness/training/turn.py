"""One process group at a time trains a trial, also where several experiments share a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from harness.errors import StoreError
from harness.store import Store
from harness.store.leases import Lease
from harness.training.process_group import ProcessGroup
from harness.training.trial_result import TrialResult

#: Seconds between two looks at the lease of another worker.
POLL = 1.0
#: What the first process of a group tells the others.
WAIT, TRAIN, FINISHED = 0, 1, 2


@contextmanager
def turn(
    trial: str, load: Callable[[], TrialResult | None], store: Store, group: ProcessGroup
) -> Iterator[TrialResult | None]:
    """Waits until a trial has a result or no other worker is training it.

    Args:
        trial: the trial's id.
        load: returns the stored result, or None.
        store: has the results and the leases.
        group: whose first process decides for all.

    Yields:
        The stored result. Or None: then this group holds the trial's lease until the end of the block.

    Raises:
        StoreError: the store cannot be used, or another process of the group does not see the result.
    """
    lease = Lease(trial, store.files)
    try:
        result = load() if group.first else None
        state = FINISHED if result is not None else WAIT
        while True:
            if group.first and state == WAIT and lease.take():
                result = load()  # the worker that had the lease before may have finished
                state = TRAIN if result is None else FINISHED
            state = int(group.maximum(torch.tensor(state, device=group.device)))
            if state != WAIT:
                break
            time.sleep(POLL)
        if state == FINISHED:
            lease.release()
            result = load() if result is None else result
            if result is None:
                raise StoreError(f"the store {store.root} does not show the result of trial {trial} to every process")
        yield result
    finally:
        lease.release()
