"""What the driver records of a trial on a source that mixes real and generated rows."""

from __future__ import annotations

from harness.driver import plan_files
from harness.ledger.artifacts import PlanRecord, Predictions, Scores, Weights
from harness.recorder import result_frames
from harness.training import run_trial
from tests.training.small import fill, find, make_plan


def test_weights_are_those_of_the_weighed_rows(experiment_file, tmp_path):
    plan = make_plan(experiment_file(grid=[{"source": "both", "methods": ["dimp"]}], seeds=[0]))
    store = fill(plan, tmp_path)
    for job in plan.jobs:
        run_trial.run(job, store, lambda entry: None)
    job = find(plan, "both", "dimp")
    frames = result_frames(job, run_trial.run(job, store, lambda entry: None), plan.splits["tiny"])
    assert set(frames) == {Predictions.FILE, Weights.FILE}
    assert frames[Weights.FILE]["id"].tolist() == list(plan.splits["tiny"]["generated"].ids)
    assert Weights.from_frame(frames[Weights.FILE]).summary()["weight"].nunique() > 10


def test_weights_have_the_corruptions_of_their_rows(experiment_file, tiny_benchmark, tmp_path):
    file = tmp_path / "variant.yaml"
    file.write_text(f"include: {tiny_benchmark}\nsplits:\n  noisy: {{of: generated, flip: 0.25, duplicate: 0.25}}\n")
    grid = [{"source": "noisy", "methods": ["focal"]}]
    plan = make_plan(experiment_file(benchmarks=[str(file)], grid=grid, seeds=[0]))
    store, (job,) = fill(plan, tmp_path), plan.jobs
    (splits,) = plan.splits.values()
    frame = result_frames(job, run_trial.run(job, store, lambda entry: None), splits)[Weights.FILE]
    assert frame["id"].tolist() == list(splits["noisy"].ids)
    assert frame["corruption"].tolist() == list(splits["noisy"].corruptions)
    assert frame["corruption"].value_counts().to_dict() == {"": 36, "flip": 12, "duplicate": 12}


def test_a_plan_survives_its_file_and_names_the_scores_of_a_checker(experiment_file):
    plan = make_plan(experiment_file(seeds=[0]))
    record = PlanRecord.from_bytes(plan_files(plan)[PlanRecord.FILE])
    assert [trial.trial for trial in record.trials] == [job.trial.id for job in plan.jobs]
    (imp,) = (trial for trial in record.trials if trial.label == "imp")
    checker = plan.trials[imp.quality_checker]
    (digests,) = checker.scores.values()
    assert record.scores_file(imp.quality_checker, imp) == Scores.file(imp.quality_checker, digests)
    assert record.sources["generated"]["role"] == "generated"
