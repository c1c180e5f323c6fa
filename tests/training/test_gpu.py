"""On a CUDA device: trials give a result, and the same trial the same bits."""

from __future__ import annotations

import pytest
import torch

from harness.training import run_trial
from tests.training.small import fill, make_plan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_trial_gives_the_same_bits(experiment_file, tmp_path, precision):
    training = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "precision": precision}
    plan = make_plan(experiment_file(seeds=[0], training=training, resources={"gpus": 1}))
    first, second = (fill(plan, tmp_path / name) for name in ("first", "second"))
    for job in plan.jobs:
        assert job.trial.device == "cuda"
        one, other = (run_trial.run(job, store, lambda entry: None) for store in (first, second))
        assert one.history == other.history
        assert "peak_gpu_memory_mb" in one.runtime
