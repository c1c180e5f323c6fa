"""The checkpoint of a trial: all that its training has changed, in the store, so that another process can go on.

It is one artifact of arrays and JSON, written whole after every evaluation in place of the one before. Rows, tokens,
scores and the pretrained encoder are not in it: they are read again. Order and dropout come from named streams; the
position in each is kept.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.methods import AnyMethod
from harness.phases import Phase
from harness.planning.trials import Job, Trial
from harness.store import Arrays, Store
from harness.training.loop import Loop, LoopCheckpoint, Outcome
from harness.training.process_group import ProcessGroup
from harness.training.timing import PhaseTimer
from harness.training.trial_result import environment

KIND = "checkpoints"
#: Increment when a code change makes older checkpoints unusable.
FORMAT = 1
#: What must not change in the middle of a trial, beside the trial itself.
VERSIONS = ("torch", "transformers")

log = logging.getLogger(__name__)


class CheckpointError(Exception):
    """A checkpoint that does not fit the trial; says why."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read.

    Attributes:
        record: everything but the arrays.
        arrays: of the model, the optimizer, each process, and the outcomes.
    """

    record: dict[str, Any]
    arrays: Arrays

    @property
    def stage(self) -> int:
        """The number of the stage that it was written in."""
        return int(self.record["stage"])

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of the stages up to this one, which may not be complete."""
        return [
            _unpack_outcome(entry, _part(self.arrays, f"outcome/{i}/"))
            for i, entry in enumerate(self.record["outcomes"])
        ]

    def apply(self, loop: Loop, method: AnyMethod, group: ProcessGroup) -> None:
        """Brings a new loop, the method of its trial and the random generators into the saved state.

        Raises:
            CheckpointError: it does not fit them.
        """
        try:
            self._apply(loop, method, group)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"it does not fit this trial: {error}") from error

    def _apply(self, loop: Loop, method: AnyMethod, group: ProcessGroup) -> None:
        record, own = self.record, _part(self.arrays, f"process/{group.rank}/")
        loop.plain.load_state_dict(
            {name: torch.tensor(values) for name, values in _part(self.arrays, "model/").items()}
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name, values in _part(self.arrays, "optimizer/").items():
            index, _, key = name.partition("/")
            moments.setdefault(int(index), {})[key] = torch.tensor(values)
        groups = loop.optimizer.state_dict()["param_groups"]
        loop.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        loop.schedule.load_state_dict(record["schedule"])
        for parameters, rate in zip(loop.optimizer.param_groups, loop.schedule.get_last_lr(), strict=True):
            parameters["lr"] = rate
        loop.done, loop.epoch = record["done"], record["epoch"]
        if loop.ahead is not None:
            loop.ahead.skip(record["real_rows"])
        _load_method(method, record["methods"][group.rank], _part(own, "method/"), group.device)
        torch.set_rng_state(torch.tensor(own["generator/cpu"]))
        if group.device.type == "cuda":
            torch.cuda.set_rng_state(torch.tensor(own["generator/cuda"]), group.device)


def read(trial: Trial, store: Store, group: ProcessGroup) -> Saved | None:
    """The checkpoint of a trial; None if there is none that can be used by all processes of the group."""
    saved = None
    try:
        saved = _read(trial, store, group)
    except CheckpointError as error:
        warn(trial, error)
    except Exception as error:  # a damaged file fails in many ways
        warn(trial, CheckpointError(f"it cannot be read ({type(error).__name__}: {error})"))
    position = 0 if saved is None else 1 + sum(len(entry["history"]) for entry in saved.record["outcomes"])
    extremes = torch.tensor([position, -position], device=group.device)
    return saved if torch.equal(group.maximum(extremes.clone()), extremes) else None


def _read(trial: Trial, store: Store, group: ProcessGroup) -> Saved | None:
    arrays = store.get(KIND, trial.id)
    if arrays is None:
        return None
    record = json.loads(arrays.pop("record").tobytes().decode())
    expected = _identity(trial, group)
    found = {key: record.get(key) for key in expected}
    if found != expected:
        key = next(key for key in expected if found[key] != expected[key])
        raise CheckpointError(f"expected {key} {expected[key]!r}, found {found[key]!r}")
    if record["arrays"] != sorted(arrays):
        raise CheckpointError(f"expected {len(record['arrays'])} arrays, found {len(arrays)}")
    return Saved(record, arrays)


def warn(trial: Trial, error: CheckpointError) -> None:
    """Logs that a trial starts anew in spite of its checkpoint."""
    log.warning("the checkpoint of trial %s is ignored, and the trial starts anew: %s", trial.id, error)


def remove(trial: Trial, store: Store) -> None:
    """Removes the checkpoint of a trial, if it has one."""
    store.remove(KIND, trial.id)


class TrialCheckpoint:
    """The checkpoint of a trial while it trains.

    Args:
        job: the trial; without ``job.resources.checkpoint`` nothing is written.
        method: the method of the trial, which may be another than that of a stage.
        store: takes the checkpoint.
        group: the processes that train together; all of them must save at the same step, and the first one writes.
        timer: its seconds are kept, and go on from the saved ones.
        saved: the checkpoint that training goes on from; None to start.
    """

    def __init__(
        self, job: Job, method: AnyMethod, store: Store, group: ProcessGroup, timer: PhaseTimer, saved: Saved | None
    ) -> None:
        self._job, self._method, self._store, self._group, self._timer = job, method, store, group, timer
        self.saved = saved
        self._finished = saved.outcomes[: saved.stage] if saved else []
        self._resumed = saved.record["resumed"] + 1 if saved else 0

    def finished(self, stage: int) -> Outcome | None:
        """The outcome of a stage that ended before the saved one; None for others."""
        return self._finished[stage] if stage < len(self._finished) else None

    def of_stage(self, number: int, earlier: list[Outcome]) -> LoopCheckpoint:
        """For the loop of a stage, after ``earlier`` ones."""
        return StageCheckpoint(self, number, earlier) if self._job.resources.checkpoint else LoopCheckpoint()

    def runtime(self) -> dict[str, float]:
        """How often the trial was resumed, as ``resumed``; empty for a trial that ran in one go."""
        return {"resumed": float(self._resumed)} if self._resumed else {}

    def restore(self, loop: Loop) -> Outcome:
        """Brings the loop of the saved stage into the saved state; returns its outcome so far.

        Raises:
            CheckpointError: the state does not fit the loop.
        """
        saved, self.saved = self.saved, None
        assert saved is not None
        with self._timer.phase(Phase.CHECKPOINT):
            saved.apply(loop, self._method, self._group)
        for key, seconds in saved.record["seconds"].items():
            phase = Phase(key)
            self._timer.seconds[phase] = self._timer.seconds.get(phase, 0.0) + seconds
        return saved.outcomes[-1]

    def save(self, stage: int, earlier: list[Outcome], loop: Loop, outcome: Outcome) -> None:
        """Writes the state of the loop of a stage, in place of the checkpoint before."""
        if stage + 1 == len(self._job.trial.stages) and loop.done == loop.steps and not self._job.scores:
            return  # the result itself is stored next
        with self._timer.phase(Phase.CHECKPOINT):
            values, plain = _method_state(self._method)
            own = {f"method/{name}": array for name, array in values.items()}
            own["generator/cpu"] = torch.get_rng_state().numpy()
            if self._group.device.type == "cuda":
                own["generator/cuda"] = torch.cuda.get_rng_state(self._group.device).numpy()
            processes = self._group.gather((own, plain))
            if self._group.first:
                self._write(stage, [*earlier, outcome], loop, processes)

    def _write(
        self, stage: int, outcomes: list[Outcome], loop: Loop, processes: list[tuple[Arrays, dict[str, Any]]]
    ) -> None:
        arrays = {f"model/{name}": _array(value) for name, value in loop.plain.state_dict().items()}
        for index, moments in loop.optimizer.state_dict()["state"].items():
            arrays |= {f"optimizer/{index}/{key}": _array(value) for key, value in moments.items()}
        for rank, (own, _) in enumerate(processes):
            arrays |= {f"process/{rank}/{name}": values for name, values in own.items()}
        for number, one in enumerate(outcomes):
            arrays |= {f"outcome/{number}/{name}": values for name, values in _outcome_arrays(one).items()}
        record = _identity(self._job.trial, self._group) | {
            "stage": stage, "done": loop.done, "epoch": loop.epoch, "schedule": loop.schedule.state_dict(),
            "real_rows": loop.ahead.drawn if loop.ahead else 0, "methods": [plain for _, plain in processes],
            "outcomes": [_outcome_record(one) for one in outcomes], "resumed": self._resumed,
            "seconds": {phase.value: seconds for phase, seconds in self._timer.seconds.items()},
            "arrays": sorted(arrays),
        }  # fmt: skip
        arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
        try:
            self._store.put(KIND, self._job.trial.id, **arrays)
        except (OSError, UserError) as error:  # a full disk, no connection: the trial itself is fine
            log.warning("no checkpoint of trial %s could be written: %s", self._job.trial.id, error)


class StageCheckpoint(LoopCheckpoint):
    """The part of a trial's checkpoint that the loop of one stage sees."""

    def __init__(self, whole: TrialCheckpoint, stage: int, earlier: list[Outcome]) -> None:
        self._whole, self._stage, self._earlier = whole, stage, earlier

    @property
    def exists(self) -> bool:
        """True if the checkpoint was written in this stage."""
        return self._whole.saved is not None and self._whole.saved.stage == self._stage

    def restore(self, loop: Loop) -> Outcome | None:
        """Brings a loop into the saved state; returns its outcome so far, None without a checkpoint of this stage."""
        return self._whole.restore(loop) if self.exists else None

    def save(self, loop: Loop, outcome: Outcome) -> None:
        """Writes the state of the loop."""
        self._whole.save(self._stage, self._earlier, loop, outcome)


def _identity(trial: Trial, group: ProcessGroup) -> dict[str, Any]:
    """What must agree for a checkpoint to be used; the id covers all settings, the data and the recipe."""
    versions = environment(group)
    return {"trial": trial.id, "format": FORMAT, **{name: versions[name] for name in VERSIONS}}


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = value.detach().cpu().numpy()
    return array


def _part(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names start with a prefix, by the rest of the name."""
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _method_state(method: AnyMethod) -> tuple[Arrays, dict[str, Any]]:
    """The state of a method: arrays, by the device of a tensor (or ``numpy``) and the name; and all else."""
    arrays: Arrays = {}
    plain: dict[str, Any] = {}
    for name, value in method.state().items():
        if isinstance(value, Tensor):
            arrays[f"{value.device.type}/{name}"] = _array(value)
        elif isinstance(value, np.ndarray):
            arrays[f"numpy/{name}"] = value
        else:
            plain[name] = value
    return arrays, plain


def _load_method(method: AnyMethod, plain: dict[str, Any], arrays: Arrays, device: torch.device) -> None:
    state = dict(plain)
    for key, values in arrays.items():
        kind, _, name = key.partition("/")
        state[name] = (
            values if kind == "numpy" else torch.tensor(values, device=device if kind == device.type else kind)
        )
    if missing := method.state().keys() - state.keys():
        raise CheckpointError(f"it has no {sorted(missing)[0]!r} of the method {method.name!r}")
    method.load_state(state)


def _outcome_record(outcome: Outcome) -> dict[str, Any]:
    return {
        "history": outcome.history, "rows_trained": outcome.rows_trained, "steps": outcome.steps,
        "splits": list(outcome.predictions),
    }  # fmt: skip


def _outcome_arrays(outcome: Outcome) -> Arrays:
    if not outcome.history:
        return {}
    predictions = {f"predictions/{name}": np.stack(values) for name, values in outcome.predictions.items()}
    return {"weights": np.stack(outcome.weights), **predictions}


def _unpack_outcome(record: dict[str, Any], arrays: Arrays) -> Outcome:
    return Outcome(
        record["history"], {name: list(arrays.get(f"predictions/{name}", ())) for name in record["splits"]},
        list(arrays.get("weights", ())), record["rows_trained"], record["steps"],
    )  # fmt: skip
