"""The whole of ``harness weigh`` on tiny files, with trials trained in this process."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness import driver
from harness.data.split_files import save_split
from harness.driver import Summary
from harness.errors import UserError
from harness.paths import Paths
from harness.planning.plan import missing
from harness.store import Store
from harness.testing import make_encoder, make_rows
from harness.training import speed
from harness.training.run_trial import run
from harness.weigh import lengths, row_table, suspicion
from harness.weigh.analysis import JUDGES, Evidence
from harness.weigh.candidates import BY_KEY, CANDIDATES, NULL, WRITTEN
from harness.weigh.checks import find_duplicates
from harness.weigh.folds import ALL, fold_name, original_id, write_benchmarks
from harness.weigh.page import write
from harness.weigh.reading import read
from harness.weigh.result import lines
from harness.weigh.rounds import outcomes
from harness.weigh.session import FailedTrialsError, Session, save_settings
from harness.weigh.settings import FOLDS, SCREENING, from_files, from_yaml


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("tweet", "mood"), *rows])


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A tiny encoder that was trained with the mean over the tokens, by what sentence-transformers keeps beside it."""
    folder = make_encoder(tmp_path_factory.mktemp("encoder"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


@pytest.fixture(scope="module", autouse=True)
def models_that_know_something():
    """After 20 steps, 75 rows are too few to be sure of it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(suspicion, "predicts", lambda *_: True)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder):
    """Two files: 45 human rows, and 75 written ones of which a fifth have a wrong label; and a copy."""
    folder = tmp_path_factory.mktemp("weigh")
    rng = np.random.Generator(np.random.PCG64(3))
    people = make_rows(rng, 15, 0.0)
    write_rows(folder / "people.csv", people)
    write_rows(folder / "written.csv", [*make_rows(rng, 25, 0.2), people[0]])
    return folder


def settings_of(folder, tiny_encoder, **options):
    options = {"encoder": str(tiny_encoder), "budget": "1m"} | options
    overrides = ("training.learning_rate=0.005", "training.max_length=32")
    return from_files(folder / "people.csv", folder / "written.csv", options, overrides)


class Here:
    """Trains the trials of a plan in this process, in place of ``driver.execute``; counts them."""

    def __init__(self):
        self.trained, self.finished, self.plans = 0, set(), []

    def __call__(self, plan, paths, address, command, console):
        store = Store(paths.store)
        self.plans.append(plan)
        for splits in plan.splits.values():
            for split in splits.values():
                save_split(split, store)
        jobs = missing(plan, self.finished, store)
        for job in jobs:
            run(job, store, lambda entry: None)
            self.finished.add(job.trial.id)
        self.trained += len(jobs)
        return Summary(len(jobs), len(plan.jobs) - len(jobs), {})


def session(folder, settings, said, monkeypatch, execute):
    monkeypatch.setattr(driver, "execute", execute)
    paths = Paths.at(folder / "home")
    return Session(settings, paths, folder / "out", None, "harness weigh", lambda: None, said.append)


@pytest.fixture(scope="module")
def answered(folder, tiny_encoder):
    """An answer, what was said, and the executor."""
    said, here = [], Here()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(lengths, "faster", lambda rates: "float32")  # whatever this machine would choose
        monkeypatch.setattr(lengths, "LEAST_STEPS", 20)
        monkeypatch.setattr(lengths, "LEAST_REAL_STEPS", 20)
        answer = session(folder, settings_of(folder, tiny_encoder), said, monkeypatch, here).run()
    write(answer.result, answer.rows, folder / "out", "tiny", "harness weigh people.csv written.csv")
    return answer, said, here


def test_rounds_have_the_trials_that_they_promise(answered):
    _, said, here = answered
    first, second, third, last = here.plans
    assert len(first.jobs) == len(SCREENING) * (len(CANDIDATES) + 1)
    runs = {(job.trial.source, job.trial.method.name, job.trial.task.name, job.trial.seed) for job in second.jobs}
    for name in (NULL.key, WRITTEN.key):
        source, method = name.split(":")
        assert {run for run in runs if run[:2] == (source, method) and run[3] == 0} == {
            (source, method, f"people-written.{fold_name(fold)}", 0) for fold in range(FOLDS)
        }
    assert {job.trial.fraction for job in third.jobs if job.requested} == {0.5}
    assert {job.trial.task.name for job in third.jobs} == {f"people-written.{fold_name(fold)}" for fold in JUDGES}
    assert sum(job.keep_model for job in last.jobs) == 1
    assert len({name for name in said if name.startswith("Round")}) == 4


def test_no_row_judges_a_model_that_saw_it(answered):
    _, _, here = answered
    for plan in here.plans[:3]:
        for splits in plan.splits.values():
            trained = {
                original_id(i) for name in ("real_small", "generated") if name in splits for i in splits[name].ids
            }
            held_out = {original_id(i) for name in ("test", "validation") for i in splits[name].ids}
            assert trained
            assert not trained & held_out


def test_every_human_row_judges_once_and_every_written_row_is_scored_once(answered, folder, tiny_encoder, tmp_path):
    inputs = read(settings_of(folder, tiny_encoder))
    duplicates = find_duplicates(inputs.people, inputs.written)
    written = write_benchmarks(inputs, duplicates, "x", tmp_path)
    from harness.data.benchmarks import load

    seen = {"test": [], "validation": []}
    for fold in range(FOLDS):
        splits = load(written[fold_name(fold)], seen)
        for name in seen:
            seen[name] += map(original_id, splits[name].ids)
    assert sorted(seen["test"]) == sorted(inputs.people.ids)
    assert sorted(seen["validation"]) == sorted(set(inputs.written.ids) - duplicates.of_people.keys())
    everything = load(written[ALL], ["real_small", "generated"])
    assert set(map(original_id, everything["real_small"].ids)) == set(inputs.people.ids)


def test_the_result_is_complete(answered):
    result = answered[0].result
    assert (result.people, result.written, result.copies) == (45, 75, 1)
    assert result.judged == 27
    assert {standing.candidate for standing in result.standings} == set(BY_KEY)
    assert sum(standing.finalist for standing in result.standings) == 2
    assert [worth.people for worth in result.worth] == [18, 36]
    assert 0 < result.score.error < 0.5
    assert result.temperature > 0
    assert result.accuracy.low <= result.accuracy.value <= result.accuracy.high
    assert len(lines(result, "model")) == 6


def test_the_table_has_every_written_row(answered, folder):
    rows = pd.read_csv(folder / "out" / "weights.csv", keep_default_na=False)
    frame = answered[0].rows
    assert len(rows) == len(frame) == 76
    assert rows["flags"].iloc[-1] == "copy"
    assert rows["duplicate_of"].iloc[-1].startswith("people-")
    scored = frame.iloc[:-1]
    for column in ("p_label", "q_label", "p_wrong", "looks_real"):
        assert scored[column].between(0, 1).all()
    assert scored["weight"].notna().all()
    assert (scored["weight_sd"] > 0).any()
    suspicious = scored["flags"].str.contains("wrong_label")
    assert suspicious.sum() == answered[0].result.suspicious
    assert (scored.loc[suspicious, "suggested_label"] != "").all()


def test_confirmed_rows_are_not_suspicious(answered, folder, tiny_encoder):
    answer = answered[0]
    inputs = read(settings_of(folder, tiny_encoder))
    ids, before = row_table.suspicion(inputs, answer.views)
    doubted = ids[int(before.wrong.argmax())]
    _, after = row_table.suspicion(replace(inputs, confirmed=frozenset([doubted])), answer.views)
    assert before.wrong.max() > 0
    assert after.wrong[ids.index(doubted)] == 0


def test_the_model_loads_and_predicts(answered, folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = folder / "out" / "model"
    assert (place / "model.safetensors").is_file()
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    assert model.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    tokenizer = AutoTokenizer.from_pretrained(place)
    logits = model(**tokenizer(["the best great day", "awful terrible"], return_tensors="pt", padding=True)).logits
    assert logits.shape == (2, 3)
    card = (place / "README.md").read_text()
    assert "expected accuracy" in card
    assert "45 human rows" in card


def test_the_kept_model_is_the_trained_one(answered, folder):
    """Its predictions are those that the trial recorded."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from harness.training.trial_result import load_result

    plan = answered[2].plans[-1]
    trial = next(job.trial for job in plan.jobs if job.keep_model)
    test = plan.splits[trial.task.name]["test"]
    place = folder / "out" / "model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    with torch.no_grad():
        logits = model.eval()(**tokenizer(list(test.texts), return_tensors="pt", padding=True)).logits
    expected = load_result(trial, Store(str(folder / "home" / "store"))).arrays["test"][-1]
    uncalibrated = torch.log_softmax(logits * answered[0].result.temperature, -1)
    assert uncalibrated.numpy() == pytest.approx(expected, abs=1e-4)


def test_the_numbers_are_for_machines_too(answered, folder):
    raw = json.loads((folder / "out" / "weigh.json").read_text())
    assert raw["recommended"] in BY_KEY
    assert raw["verdict"] in ("use", "do not use", "cannot tell")
    assert raw["score"]["low"] < raw["score"]["mean"] < raw["score"]["high"]
    assert len(raw["curves"]) == 2


def test_the_page_needs_no_network(answered, folder):
    page = (folder / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert page.count("<img") == 3


def test_the_same_call_again_trains_nothing(answered, folder, tiny_encoder, monkeypatch):
    answer, _, here = answered
    before, said = here.trained, []
    again = session(folder, settings_of(folder, tiny_encoder), said, monkeypatch, here).run()
    assert here.trained == before
    assert (again.result.gain, again.result.score) == (answer.result.gain, answer.result.score)
    pd.testing.assert_frame_equal(again.rows, answer.rows)
    assert any("as chosen before" in line for line in said)


def test_saved_settings_repeat_the_run(folder, tiny_encoder, tmp_path):
    settings = settings_of(folder, tiny_encoder, label="mood", text="tweet", budget="300h")
    save_settings(settings, tmp_path)
    again = from_yaml(tmp_path / "weigh.yaml", {})
    assert again == settings.model_copy(update={"out": str(tmp_path)})
    assert (folder / "out" / "weigh.yaml").is_file()


def test_written_rows_alone_may_be_best(answered, folder, tiny_encoder):
    """They have no human rows, so no smaller share of them: their curve is level."""
    plans, store = answered[2].plans, Store(str(folder / "home" / "store"))
    evidence = Evidence(lengths.Lengths(20, 20, (0,), (0.5,), 0.0))
    for plan in plans[:3]:
        evidence.outcomes |= outcomes(plan, store)
    numbers = evidence.numbers([WRITTEN.key, answered[0].result.best], WRITTEN.key, 45)
    assert numbers.best == WRITTEN.key
    levels = {both for _, both in numbers.curves.values()}
    assert len(levels) == 1


def test_a_store_that_lacks_a_result_is_named(answered, tmp_path):
    with pytest.raises(UserError, match=r"has no result of people-written\.fold-.*, which the ledger says is finished"):
        outcomes(answered[2].plans[0], Store(str(tmp_path)))


def test_a_failed_trial_ends_without_an_answer(folder, tiny_encoder, monkeypatch):
    def fail(*_):
        return Summary(0, 0, {"a trial": "an error"})

    with pytest.raises(FailedTrialsError) as error:
        session(folder, settings_of(folder, tiny_encoder), [], monkeypatch, fail).run()
    assert error.value.summary.failed == {"a trial": "an error"}


def test_one_group_of_near_duplicates_cannot_be_divided(tmp_path, tiny_encoder):
    rows = [("a good day for all of us", "good")] * 6 + [
        (f"number {word} came", "bad") for word in ["a", "b", "c", "d", "e", "f"]
    ]
    write_rows(tmp_path / "people.csv", rows)
    write_rows(
        tmp_path / "written.csv", [(f"a text of {k} {word}", "bad") for k, word in enumerate(["v", "w", "x", "y", "z"])]
    )
    inputs = read(settings_of(tmp_path, tiny_encoder))
    with pytest.raises(UserError, match="all human rows of good are near-duplicates of one another"):
        write_benchmarks(inputs, find_duplicates(inputs.people, inputs.written), "x", tmp_path / "out")


@pytest.mark.parametrize("budget", [60, 900, 1800, 7200])
def test_lengths_fit_the_budget_within_bounds(budget):
    chosen = lengths.choose(300, 3000, budget, rate=85.0, slots=2)
    assert lengths.LEAST_STEPS <= chosen.steps <= lengths.MOST_STEPS
    if chosen.steps > lengths.LEAST_STEPS:
        assert chosen.seconds <= budget


@pytest.mark.parametrize(
    ("override", "measured", "precision"),
    [
        ((), {"float32": 50.0, "bfloat16": 120.0}, "bfloat16"),
        ((), {"float32": 50.0, "bfloat16": 55.0}, "float32"),
        (("training.precision=float32",), {"float32": 50.0, "bfloat16": 120.0}, "float32"),
        (("training.precision=bfloat16",), {"float32": 120.0, "bfloat16": 50.0}, "bfloat16"),
        ((), {"float32": None}, "float32"),
    ],
)
def test_the_precision_is_the_faster_one_or_that_of_the_settings(
    folder, tiny_encoder, tmp_path, monkeypatch, override, measured, precision
):
    timed = []

    def rate(trial, *_, **__):
        timed.append(trial.training.precision)
        return measured[trial.training.precision]

    monkeypatch.setattr(speed, "rows_per_second", rate)
    options = {"encoder": str(tiny_encoder)}
    settings = from_files(folder / "people.csv", folder / "written.csv", options, override)
    said, here = [], Here()
    one = session(tmp_path, settings, said, monkeypatch, here)
    inputs = read(settings)
    benchmarks = write_benchmarks(inputs, find_duplicates(inputs.people, inputs.written), "x", tmp_path / "data")
    assert one._lengths(inputs, benchmarks).precision == precision
    assert timed == (["float32", "bfloat16"] if len(measured) == 2 and not override else [precision])
    told = "Training in bfloat16: 2.4 times as fast here as float32." in said
    assert told == (precision == "bfloat16" and not override)
    again, before = session(tmp_path, settings, said, monkeypatch, here), len(timed)
    chosen = again._lengths(inputs, benchmarks)  # read from the file
    assert len(timed) == before
    jobs = again._plan("x", [benchmarks[ALL]], [(NULL, (0,))], chosen).jobs
    assert {job.trial.training.precision for job in jobs} == {precision}
