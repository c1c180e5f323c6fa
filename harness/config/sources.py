"""The splits of a benchmark, and the sources: the splits that a trial trains on, in stages.

To add a source, add an entry to ``_ALL``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Splits whose rows people wrote and labeled.
REAL_SPLITS = ("real_small", "real_large")
TRAINING_SPLITS = ("real_small", "generated", "real_large", "noisy")
SPLITS = (*TRAINING_SPLITS, "validation", "test")

#: The role of a source in a report: rows that methods weigh (``generated``, ``corrupted``, ``large_real``), the few
#: real rows alone (``real``), or both together (``mixed``).
Role = Literal["generated", "corrupted", "large_real", "real", "mixed"]


@dataclass(frozen=True)
class Stage:
    """A part of a training, with its own optimizer, learning-rate schedule and length.

    Attributes:
        splits: the splits that it trains on, together.
        weighted: True if the trial's method weighs its rows, False for plain cross-entropy.
    """

    splits: tuple[str, ...]
    weighted: bool = True

    @property
    def name(self) -> str:
        """Its name in experiments, e.g. ``real_small`` or ``real_small+generated``."""
        return "+".join(self.splits)

    @property
    def weighed(self) -> tuple[str, ...]:
        """The splits with rows that a method weighs."""
        return weighed_splits(self.splits) if self.weighted else ()


@dataclass(frozen=True)
class Source:
    """The splits that a trial trains on, in one or more stages.

    Attributes:
        name: its name in experiments.
        title: the name of its rows in reports.
        role: its role in reports.
        stages: one or more, in order.
    """

    name: str
    title: str
    role: Role
    stages: tuple[Stage, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits that it trains on, each once."""
        return tuple(dict.fromkeys(split for stage in self.stages for split in stage.splits))

    @property
    def weighed(self) -> tuple[str, ...]:
        """The splits with rows that a method weighs, each once: the rows that checkers score."""
        return tuple(dict.fromkeys(split for stage in self.stages for split in stage.weighed))


def weighed_splits(splits: Sequence[str]) -> tuple[str, ...]:
    """Of splits that are trained on together, those with weighed rows: real splits only if there are no others."""
    others = tuple(split for split in splits if split not in REAL_SPLITS)
    return others or tuple(splits)


_ALL = (
    Source("real_small", "the small real set", "real", (Stage(("real_small",)),)),
    Source("generated", "generated rows", "generated", (Stage(("generated",)),)),
    Source("real_large", "the large real set", "large_real", (Stage(("real_large",)),)),
    Source("noisy", "corrupted rows", "corrupted", (Stage(("noisy",)),)),
    Source("both", "real and generated rows together", "mixed", (Stage(("real_small", "generated")),)),
    Source(
        "generated_then_real", "generated rows, then real ones", "mixed",
        (Stage(("generated",)), Stage(("real_small",), weighted=False)),
    ),
)  # fmt: skip
SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
#: Names of all stages, for the settings ``stages``.
STAGES = tuple(dict.fromkeys(stage.name for source in _ALL for stage in source.stages))
