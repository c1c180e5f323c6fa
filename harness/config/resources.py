"""What a trial runs with: cores, GPUs, processes, and what happens when a process is lost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from harness.config.schema import FrozenModel, Positive


class Resources(FrozenModel):
    """Resources of one trial. Threads and workers change floating-point results, so they are part of a trial's id."""

    cpus: Positive = 1
    """CPU cores of each worker, and its number of threads."""
    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs of each worker. With a fraction, trials share a GPU, and measured runtimes are not meaningful."""
    workers: Positive = 1
    """Devices that a trial trains on; two or more form a DDP process group."""
    concurrent: Positive | None = None
    """Largest number of trials at once; default: as many as fit."""
    memory_gb: float | None = Field(default=None, gt=0.0)
    """Memory in GB that Ray reserves for each worker."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial is restarted after its process died."""
    checkpoint: bool = False
    """Keep a checkpoint of every running trial in the store, written after each evaluation: a trial whose process or
    node is lost then goes on from its last evaluation, to the same bits on the same kind of machine. One of
    all-MiniLM-L6-v2 takes 143 MB and 0.5 to 0.9 s of one core, twice that with ``training.vocabulary: full``. It is not
    part of a trial's id. The runtime figure ``resumed`` counts how often a trial went on."""
    silence_minutes: float | None = Field(default=None, gt=0.0)
    """Minutes without an evaluation after which a trial counts as hanging: its process is ended and, as above,
    restarted. Default: no limit. Choose several times what passes between two evaluations."""
    alone: bool = False
    """For runtimes that mean something: a trial has its GPU alone or, without GPUs, all nodes."""

    @property
    def most(self) -> int | None:
        """Largest number of trials at once, None for no limit."""
        return 1 if self.alone and not self.gpus else self.concurrent

    @model_validator(mode="after")
    def _whole_devices(self) -> Resources:
        if self.alone and 0.0 < self.gpus < 1.0:
            raise ValueError(
                f"gpus: expected 0 or 1 with alone: true, found {self.gpus}. The runtimes of trials that share a GPU "
                "mean nothing"
            )
        if self.alone and not self.gpus and self.concurrent not in (None, 1):
            raise ValueError(f"concurrent: expected 1 with alone: true and no GPUs, found {self.concurrent}")
        if self.gpus > 1.0:
            raise ValueError(f"gpus: expected at most 1 per worker, found {self.gpus}. Use workers for more devices")
        if self.workers > 1 and self.gpus not in (0.0, 1.0):
            raise ValueError(f"gpus: expected 0 or 1 with several workers, found {self.gpus}")
        return self


class Needs(FrozenModel):
    """Resources of the trials of one encoder, where they differ from those of the others."""

    cpus: Positive | None = None
    gpus: float | None = Field(default=None, ge=0.0)
    workers: Positive | None = None
    memory_gb: float | None = Field(default=None, gt=0.0)


class ExperimentResources(Resources):
    """Resources of the trials of an experiment."""

    encoders: dict[str, Needs] = {}
    """Encoder -> what its trials need, where it differs, e.g. ``bert-large-uncased: {gpus: 1}`` beside small encoders
    that share GPUs."""

    def of(self, encoder: str) -> Resources:
        """The resources of a trial with this encoder; one that has none only queries a language model."""
        own = {name: getattr(self, name) for name in Resources.model_fields}
        if not encoder:
            own |= {"cpus": 1, "gpus": 0.0, "workers": 1, "memory_gb": None}
        elif encoder in self.encoders:
            own |= self.encoders[encoder].model_dump(exclude_none=True)
        return Resources.model_validate(own)
