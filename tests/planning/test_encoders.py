"""Several encoders in one experiment, each with the resources that it needs."""

from __future__ import annotations

from tests.planning.test_trials import jobs_of


def test_encoders_are_an_axis_with_checkers_of_their_own():
    grid = [("real_small", ["ce"]), ("generated", ["dimp"])]
    resources = {"gpus": 0.25, "encoders": {"large": {"gpus": 1, "cpus": 4}}}
    jobs = jobs_of(grid, sweep={"encoder": ["small", "large"]}, resources=resources)
    assert [(job.variants, job.label) for job in jobs] == [
        (("encoder=small",), "ce"), (("encoder=large",), "ce"),
        (("encoder=small",), "dimp"), (("encoder=large",), "dimp"),
    ]  # fmt: skip
    assert {job.trial.encoder: (job.resources.gpus, job.trial.threads, job.trial.device) for job in jobs} == {
        "small": (0.25, 1, "cuda"), "large": (1.0, 4, "cuda"),
    }  # fmt: skip
    ids = {(job.trial.encoder, job.label): job.trial.id for job in jobs}
    for job in jobs:
        if job.label == "dimp":
            assert job.trial.quality == ids[job.trial.encoder, "ce"], "an encoder's checker is its own"


def test_what_changes_no_result_changes_no_id():
    plain = jobs_of([("generated", ["dimp"])])
    more = {"retries": 9, "checkpoint": True, "silence_minutes": 5.0, "alone": True, "memory_gb": 4.0, "concurrent": 1}
    assert [job.trial.id for job in jobs_of([("generated", ["dimp"])], resources=more)] == [
        job.trial.id for job in plain
    ]
