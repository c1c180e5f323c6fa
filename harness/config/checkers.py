"""Settings of the checkers: what they are trained on, and with which encoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.config.schema import FrozenModel, PathText, Positive

#: Folds of methods that need scores out of fold, where an experiment sets none.
DEFAULT_FOLDS = 5


class Checker(FrozenModel):
    """Settings of a checker, where they differ from those of the trials that use its scores."""

    encoder: PathText | None = None
    """Default: the encoder of the experiment."""
    layers: Positive | None = None
    """How many of the encoder's transformer layers are kept, counted from the input; default: ``training.layers``, or
    all layers of another ``encoder``."""
    temperature: bool = False
    """Calibrate the scores by a temperature that is fitted on the validation rows (Guo et al. 2017)."""


class QualityChecker(Checker):
    """Settings of the quality checker."""

    source: Literal["real_small", "real_large"] = "real_small"
    """What it is trained on. ``real_large`` makes it an oracle: the best checker that real rows can give."""


class DiversityChecker(Checker):
    """Settings of the diversity checker, which is trained on the weighed rows."""

    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Number of folds. Each is scored by a checker that was trained without it; default: one checker, trained on all
    rows that it scores. Methods that need scores out of fold take ``DEFAULT_FOLDS``."""


class Checkers(FrozenModel):
    """Settings of all checkers."""

    quality: QualityChecker = QualityChecker()
    diversity: DiversityChecker = DiversityChecker()
