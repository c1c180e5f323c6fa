"""What a trial runs with, and where an encoder needs other resources."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.config.resources import ExperimentResources, Resources


def test_an_encoder_may_need_other_resources() -> None:
    resources = ExperimentResources.model_validate(
        {"cpus": 2, "gpus": 0.25, "retries": 5, "encoders": {"large": {"gpus": 1, "workers": 4, "memory_gb": 30}}}
    )
    assert resources.of("small") == Resources(cpus=2, gpus=0.25, retries=5)
    assert resources.of("large") == Resources(cpus=2, gpus=1, workers=4, memory_gb=30, retries=5)


def test_a_trial_without_an_encoder_takes_no_gpu() -> None:
    resources = ExperimentResources(cpus=8, gpus=1, memory_gb=20)
    assert resources.of("") == Resources()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alone": True, "gpus": 0.5}, "expected 0 or 1 with alone: true, found 0.5"),
        ({"alone": True, "concurrent": 2}, "concurrent: expected 1 with alone: true and no GPUs, found 2"),
        ({"gpus": 2}, "expected at most 1 per worker, found 2"),
    ],
)
def test_resources_that_contradict_each_other_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Resources.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "most"), [({}, None), ({"concurrent": 3}, 3), ({"alone": True}, 1), ({"alone": True, "gpus": 1}, None)]
)
def test_most_trials_at_once(settings: dict[str, float], most: int | None) -> None:
    assert Resources.model_validate(settings).most == most
