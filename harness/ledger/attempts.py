"""What the ledger records of one attempt at a trial, and of what became of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from harness.ledger.artifacts import History, to_parquet
from harness.ledger.entries import LOG
from harness.planning.trials import Job


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: as in MLflow.
        error: "" for a finished trial.
        metrics: of the whole trial: runtime, memory, diagnostics.
        tags: of the environment.
        files: artifacts, by their path.
        ended: milliseconds since the epoch.
    """

    status: Literal["FINISHED", "FAILED", "KILLED"]
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    ended: int = field(default_factory=now)

    @classmethod
    def finished(
        cls, runtime: Mapping[str, float], environment: Mapping[str, str], history: Sequence[Mapping[str, float]],
        frames: Mapping[str, pd.DataFrame],
    ) -> Outcome:  # fmt: skip
        """A trial with its result; ``frames`` are tables by file name."""
        tags = {f"env.{key}": value for key, value in environment.items()}
        files = {History.FILE: History(list(map(dict, history))).to_bytes(), **parquet(frames)}
        return cls("FINISHED", metrics=runtime, tags=tags, files=files)

    @classmethod
    def failed(cls, error: str, log: str = "") -> Outcome:
        """The trial gave no result; the whole error and its log become artifacts, the error's last line a tag."""
        return cls("FAILED", error, files={"error.txt": error.encode()} | ({LOG: log.encode()} if log else {}))

    @classmethod
    def interrupted(cls, why: str) -> Outcome:
        """The attempt was ended from outside."""
        return cls("KILLED", why)


@dataclass(frozen=True)
class Part:
    """What is new of one attempt at a trial; the first part creates its run in MLflow, the last ends it.

    Attributes:
        job: the trial.
        attempt: a name of its own, by which a run is found again whose creation was not answered.
        started: milliseconds since the epoch.
        run: the MLflow run id; "" in the first part.
        entries: evaluations, each with its time in milliseconds since the epoch.
        files: further artifacts, by their path.
        outcome: in the last part.
        repeated: True if writing this part was tried before.
    """

    job: Job
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: int = field(default_factory=now)
    run: str = ""
    entries: tuple[tuple[int, Mapping[str, float]], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    outcome: Outcome | None = None
    repeated: bool = False


def parquet(frames: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
    """Tables as the bytes of parquet files, by file name."""
    return {name: to_parquet(frame) for name, frame in frames.items()}
