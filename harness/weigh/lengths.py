"""How much is trained, and in which precision, so that everything fits into the time that the user gives it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.weigh.candidates import CANDIDATES
from harness.weigh.settings import FOLDS, SCREENING

BATCH = 32
#: Of trainings that do not judge.
FIRST_SEED = (0,)
#: Steps on the human rows alone, at least: a model of few rows is more than its prior after about so many.
LEAST_REAL_STEPS = 60
#: Passes over the human rows, and over both files, beyond which more steps are not worth their time.
REAL_EPOCHS, EPOCHS = 5, 3
#: Bounds of the steps, and as many as should be possible before time goes into more seeds or sizes.
LEAST_STEPS, GOOD_STEPS, MOST_STEPS = 40, 60, 400
#: Speed of a process beside others on the cores of one machine, as a share of its speed alone.
SHARED_SPEED = 0.6
#: Seconds that a round and a trial take beside the training.
ROUND_SECONDS, TRIAL_SECONDS = 15.0, 3.0
#: Work of evaluation and scoring beside the training.
EVALUATION = 1.15
ROUNDS = 4
#: Number of seeds, and shares of the human rows for the learning curves beside all of them: the most thorough first.
LEVELS = ((2, (0.25, 0.5)), (2, (0.5,)), (1, (0.5,)))


@dataclass(frozen=True)
class Lengths:
    """How much is trained.

    Attributes:
        steps: optimizer steps on written rows, or on both files together.
        real_steps: on human rows alone.
        seeds: of the trainings that judge.
        shares: of the human rows, for the learning curves, beside all of them.
        seconds: how long all rounds are expected to take.
        precision: of the trainings.
    """

    steps: int
    real_steps: int
    seeds: tuple[int, ...]
    shares: tuple[float, ...]
    seconds: float
    precision: str = "float32"

    def to_json(self, key: str) -> bytes:
        """The content of a file, with a key of what it is for."""
        return json.dumps(asdict(self) | {"key": key}).encode()

    @classmethod
    def read(cls, file: Path, key: str) -> Lengths | None:
        """Reads a file; None if it is missing or damaged, or has another key."""
        try:
            raw = json.loads(file.read_bytes())
            if raw["key"] != key:
                return None
            sizes = tuple(raw["seeds"]), tuple(raw["shares"])
            return cls(raw["steps"], raw["real_steps"], *sizes, raw["seconds"], raw["precision"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def faster(rates: Mapping[str, float]) -> str:
    """The precision to train in, by the rows per second in each."""
    from harness.training.speed import MUCH_FASTER

    return "bfloat16" if rates["bfloat16"] > MUCH_FASTER * rates["float32"] else "float32"


def choose(people: int, written: int, budget: float, rate: float, slots: int, precision: str = "float32") -> Lengths:
    """The most seeds, sizes and then steps with which all rounds fit into the budget, within bounds.

    Args:
        people: number of human rows.
        written: number of written rows.
        budget: seconds.
        rate: rows per second of training in one process alone on the machine.
        slots: trials at once.
        precision: in which that is.
    """
    real_steps = min(max(LEAST_REAL_STEPS, math.ceil(REAL_EPOCHS * people / BATCH)), MOST_STEPS)
    most = min(max(LEAST_STEPS, math.ceil(EPOCHS * (people + written) / BATCH)), MOST_STEPS)
    speed = rate / BATCH * (slots * SHARED_SPEED if slots > 1 else 1.0) / EVALUATION
    for seeds, shares in LEVELS:
        trials, on_both, on_people = count(seeds, len(shares))
        fixed = ROUNDS * ROUND_SECONDS + trials * TRIAL_SECONDS / slots + on_people * real_steps / speed
        fitting = int((budget - fixed) * speed / on_both)
        steps = min(max(fitting, LEAST_STEPS), most)
        if fitting >= min(GOOD_STEPS, most):
            break
    return Lengths(steps, real_steps, tuple(range(seeds)), shares, fixed + on_both * steps / speed, precision)


def count(seeds: int, sizes: int) -> tuple[int, float, float]:
    """Trials; trainings of the full length; trainings on human rows alone, stages included: over all rounds.

    Which candidates are the finalists is not known: they count with the average number of stages on human rows.

    Args:
        seeds: of the trainings that judge.
        sizes: number of smaller shares of the human rows.
    """
    screening, judging = len(SCREENING), FOLDS - len(SCREENING)
    staged = sum(candidate.source == "generated_then_real" for candidate in CANDIDATES) / len(CANDIDATES)
    first = screening * len(CANDIDATES), screening
    runs = seeds * FOLDS - screening  # without those of the first round
    second = 2 * runs + judging, runs
    third = sizes * judging, sizes * judging
    last = 1, 1
    on_both, alone = (sum(column) for column in zip(first, second, third, last, strict=True))
    return on_both + alone, on_both, alone + staged * on_both
