"""From an experiment to jobs: each trial once, checkers shared and first."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.config.experiment import Experiment, MethodChoice
from harness.config.sources import SOURCES, Source, Stage
from harness.data.folds import Fold
from harness.encoders import EncoderInfo
from harness.errors import UserError
from harness.planning.expansion import expand
from harness.planning.plan import missing, resolve
from harness.planning.trials import Job, Task, describe, label
from tests.training.small import fill, find, make_plan

DIGESTS = {name: f"{name}-digest" for name in ("real_small", "generated", "validation", "test")}
LAYERS = 6


def describe_encoder(encoder):
    return EncoderInfo(f"{encoder}@1", LAYERS)


TASKS = {"toy": Task(name="toy", labels=("no", "yes"), digests=DIGESTS)}


def jobs_of(grid, tasks=TASKS, **more) -> list[Job]:
    rows = [{"source": source, "methods": methods} for source, methods in grid]
    experiment = Experiment(name="e", benchmarks=["toy"], grid=rows, **{"seeds": [0]} | more)
    return expand(experiment, tasks, describe_encoder, resolve)


def cells(jobs) -> Counter:
    return Counter((job.trial.source, job.label, job.requested) for job in jobs)


def test_the_rows_of_plain_cross_entropy_are_the_checkers():
    jobs = jobs_of([("real_small", ["ce"]), ("generated", ["ce", "imp", "dimp"])])
    assert cells(jobs) == {
        ("real_small", "ce", True): 1, ("generated", "ce", True): 1,
        ("generated", "imp", True): 1, ("generated", "dimp", True): 1,
    }  # fmt: skip
    real, plain, imp, dimp = (
        next(job for job in jobs if (job.trial.source, job.label) == cell)
        for cell in (("real_small", "ce"), ("generated", "ce"), ("generated", "imp"), ("generated", "dimp"))
    )
    assert (imp.trial.quality, imp.trial.diversity) == (real.trial.id, plain.trial.id)
    assert (dimp.trial.quality, dimp.trial.diversity) == (real.trial.id, None)
    assert imp.trial.checkers == (real.trial.id, plain.trial.id)
    expected = {"generated": {"generated": "generated-digest"}}
    assert (real.scores, plain.scores, imp.scores, dimp.scores) == (expected, expected, {}, {})


def test_checkers_outside_the_grid_are_added_once():
    jobs = jobs_of([("generated", ["imp", "dimp", "imp_quality", "filter"])], seeds=[0, 1])
    assert cells(jobs) == {
        ("real_small", "ce", False): 2, ("generated", "ce", False): 2, ("generated", "imp", True): 2,
        ("generated", "dimp", True): 2, ("generated", "imp_quality", True): 2, ("generated", "filter", True): 2,
    }  # fmt: skip


def test_a_row_may_have_fewer_seeds():
    rows = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": ["dimp"], "seeds": [1]}]
    experiment = Experiment(name="e", benchmarks=["toy"], grid=rows, seeds=[0, 1])
    jobs = expand(experiment, TASKS, describe_encoder, resolve)
    assert [(job.label, job.trial.seed) for job in jobs] == [("ce", 0), ("ce", 1), ("dimp", 1)]
    assert jobs[2].trial.quality == jobs[1].trial.id


@pytest.mark.parametrize("grid", [[("generated", ["imp", "ce"])], [("generated", ["ce", "imp"])]])
def test_a_checker_is_requested_wherever_its_row_stands(grid):
    assert cells(jobs_of(grid))["generated", "ce", True] == 1
    assert cells(jobs_of(grid))["real_small", "ce", False] == 1


def test_a_quality_checker_scores_every_source_that_needs_it():
    tasks = {"toy": Task(name="toy", labels=("no", "yes"), digests=DIGESTS | {"real_large": "large"})}
    jobs = jobs_of([("generated", ["dimp"]), ("real_large", ["dimp"]), ("both", ["imp"])], tasks)
    real = next(job for job in jobs if job.trial.source == "real_small")
    assert real.scores == {
        "generated": {"generated": "generated-digest"},
        "real_large": {"real_large": "large"},
    }, "real rows of `both` keep weight 1: only the generated ones are scored"
    assert len(jobs) == 5
    imp = next(job for job in jobs if job.trial.source == "both").trial
    diversity = next(job for job in jobs if job.trial.id == imp.diversity)
    assert (diversity.trial.source, list(diversity.scores)) == ("generated", ["generated"])


def test_two_stages():
    jobs = jobs_of([("generated_then_real", ["imp"])], stages={"real_small": {"steps": 7}})
    (trial,) = (job.trial for job in jobs if job.requested)
    assert [(stage.splits, stage.weighted, stage.training.steps) for stage in trial.stages] == [
        (("generated",), True, None), (("real_small",), False, 7),
    ]  # fmt: skip
    assert trial.evaluations == 10
    assert cells(jobs) == {
        ("real_small", "ce", False): 1, ("generated", "ce", False): 1, ("generated_then_real", "imp", True): 1,
    }  # fmt: skip


def test_adding_a_source_is_one_entry(monkeypatch):
    new = Source("real_and_noisy", "real and corrupted rows", "mixed", (Stage(("real_small", "noisy")),))
    monkeypatch.setitem(SOURCES, new.name, new)
    tasks = {"toy": Task(name="toy", labels=("no", "yes"), digests=DIGESTS | {"noisy": "n"})}
    jobs = jobs_of([("real_and_noisy", ["dimp"])], tasks)
    assert [list(job.scores) for job in jobs] == [["noisy"], []]


def test_imp_on_the_real_rows_has_one_checker_for_both():
    jobs = jobs_of([("real_small", ["imp"])])
    assert cells(jobs) == {("real_small", "ce", False): 1, ("real_small", "imp", True): 1}
    assert jobs[1].trial.checkers == (jobs[0].trial.id,)


def test_counts_of_a_full_grid():
    tasks = TASKS | {"other": Task(name="other", labels=("a", "b"), digests={k: f"o{v}" for k, v in DIGESTS.items()})}
    grid = [("real_small", ["ce"]), ("generated", ["ce", "focal", "imp", "dimp"])]
    jobs = jobs_of(grid, tasks, seeds=[0, 1, 2], quality_fractions=[0.5, 1.0])
    # real_small ce, imp and dimp by fraction; ce and focal on generated rows use no real ones
    assert len(jobs) == 2 * 3 * (2 + 1 + 1 + 2 + 2)
    assert len({job.trial.id for job in jobs}) == len(jobs)
    assert {job.trial.fraction for job in jobs if job.label == "focal"} == {None}
    assert {job.trial.fraction for job in jobs if job.label == "imp"} == {0.5, 1.0}
    by_id = {job.trial.id: job.trial for job in jobs}
    for job in jobs:
        for checker in (by_id[id_] for id_ in job.trial.checkers):
            assert (checker.seed, checker.task.name) == (job.trial.seed, job.trial.task.name)
            assert checker.fraction in (None, job.trial.fraction)


def test_checkers_come_first_and_the_most_awaited_ones_first_of_all():
    jobs = jobs_of([("generated", ["focal", "imp", "dimp"])])
    ids = [job.trial.id for job in jobs]
    for job in jobs:
        assert all(ids.index(checker) < ids.index(job.trial.id) for checker in job.trial.checkers)
    assert [(job.trial.source, job.label) for job in jobs[:2]] == [("real_small", "ce"), ("generated", "ce")]
    assert [job.label for job in jobs[2:]] == ["focal", "imp", "dimp"]


def test_the_real_rows_are_trained_on_by_steps():
    jobs = jobs_of([("real_small", ["ce", "focal"]), ("generated", ["ce"])], stages={"real_small": {"steps": 33}})
    assert {(job.trial.source, job.trial.training.steps) for job in jobs} == {("real_small", 33), ("generated", None)}


def test_a_trial_that_serves_several_variants_appears_once():
    sweep = {"stages.real_small.steps": [40, 80]}
    jobs = jobs_of([("generated", ["ce", "dimp"])], sweep=sweep)
    both, first, second = ("steps=40", "steps=80"), ("steps=40",), ("steps=80",)
    assert Counter((job.trial.source, job.label, job.variants) for job in jobs) == {
        ("generated", "ce", both): 1, ("real_small", "ce", first): 1, ("real_small", "ce", second): 1,
        ("generated", "dimp", first): 1, ("generated", "dimp", second): 1,
    }  # fmt: skip
    by_id = {job.trial.id: job for job in jobs}
    for job in jobs:
        if job.label == "dimp":
            assert f"steps={by_id[job.trial.quality].trial.training.steps}" == job.variants[0]


LARGE = {"toy": Task(name="toy", labels=("no", "yes"), digests=DIGESTS | {"real_large": "large"})}


def test_checkers_as_by_default_change_no_identity():
    grid = [("real_small", ["ce"]), ("generated", ["ce", "imp", "dimp"])]
    plain = [job.trial.id for job in jobs_of(grid)]
    encoder = Experiment.model_fields["encoder"].default
    for checkers in (
        {"quality": {"source": "real_small"}, "diversity": {}},
        {"quality": {"encoder": encoder, "layers": LAYERS}, "diversity": {"layers": LAYERS}},
    ):
        assert [job.trial.id for job in jobs_of(grid, checkers=checkers)] == plain
    assert [job.trial.id for job in jobs_of(grid, training={"layers": LAYERS})] == plain


def test_an_oracle_is_cross_entropy_on_the_large_real_set():
    methods = ["dimp", "filter", "relabel", "rho", "imp", "imp_quality", {"name": "power", "a": 1}]
    jobs = jobs_of(
        [("real_large", ["ce"]), ("generated", methods)], LARGE, checkers={"quality": {"source": "real_large"}},
        quality_fractions=[0.1, 1.0],
    )  # fmt: skip
    oracle = next(job for job in jobs if job.trial.source == "real_large")
    assert (oracle.label, oracle.requested, oracle.trial.fraction) == ("ce", True, None)
    assert oracle.trial.training.steps is None, "its length is that of its source"
    assert oracle.scores == {"generated": {"generated": "generated-digest"}}
    users = [job.trial for job in jobs if job.trial.source == "generated" and job.label != "ce"]
    assert len(users) == len(methods), "no method depends on the share of real_small"
    assert {trial.quality for trial in users} == {oracle.trial.id}
    assert all("real_small" not in trial.task.digests and trial.fraction is None for trial in users)
    assert not any(job.trial.source == "real_small" for job in jobs)


def test_an_oracle_leaves_real_rows_to_methods_that_need_them():
    jobs = jobs_of(
        [("both", ["dimp"]), ("generated", ["prior"])], LARGE, checkers={"quality": {"source": "real_large"}}
    )
    for job in jobs:
        assert ("real_small" in job.trial.task.digests) == job.requested


def test_an_oracle_without_a_large_real_set():
    with pytest.raises(UserError) as caught:
        jobs_of([("generated", ["dimp"])], checkers={"quality": {"source": "real_large"}})
    assert str(caught.value) == (
        "checkers.quality.source: benchmark 'toy' has no split 'real_large', which the source 'real_large' needs; it "
        "has ['generated', 'real_small']"
    )


def test_checkers_with_another_encoder_or_fewer_layers():
    checkers = {"quality": {"encoder": "folder/large", "layers": 4}, "diversity": {"layers": 2}}
    jobs = jobs_of([("real_small", ["ce"]), ("generated", ["ce", "imp", "dimp"])], checkers=checkers, encoder="own")
    assert cells(jobs) == {
        ("real_small", "ce", True): 1, ("real_small", "ce (large, layers=4)", False): 1,
        ("generated", "ce", True): 1, ("generated", "ce (layers=2)", False): 1,
        ("generated", "imp", True): 1, ("generated", "dimp", True): 1,
    }  # fmt: skip
    by_label = {(job.trial.source, job.label): job.trial for job in jobs}
    quality, diversity = by_label["real_small", "ce (large, layers=4)"], by_label["generated", "ce (layers=2)"]
    assert (quality.encoder, quality.encoder_identity, quality.training.layers) == ("folder/large", "folder/large@1", 4)
    assert (diversity.encoder_identity, diversity.training.layers) == ("own@1", 2)
    imp = by_label["generated", "imp"]
    assert (imp.encoder_identity, imp.training.layers) == ("own@1", None)
    assert (imp.quality, imp.diversity) == (quality.id, diversity.id)
    assert by_label["generated", "dimp"].quality == quality.id


def test_checkers_are_cut_like_the_classifier_unless_told_otherwise():
    def layers(**more):
        jobs = jobs_of([("generated", ["imp"])], training={"layers": 3}, encoder="own", **more)
        by_id = {job.trial.id: job.trial for job in jobs}
        imp = next(trial for trial in by_id.values() if trial.checkers)
        return [trial.training.layers for trial in (imp, by_id[imp.quality], by_id[imp.diversity])]

    assert layers() == [3, 3, 3]
    assert layers(checkers={"quality": {"layers": LAYERS}, "diversity": {"layers": 2}}) == [3, None, 2]
    assert layers(checkers={"quality": {"encoder": "other"}}) == [3, None, 3]


def test_a_sweep_of_layers_trains_every_model_once():
    sweep = {"training.layers": [2, LAYERS], "checkers.quality.layers": [2, LAYERS]}
    jobs = jobs_of([("real_small", ["ce"]), ("generated", ["dimp"])], sweep=sweep)
    small, large = (
        tuple(f"layers={own}, quality.layers={checker}" for checker in (2, LAYERS)) for own in (2, LAYERS)
    )  # fmt: skip
    assert Counter((job.trial.source, job.label, job.trial.training.layers, job.variants) for job in jobs) == {
        ("real_small", "ce", 2, small): 1, ("real_small", "ce", None, large): 1,
        ("generated", "dimp", 2, small[:1]): 1, ("generated", "dimp", 2, small[1:]): 1,
        ("generated", "dimp", None, large[:1]): 1, ("generated", "dimp", None, large[1:]): 1,
    }, "a checker appears only in the variants whose grid contains it"  # fmt: skip
    checkers = {job.trial.id: job.trial.training.layers for job in jobs if not job.trial.checkers}
    for job in jobs:
        if job.label == "dimp":
            expected = job.variants[0].rpartition("=")[2]
            assert str(checkers[job.trial.quality] or LAYERS) == expected


@pytest.mark.parametrize(
    ("settings", "group"),
    [({"training": {"layers": 7}}, "training"), ({"checkers": {"diversity": {"layers": 7}}}, "checkers.diversity")],
)
def test_more_layers_than_the_encoder_has(settings, group):
    with pytest.raises(UserError) as caught:
        jobs_of([("generated", ["ce"])], encoder="own", **settings)
    assert str(caught.value) == f"{group}.layers: the encoder 'own' has 6 layers; expected at most as many, found 7"


def test_mean_pooling_with_an_encoder_that_cannot_have_it():
    def describe_other(encoder):
        return EncoderInfo(f"{encoder}@1", 6, "distilbert" if encoder == "small" else None)

    settings = {"training": {"pooling": "mean"}, "checkers": {"quality": {"encoder": "small"}}}
    experiment = Experiment(name="e", benchmarks=["toy"], grid=[{"source": "generated", "methods": ["ce"]}], **settings)
    with pytest.raises(UserError, match=r"pooling mean: the encoder 'small' is of the kind 'distilbert'; expected one"):
        expand(experiment, TASKS, describe_other, resolve)


def test_pooling_is_part_of_the_id_of_a_trial_only_where_it_is_not_the_default():
    first, default, mean = (jobs_of([("generated", ["ce"])], training=t)[0].trial for t in
                            ({"pooling": "first"}, {}, {"pooling": "mean"}))  # fmt: skip
    assert first.id == default.id != mean.id


def test_a_diversity_checker_of_folds():
    grid = [("generated", ["ce", "imp", {"name": "imp", "clip": 3}])]
    jobs = jobs_of(grid, checkers={"diversity": {"folds": 3}})
    folds = [job for job in jobs if job.trial.fold]
    assert cells(jobs) == {
        ("real_small", "ce", False): 1, ("generated", "ce (3 folds)", False): 3, ("generated", "ce", True): 1,
        ("generated", "imp", True): 1, ("generated", "imp(clip=3.0)", True): 1,
    }, "methods share the folds"  # fmt: skip
    assert [job.trial.fold for job in folds] == [Fold(number=number, of=3) for number in range(3)]
    assert all(job.scores == {"generated": {"generated": "generated-digest"}} for job in folds)
    plain = next(job for job in jobs if job.label == "ce" and job.requested)
    assert [job.trial.model_copy(update={"fold": None}).id for job in folds] == [plain.trial.id] * 3
    imp = next(job for job in jobs if job.label == "imp").trial
    assert (imp.diversity, imp.diversity_folds) == (None, tuple(job.trial.id for job in folds))
    assert imp.checkers == (imp.quality, *imp.diversity_folds)
    assert max(jobs.index(job) for job in folds) < min(jobs.index(job) for job in jobs if job.trial.checkers)
    assert "fold 1 of 3" in describe(folds[0])


def test_confident_needs_scores_out_of_fold():
    grid = [("generated", ["confident", "imp"])]
    jobs = jobs_of(grid)
    assert cells(jobs) == {
        ("real_small", "ce", False): 1, ("generated", "ce", False): 1, ("generated", "ce (5 folds)", False): 5,
        ("generated", "confident", True): 1, ("generated", "imp", True): 1,
    }, "imp keeps the checker that was trained on all rows"  # fmt: skip
    confident = next(job.trial for job in jobs if job.label == "confident")
    assert (confident.fraction, confident.quality, confident.diversity) == (None, None, None)
    assert len(confident.diversity_folds) == 5
    jobs = jobs_of(grid, checkers={"diversity": {"folds": 2}})
    confident, imp = (next(job.trial for job in jobs if job.label == name) for name in ("confident", "imp"))
    assert len(confident.diversity_folds) == 2
    assert imp.diversity_folds == confident.diversity_folds


def test_ratio_needs_checkers_only_with_imp():
    jobs = jobs_of([("generated", ["ratio", {"name": "ratio", "times_imp": True}])])
    assert cells(jobs) == {
        ("real_small", "ce", False): 1, ("generated", "ce", False): 1, ("generated", "ratio", True): 1,
        ("generated", "ratio(times_imp=True)", True): 1,
    }  # fmt: skip
    assert all("real_small" in job.trial.task.digests for job in jobs if job.requested)
    alone = next(job.trial for job in jobs if job.label == "ratio")
    assert (alone.checkers, alone.fraction) == ((), 1.0)


def test_folds_are_those_of_their_number_and_encoder():
    grid = [("generated", ["imp"])]
    every = [
        job.trial.id for checkers in ({"folds": 3}, {"folds": 2}, {"folds": 2, "layers": 4})
        for job in jobs_of(grid, checkers={"diversity": checkers}) if job.trial.fold
    ]  # fmt: skip
    assert len(every) == len(set(every)) == 7


def test_calibrated_scores_come_from_the_same_checker():
    sweep = {"checkers.quality.temperature": [False, True]}
    jobs = jobs_of([("generated", ["dimp", "confident"])], sweep=sweep, checkers={"diversity": {"folds": 2}})
    assert cells(jobs) == {
        ("real_small", "ce", False): 1, ("generated", "ce (2 folds)", False): 2, ("generated", "dimp", True): 2,
        ("generated", "confident", True): 1,
    }  # fmt: skip
    checker = next(job for job in jobs if job.trial.source == "real_small")
    assert (list(checker.scores), checker.calibrated) == (["generated"], ("generated",))
    assert checker.calibrated_scores == [{"generated": "generated-digest"}]
    plain, calibrated = (job for job in jobs if job.label == "dimp")
    assert (plain.trial.calibrated, calibrated.trial.calibrated) == ((), ("quality",))
    assert plain.trial.quality == calibrated.trial.quality == checker.trial.id
    assert plain.trial.id != calibrated.trial.id
    assert plain.trial.id == next(job.trial.id for job in jobs_of([("generated", ["dimp"])]) if job.label == "dimp")
    assert all(job.calibrated == () for job in jobs if job.trial.fold)


def test_a_source_that_the_benchmark_lacks():
    with pytest.raises(UserError) as caught:
        jobs_of([("noisy", ["ce"])])
    assert str(caught.value) == (
        "benchmark 'toy' has no split 'noisy', which the source 'noisy' needs; it has ['generated', 'real_small']"
    )


def test_powers_need_a_quality_checker_only_for_its_own_exponent():
    jobs = jobs_of([("generated", [{"name": "power", "b": 0.7}])])
    assert cells(jobs) == {("generated", "power(b=0.7)", True): 1}
    assert jobs[0].trial.fraction is None
    jobs = jobs_of([("generated", [{"name": "power", "a": 0.5}])])
    assert cells(jobs) == {("real_small", "ce", False): 1, ("generated", "power(a=0.5)", True): 1}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("ce", "ce"),
        ({"name": "focal"}, "focal"),
        ({"name": "focal", "gamma": 2}, "focal"),
        ({"name": "focal", "gamma": 1}, "focal(gamma=1.0)"),
        ({"name": "imp", "normalize": True, "clip": 5}, "imp(clip=5.0, normalize=True)"),
        ({"name": "dimp", "lag": "none"}, "dimp"),
        ({"name": "dimp", "lag": "epoch"}, "dimp(lag=epoch)"),
        ({"name": "power", "a": 1, "b": -0.5}, "power(a=1.0, b=-0.5)"),
        ({"name": "mix", "alpha": 0.25}, "mix(alpha=0.25)"),
    ],
)
def test_labels(given, text):
    assert resolve(MethodChoice.model_validate(given)).label == text


def test_label_of_settings_without_default():
    assert label(MethodChoice(name="m", settings={"b": 1, "a": "x"}), {"b": 1}) == "m(a=x)"


def test_more_folds_than_rows(experiment_file):
    grid = [{"source": "generated", "methods": ["imp"]}]
    with pytest.raises(UserError) as caught:
        make_plan(experiment_file(grid=grid, checkers={"diversity": {"folds": 49}}))
    assert str(caught.value) == (
        "checkers.diversity.folds: expected at most as many as rows, found 49 for 48 rows of generated in tiny"
    )


def test_missing_work(experiment_file, tmp_path):
    """A checker runs again where a trial to be run lacks its scores, and only there."""
    from harness.training import run_trial

    plan = make_plan(experiment_file(seeds=[0], grid=[{"source": "generated", "methods": ["focal", "imp"]}]))
    store = fill(plan, tmp_path)
    focal, imp = (find(plan, "generated", name).trial.id for name in ("focal", "imp"))
    real, plain = find(plan, "generated", "imp").trial.checkers
    every = {focal, imp, real, plain}

    def todo(*finished):
        ids = [job.trial.id for job in missing(plan, set(finished), store)]
        assert len(ids) == len(set(ids))
        return set(ids)

    assert todo() == every
    assert todo(*every) == set(), "nothing is run again, whether the scores are still there or not"
    assert todo(focal, imp) == {real, plain}
    assert todo(focal, real, plain) == {imp, real, plain}, "finished, but their scores are gone"
    run_trial.run(plan.trials[real], store, lambda entry: None)
    assert todo(focal, real, plain) == {imp, plain}
    run_trial.run(plan.trials[plain], store, lambda entry: None)
    assert todo(focal, real, plain) == {imp}
    assert todo(real, plain) == {focal, imp}
    order = [job.trial.id for job in missing(plan, set(), store)]
    assert max(order.index(real), order.index(plain)) < order.index(imp)
    from harness.store import Store

    empty = Store(str(tmp_path / "empty"))
    assert {job.trial.id for job in missing(plan, {focal, real, plain}, empty)} == {imp, real, plain}
