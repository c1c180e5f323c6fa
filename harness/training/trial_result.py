"""The stored result of a finished trial."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.planning.trials import Trial
from harness.store import Arrays, Store

if TYPE_CHECKING:  # reading a result loads no torch
    from harness.training.process_group import ProcessGroup


@dataclass(frozen=True)
class TrialResult:
    """The result of a finished trial.

    Attributes:
        history: metrics of every evaluation.
        runtime: seconds by phase, peak memory in MB, rows per second of training, temperatures of calibrated scores,
            diagnostics of the method.
        environment: device, threads, versions.
        arrays: ``test`` and ``validation`` log-probabilities, float32 [evaluations, rows, C]; ``weights``, float32
            [evaluations, n] over the rows of all splits of the source without the trial's fold, NaN for rows that were
            not trained on. Without
            training ``test`` alone, NaN in the rows without a prediction.
    """

    history: list[dict[str, float]]
    runtime: dict[str, float]
    environment: dict[str, str]
    arrays: Arrays


def save_result(trial: Trial, result: TrialResult, store: Store) -> None:
    """Stores a result under the trial's id."""
    store.put("trials", trial.id, **pack(result))


def load_result(trial: Trial, store: Store) -> TrialResult | None:
    """The stored result of a trial; None if it is missing or damaged, so that the trial is trained again."""
    blob = store.get("trials", trial.id, replaceable=True)
    return None if blob is None else unpack(blob)


def pack(result: TrialResult) -> Arrays:
    """A result as named arrays: its own, and all else as JSON in ``text``."""
    text = json.dumps([result.history, result.runtime, result.environment])
    return {"text": np.frombuffer(text.encode(), np.uint8), **result.arrays}


def unpack(arrays: Arrays) -> TrialResult:
    """The result in arrays made by ``pack``.

    Raises:
        ValueError: they were not.
    """
    if "text" not in arrays:
        raise ValueError(f"expected an array 'text', found {sorted(arrays)}")
    history, runtime, versions = json.loads(arrays["text"].tobytes().decode())
    return TrialResult(history, runtime, versions, {name: values for name, values in arrays.items() if name != "text"})


def environment(group: ProcessGroup) -> dict[str, str]:
    """What else the numbers and the runtime of a trial depend on: device, threads, versions."""
    import torch
    import transformers

    cuda = group.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(group.device) if cuda else _processor(),
        "workers": str(group.size),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
