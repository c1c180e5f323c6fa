"""Wall seconds by phase, measured inside the process that trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.phases import Phase


class PhaseTimer:
    """Adds up wall seconds by phase; waits for the device before it reads the clock.

    Nested phases are exclusive: the outer timer pauses.

    Attributes:
        seconds: phase -> wall seconds so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Phase, float] = {}
        self.device = device
        self._open: list[Phase] = []
        self._since = 0.0

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Adds the time of a block to a phase."""
        self._add_elapsed()
        self._open.append(phase)
        try:
            yield
        finally:
            self._add_elapsed()
            self._open.pop()

    def runtime(self) -> dict[str, float]:
        """Seconds by the phases' keys, e.g. ``seconds_train``."""
        return {phase.key: seconds for phase, seconds in self.seconds.items()}

    def _add_elapsed(self) -> None:
        """Adds the time since the last call to the innermost open phase."""
        self._synchronize()
        now = time.perf_counter()
        if self._open:
            phase = self._open[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
