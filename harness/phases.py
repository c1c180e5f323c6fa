"""The timed phases of a trial."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """A part of a trial's wall time; its value is its name in recorded results."""

    LOAD = "load"
    TOKENIZE = "tokenize"
    EMBED = "embed"
    WARM_UP = "warm_up"
    OUTER_ROUNDS = "outer_rounds"
    TRAIN = "train"
    META_GRADIENT = "meta_gradient"
    EVALUATE = "evaluate"
    CHECKPOINT = "checkpoint"
    SCORE = "score"
    CLASSIFY = "classify"

    @property
    def key(self) -> str:
        """Its key among the runtime figures of a trial, e.g. ``seconds_train``."""
        return f"seconds_{self.value}"

    @property
    def label(self) -> str:
        """Its name in tables and figures."""
        return LABELS[self]


LABELS = {
    Phase.LOAD: "load data and model",
    Phase.TOKENIZE: "tokenize",
    Phase.EMBED: "embed texts",
    Phase.WARM_UP: "warm up",
    Phase.OUTER_ROUNDS: "learn weights before training",
    Phase.TRAIN: "train",
    Phase.META_GRADIENT: "meta-gradients",
    Phase.EVALUATE: "evaluate",
    Phase.CHECKPOINT: "keep checkpoints",
    Phase.SCORE: "score as a checker",
    Phase.CLASSIFY: "classify by language model",
}
