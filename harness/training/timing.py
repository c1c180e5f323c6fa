"""Where the time goes: wall seconds by phase, measured inside the worker, and the peak memory."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


class PhaseTimer:
    """Adds up wall seconds by phase; waits for the device before it reads the clock.

    A phase within a phase is booked by itself: the outer one pauses.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block as part of phase ``name``."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def _book(self) -> None:
        """Books the time since the last look at the clock for the innermost open phase."""
        self._synchronise()
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def release_memory() -> None:
    """Frees what earlier trials of this process left behind.

    Every trial of a reused process runs in a thread of its own, and glibc keeps what a thread has freed for that
    thread: without this a process grows by a model's size every few trials.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement of peak memory, so that a reused process does not report an earlier trial's."""
    with suppress(OSError):  # Linux only, and not in every container
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process in MB (1e6 bytes), and of the GPU's allocator where there is one."""
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1.0 if sys.platform == "darwin" else 1024.0)
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        peak = float(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024.0
    out = {"peak_memory_mb": peak / 1e6}
    if device.type == "cuda":
        out["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return out


def own_peak_memory_mb() -> float:
    """Peak resident memory of this process in MB (1e6 bytes)."""
    return peak_memory_mb(torch.device("cpu"))["peak_memory_mb"]
