"""A trial that goes on from its checkpoint gives the bits of one that was never interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.checkers.scores import load_scores
from harness.config.experiment import MethodChoice
from harness.methods import Method, MethodSettings, methods
from harness.planning.plan import resolve
from harness.store import Store
from harness.training import checkpoint, run_trial
from tests.training.small import HERE, fill, find, make_plan

TORCH = torch.__version__


LAGGED = {"name": "dimp", "lag": "epoch"}
#: Methods with state of their own, in settings in which the state matters.
STATEFUL = [
    LAGGED,
    {"name": "hu", "warm_up": 0, "real_rows": 5},
    {"name": "ren", "warm_up": 1, "real_rows": 7},
    {"name": "sungen", "rounds": 1, "inner_epochs": 1},
]
#: All others; ``mix`` needs real rows beside others.
OTHERS = sorted({name for name, kind in methods.entries.items() if kind.trains} - {"mix", "hu", "ren", "sungen"})


def run(job, store):
    """The result of a job, and all that it reported."""
    reported = []
    return run_trial.run(job, store, reported.append), reported


def interrupt(job, store, at):
    """Runs a job until its evaluation ``at``, counted from 1, whose checkpoint is not written any more."""

    def report(entry):
        if entry["epoch"] == at:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_trial.run(job, store, report)


def assert_same_bits(result, expected):
    assert result.history == expected.history
    assert result.arrays.keys() == expected.arrays.keys()
    for name, values in expected.arrays.items():
        assert result.arrays[name].dtype == values.dtype
        assert result.arrays[name].tobytes() == values.tobytes(), name


def has_checkpoint(job, store):
    return store.has(checkpoint.KIND, job.trial.id)


@pytest.fixture(scope="module")
def encoder(tiny_encoder, tmp_path_factory):
    """The tiny encoder with dropout."""
    folder = tmp_path_factory.mktemp("dropout") / "encoder"
    shutil.copytree(tiny_encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config | dropout))
    return folder


@pytest.fixture(scope="module")
def plan(encoder, experiment_file):
    """Three epochs of three steps with four evaluations, two of them within an epoch."""
    grid = [
        {"source": "generated", "methods": [*STATEFUL, *OTHERS]},
        {"source": "both", "methods": ["mix"]},
        {"source": "generated_then_real", "methods": [LAGGED]},
    ]
    training = {"epochs": 3, "evaluations": 4, "batch_size": 16, "learning_rate": 5e-3}
    stages = {"real_small": {"steps": 4}}
    resources = {"checkpoint": True}
    return make_plan(
        experiment_file(
            encoder=str(encoder), grid=grid, seeds=[0], training=training, stages=stages, resources=resources
        )
    )


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    """The results of trials that were not interrupted, with the scores of their checkers."""
    return fill(plan, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def pair(plan, undisturbed, tmp_path):
    """Gives a job's undisturbed result, and another store that has all but this result."""

    def of(job):
        for checker in job.trial.checkers:
            run_trial.run(plan.trials[checker], undisturbed, lambda entry: None)
        result, _ = run(job, undisturbed)
        shutil.copytree(undisturbed.root, tmp_path / "store", ignore=shutil.ignore_patterns("trials"))
        return result, Store(str(tmp_path / "store"))

    return of


def test_a_checkpoint_is_no_part_of_a_trial(experiment_file):
    with_it, without = (
        make_plan(experiment_file(resources={"checkpoint": value}, seeds=[0])) for value in (True, False)
    )
    assert [job.trial.id for job in with_it.jobs] == [job.trial.id for job in without.jobs]
    assert all(job.resources.checkpoint for job in with_it.jobs)
    assert not any(job.resources.checkpoint for job in without.jobs)


