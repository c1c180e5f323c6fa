"""Methods that classify without training, e.g. a language model that is shown a few examples."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.config.benchmark import TaskPrompt
from harness.data.split import IntArray, Split
from harness.errors import TrialError
from harness.methods.base import Method, MicroBatch, Settings

if TYPE_CHECKING:  # predicting loads no torch
    from torch import Tensor


@dataclass(frozen=True)
class Classified:
    """Predicted labels and what they cost.

    Attributes:
        labels: class indices, int64 [n]; -1 where no label was predicted, which counts as wrong.
        seconds: duration of an uninterrupted run without cached answers.
        costs: figures for the runtime account; names begin with ``llm_``.
    """

    labels: IntArray
    seconds: float
    costs: dict[str, float]


class Predictor(Method[Settings]):
    """A method that classifies without training: a row of the comparison like any other."""

    trains = False

    def weights(self, batch: MicroBatch) -> Tensor:
        """Not supported.

        Raises:
            TrialError: always.
        """
        raise TrialError(f"{self.name!r} predicts without training: it has no weights")

    @abstractmethod
    def predict(self, rows: Split, examples: Split, task: TaskPrompt, seed: int, scratch: Path) -> Classified:
        """Predicts the labels of ``rows``.

        Args:
            rows: the rows to classify; their labels must not be used.
            examples: the rows of the trial's source.
            task: the task as prompts describe it.
            seed: the trial's seed.
            scratch: a folder that outlives the trial, for what should not be computed or paid for twice.
        """


#: A predictor whatever its settings.
AnyPredictor: TypeAlias = Predictor[Any]
