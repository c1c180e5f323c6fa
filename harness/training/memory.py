"""Peak memory of a trial, and release of memory between trials."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the driver asks for its own peak without torch
    import torch


def release_memory() -> None:
    """Frees memory of earlier trials of this process.

    Every trial of a reused process runs in its own thread, and glibc keeps memory that a thread has freed for that
    thread: without this call a process grows by the size of a model every few trials.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak_memory(device: torch.device) -> None:
    """Restarts the measurement, so that a reused process does not report the peak of an earlier trial."""
    with suppress(OSError):  # Linux only, and not in every container
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Peak resident memory of this process in MB (1e6 bytes), and of the GPU's allocator where there is one."""
    out = {"peak_memory_mb": own_peak_memory_mb()}
    if device.type == "cuda":
        import torch

        out["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return out


def own_peak_memory_mb() -> float:
    """Peak resident memory of this process in MB (1e6 bytes)."""
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1.0 if sys.platform == "darwin" else 1024.0)
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text().splitlines()
        peak = float(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024.0
    return peak / 1e6