CELLS = [
    *(pytest.param("generated", method, (3,), id=str(method["name"])) for method in STATEFUL),
    pytest.param("generated_then_real", LAGGED, (2, 5, 7), id="two stages"),  # 4 evaluations each
    *(pytest.param("generated", name, (3,), id=name, marks=pytest.mark.slow) for name in OTHERS),
    pytest.param("both", "mix", (3,), id="mix", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("source", "method", "interruptions"), CELLS)
def test_a_resumed_trial_gives_the_same_bits(plan, pair, source, method, interruptions):
    job = find(plan, source, resolve(MethodChoice.model_validate(method)).label)
    expected, store = pair(job)
    for at in interruptions:
        interrupt(job, store, at)
        assert has_checkpoint(job, store)
    result, reported = run(job, store)
    assert_same_bits(result, expected)
    assert reported == result.history, "a resumed trial reports all evaluations again"
    assert result.runtime["resumed"] == len(interruptions)
    assert "resumed" not in expected.runtime
    assert not has_checkpoint(job, store)


KILLED = """
import os, signal, sys
from harness.planning.trials import Job
from harness.store import Store
from harness.training.run_trial import run

def report(entry):
    if entry["epoch"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

run(Job.model_validate_json(sys.stdin.read()), Store(sys.argv[1]), report)
"""


def test_a_trial_goes_on_after_its_process_was_killed(plan, pair):
    """Of a checker, whose scores need the decayed embeddings of tokens that its training has not met."""
    job = find(plan, "real_small", "ce")
    assert list(job.scores) == ["generated"]
    expected, store = pair(job)
    scores = load_scores(job.trial.id, job.scores["generated"], store)
    shutil.rmtree(f"{store.root}/scores")
    done = subprocess.run([sys.executable, "-c", KILLED, store.root], input=job.model_dump_json(), text=True)
    assert done.returncode == -signal.SIGKILL
    assert has_checkpoint(job, store)
    result, _ = run(job, store)
    assert_same_bits(result, expected)
    assert result.runtime["resumed"] == 1
    again = load_scores(job.trial.id, job.scores["generated"], store)
    assert again.log_probabilities.tobytes() == scores.log_probabilities.tobytes()


@pytest.fixture(scope="module")
def stopped(plan, undisturbed, tmp_path_factory):
    """A trial that was interrupted after its first evaluation, its undisturbed result, and the folder of the store."""
    job, folder = find(plan, "real_small", "ce"), tmp_path_factory.mktemp("stopped") / "store"
    expected, _ = run(job, undisturbed)
    shutil.copytree(undisturbed.root, folder, ignore=shutil.ignore_patterns("trials"))
    interrupt(job, Store(str(folder)), 2)
    return job, expected, folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    """As ``stopped``, with a store of its own."""
    job, expected, folder = stopped
    shutil.copytree(folder, tmp_path / "store")
    return job, expected, Store(str(tmp_path / "store"))


def change(job, store, record, **replaced):
    """Rewrites a checkpoint with other facts and arrays; None removes an array."""
    arrays = store.get(checkpoint.KIND, job.trial.id)
    assert replaced.keys() <= arrays.keys()
    facts = json.loads(arrays["record"].tobytes()) | record
    arrays |= {"record": np.frombuffer(json.dumps(facts).encode(), np.uint8), **replaced}
    store.put(checkpoint.KIND, job.trial.id, **{name: array for name, array in arrays.items() if array is not None})


def spoil(job, store):
    """Changes one bit in the middle of the file."""
    file = Path(store.root, checkpoint.KIND, f"{job.trial.id}.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(job, store):
    os.truncate(f"{store.root}/{checkpoint.KIND}/{job.trial.id}.npz", 5000)


FOREIGN = {
    "a bit flipped": (spoil, "it cannot be read"),
    "half a file": (truncate, "it cannot be read"),
    "another trial": (lambda job, store: change(job, store, {"trial": "0"}), "expected trial '{id}', found '0'"),
    "another torch": (lambda job, store: change(job, store, {"torch": "1"}), f"expected torch {TORCH!r}, found '1'"),
    "another format": (lambda job, store: change(job, store, {"format": 0}), "expected format 1, found 0"),
    "without an array": (
        lambda job, store: change(job, store, {}, **{"optimizer/0/exp_avg": None}),
        "arrays, found ",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_damaged_or_foreign_checkpoint_is_not_read(interrupted, caplog, kind):
    job, _, store = interrupted
    assert checkpoint.read(job.trial, store, HERE).stage == 0
    damage, message = FOREIGN[kind]
    damage(job, store)
    assert checkpoint.read(job.trial, store, HERE) is None
    (reason,) = warnings_of(job, caplog)
    assert message.format(id=job.trial.id) in reason


def warnings_of(job, caplog):
    """The reasons in the warnings that a checkpoint is ignored."""
    start = f"the checkpoint of trial {job.trial.id} is ignored, and the trial starts anew: "
    lines = [record.getMessage() for record in caplog.records if record.name == checkpoint.__name__]
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


def test_a_trial_whose_checkpoint_does_not_fit_starts_anew(interrupted, caplog):
    job, expected, store = interrupted
    change(job, store, {}, **{"model/classifier.bias": np.zeros(4, np.float32)})
    result, reported = run(job, store)
    assert_same_bits(result, expected)
    assert reported == expected.history
    assert "resumed" not in result.runtime
    (reason,) = warnings_of(job, caplog)
    assert reason.startswith("it does not fit this trial: Error")
    assert not has_checkpoint(job, store)


def test_seconds_of_a_resumed_trial_are_those_of_all_its_parts(interrupted):
    job, _, store = interrupted
    record = json.loads(store.get(checkpoint.KIND, job.trial.id)["record"].tobytes())
    change(job, store, {"seconds": record["seconds"] | {"train": 1000.0}})
    result, _ = run(job, store)
    assert 1000.0 < result.runtime["seconds_train"] < 1100.0
    assert result.runtime["seconds_checkpoint"] > 0.0


def test_without_the_setting_nothing_is_kept_or_read(interrupted, monkeypatch):
    job, expected, store = interrupted
    monkeypatch.setattr(checkpoint.TrialCheckpoint, "save", lambda *_: pytest.fail("kept"))
    result, _ = run(job.model_copy(update={"resources": job.resources.model_copy(update={"checkpoint": False})}), store)
    assert_same_bits(result, expected)
    assert "resumed" not in result.runtime
    assert "seconds_checkpoint" not in result.runtime


def test_a_store_that_refuses_a_checkpoint_does_not_stop_the_trial(plan, pair, monkeypatch, caplog):
    job = find(plan, "real_small", "ce")
    expected, store = pair(job)
    put = Store.put

    def refuse(self, kind, key, **arrays):
        if kind == checkpoint.KIND:
            raise OSError(28, "No space left on device")
        put(self, kind, key, **arrays)

    monkeypatch.setattr(Store, "put", refuse)
    assert_same_bits(run(job, store)[0], expected)
    assert f"no checkpoint of trial {job.trial.id} could be written: [Errno 28] No space left" in caplog.text


class Counter(Method[MethodSettings]):
    """Has a number, an array and something else as its state."""

    name = "counter"

    def __init__(self):
        super().__init__()
        self.steps, self.rows, self.last, self.log = 3, np.arange(4), None, [1]

    def weights(self, batch):
        return batch.logits.new_ones(len(batch.labels))


def test_the_state_of_a_method_is_what_it_counts_and_measures():
    assert Counter().state().keys() == {"steps", "rows", "last"}
    method = Counter()
    method.load_state({"steps": 5, "rows": np.zeros(4), "last": None})
    assert (method.steps, method.rows.sum(), method.settings, method.log) == (5, 0, Counter().settings, [1])
