"""The identity of a trial: every setting that changes its numbers is part of it, and nothing else."""

from __future__ import annotations

import pytest

from harness.config.benchmark import TaskPrompt
from harness.config.experiment import MethodChoice, Training
from harness.planning.plan import resolve
from harness.planning.trials import Job, Trial, describe
from tests.planning.test_trials import TASKS, jobs_of

TRIAL = {
    "task": {"name": "toy", "labels": ["no", "yes"], "digests": {"test": "t", "generated": "g"}},
    "source": "generated",
    "method": {"name": "focal", "settings": {"clip": None, "gamma": 2.0, "normalize": False}},
    "seed": 0,
    "fraction": 0.5,
    "encoder": "somewhere/encoder",
    "encoder_identity": "encoder@1",
    "stages": [{"splits": ["generated"], "weighted": True, "training": {}}],
    "threads": 1,
    "workers": 1,
    "device": "cpu",
    "quality": "a" * 16,
    "diversity": "b" * 16,
    "diversity_folds": [],
    "fold": None,
    "calibrated": [],
}
STAGE = TRIAL["stages"][0]
OTHER = {
    "epochs": 6, "steps": 7, "batch_size": 8, "accumulation": 2, "learning_rate": 5.1e-5, "warmup": 0.2,
    "weight_decay": 0.02, "gradient_norm": 2.0, "max_length": 64, "precision": "bfloat16", "attention": "eager",
    "evaluation_batch_size": 32, "vocabulary": "full", "activations": "full", "evaluations": 3, "layers": 2,
    "pooling": "mean",
}  # fmt: skip


def test_pinned_identity():
    """If this fails, results in every ledger are out of reach: mean it, and raise RECIPE where numbers change."""
    assert Trial.model_validate(TRIAL).id == "a33bc3a96c2f027f"


def test_a_lag_of_dimp_is_part_of_the_identity_only_if_it_is_set():
    """Trials from before this setting keep their identities."""
    ids = {}
    for lag in (None, "none", "epoch", "first"):
        method = resolve(MethodChoice(name="dimp", settings={} if lag is None else {"lag": lag})).choice
        ids[lag] = Trial.model_validate(TRIAL | {"method": method.model_dump()}).id
    assert ids[None] == ids["none"] == "3cb20298b3dc00ac"
    assert len(set(ids.values())) == 3


@pytest.mark.parametrize("setting", sorted(Training.model_fields))
def test_every_training_setting_is_part_of_the_identity(setting):
    changed = Trial.model_validate(TRIAL | {"stages": [STAGE | {"training": {setting: OTHER[setting]}}]})
    assert changed.id != Trial.model_validate(TRIAL).id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", TRIAL["task"] | {"name": "other"}),
        ("task", TRIAL["task"] | {"labels": ["yes", "no"]}),
        ("task", TRIAL["task"] | {"digests": {"test": "t", "generated": "h"}}),
        ("source", "noisy"),
        ("method", {"name": "ce"}),
        ("method", {"name": "focal", "settings": {"clip": None, "gamma": 1.0, "normalize": False}}),
        ("method", {"name": "focal", "settings": {"clip": 3.0, "gamma": 2.0, "normalize": False}}),
        ("seed", 1),
        ("fraction", 1.0),
        ("fraction", None),
        ("encoder_identity", "encoder@2"),
        ("threads", 2),
        ("workers", 2),
        ("device", "cuda"),
        ("quality", "c" * 16),
        ("diversity", None),
        ("diversity_folds", ["d" * 16, "e" * 16]),
        ("fold", {"number": 0, "of": 5}),
        ("calibrated", ["quality"]),
        ("recipe", 1),
        ("stages", [STAGE | {"splits": ["noisy"]}]),
        ("stages", [STAGE | {"weighted": False}]),
        ("stages", [STAGE, STAGE]),
    ],
)
def test_every_field_is_part_of_the_identity(field, value):
    assert Trial.model_validate(TRIAL | {field: value}).id != Trial.model_validate(TRIAL).id


def test_no_field_is_forgotten_here():
    assert set(OTHER) == set(Training.model_fields)
    assert {*TRIAL, "recipe"} == set(Trial.model_fields)


def test_a_changed_copy_has_an_id_of_its_own():
    trial = Trial.model_validate(TRIAL)
    assert trial.model_copy(update={"seed": 9}).id == Trial.model_validate(TRIAL | {"seed": 9}).id != trial.id


def test_where_the_encoder_lies_is_no_part_of_the_identity():
    assert Trial.model_validate(TRIAL | {"encoder": "elsewhere"}).id == Trial.model_validate(TRIAL).id


def test_a_trial_survives_json():
    trial = Trial.model_validate(TRIAL)
    assert Trial.model_validate_json(trial.model_dump_json()).id == trial.id


def test_what_language_models_are_asked_is_no_part_of_a_training() -> None:
    """Planning leaves it out, as it did when the ids in ledgers were made."""
    task = TASKS["toy"]
    asked = {
        "toy": task.model_copy(
            update={"prompt": TaskPrompt(name="toy", description="d", labels=("no", "yes"), text="text", label="label")}
        )
    }
    (plain,), (prompted,) = (jobs_of([("generated", ["ce"])], tasks) for tasks in (TASKS, asked))
    assert prompted.trial.id == plain.trial.id
    assert prompted.trial.task.prompt is None


def test_describe():
    trial = Trial.model_validate(TRIAL)
    job = Job(trial=trial, label="focal", variants=("learning_rate=1e-05", "x"))
    assert describe(job) == "toy · generated · focal · seed 0 · real 50% · learning_rate=1e-05"
    whole = Job(trial=trial.model_copy(update={"fraction": 1.0}), label="ce", variants=("",))
    assert describe(whole) == "toy · generated · ce · seed 0"
