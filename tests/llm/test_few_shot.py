"""The method llm_few_shot: real Ray, real MLflow, a fake server over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.config.experiment import MethodChoice, load
from harness.config.schema import parse
from harness.data.split_files import save_split
from harness.errors import TrialError, UserError
from harness.methods import MicroBatch, methods
from harness.planning.plan import Plan, make, resolve
from harness.planning.trials import Job
from harness.store import Store
from harness.training import run_trial
from harness.training.evaluation import label_metrics
from tests.commands import Home
from tests.llm.server import Body, Fake, serving

pytest.importorskip("openai")
pytestmark = pytest.mark.timeout(2400)


def answer(body: Body, number: int) -> tuple[int, dict[str, str], str]:
    """Always the label "neutral", and in every ninth answer none."""
    return 200, {}, "I would rather not say" if number % 9 == 8 else json.dumps({"label": "neutral"})


@pytest.fixture
def server() -> Iterator[Fake]:
    with serving(Fake(answer)) as fake:
        yield fake


def choice(url: str, **changes: object) -> dict[str, object]:
    server = {"base_url": url, "concurrency": 4, "backoff": 0.01}
    prices = {"price_in": 1.0, "price_out": 2.0}
    return {"name": "llm_few_shot", "model": "fake", "shots": 3, "server": server, "limits": prices} | changes


@pytest.mark.slow
def test_it_is_a_row_of_the_grid(experiment_file: Callable[..., Path], server: Fake, tmp_path: Path) -> None:
    home = Home(tmp_path)
    grid = [{"source": "real_small", "methods": ["ce", choice(server.url)]}]
    file = experiment_file(grid=grid)
    result = home.run(file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 trials run, 0 done before, 0 failed." in result.stdout

    runs = [run for run in home.runs("trial") if run.data.tags["method"] == "llm_few_shot"]
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1"]
    assert {run.data.tags["label"] for run in runs} == {"llm_few_shot(model=fake, shots=3)"}
    calls = len(server.bodies)
    assert sum(run.data.metrics["llm_calls"] for run in runs) == calls
    assert sum(run.data.metrics["llm_unparsable"] for run in runs) == calls // 9
    assert sum(run.data.metrics["llm_cost"] for run in runs) == pytest.approx(calls * (100 + 2 * 50) / 1e6)
    assert all(run.data.metrics["seconds_classify"] > 0 for run in runs)
    for run in runs:
        folder = home.client.download_artifacts(run.info.run_id, "", str(tmp_path))
        predictions = pd.read_parquet(Path(folder) / "predictions.parquet")
        none = predictions["prediction"] == "(none)"
        assert none.sum() == run.data.metrics["llm_unparsable"]
        assert set(predictions.loc[~none, "prediction"]) == {"neutral"}
        right = (predictions["prediction"] == predictions["label"]).mean()
        assert run.data.metrics["test_accuracy"] == pytest.approx(right)
        assert 0 < right < 1

    page = (home.results / "small" / "report.md").read_text()
    assert "llm\\_few\\_shot" in page or "llm_few_shot" in page
    assert "### Language model" in page
    table = pd.read_csv(home.results / "small" / "runtime.csv")
    assert table["llm_calls"].sum() == calls


def planned(file: Path, *overrides: str) -> tuple[Plan, Job]:
    """A plan of one trial, the language model's with seed 0."""
    plan = make(load(file, overrides), None)
    (job,) = plan.jobs
    return plan, job


def test_no_answer_is_paid_for_twice(experiment_file: Callable[..., Path], server: Fake, tmp_path: Path) -> None:
    def file(**changes: object) -> Path:
        return experiment_file(grid=[{"source": "real_small", "methods": [choice(server.url, **changes)]}], seeds=[0])

    plan, job = planned(file())
    store = Store(str(tmp_path / "store"))
    for split in plan.splits["tiny"].values():
        save_split(split, store)
    first = run_trial.run(job, store, lambda entry: None)
    calls = len(server.bodies)
    assert calls == first.runtime["llm_calls"] > 0

    _, same = planned(file(), "training.learning_rate=1.0e-3", "resources.cpus=2")
    assert same.trial.id == job.trial.id, "how an encoder is trained does not matter to it"
    # fewer requests at a time: another trial, but the same questions
    _, slower = planned(file(server={"base_url": server.url, "concurrency": 1}))
    assert slower.trial.id != job.trial.id
    again = run_trial.run(slower, store, lambda entry: None)
    assert again.history == first.history
    assert again.runtime["llm_cost"] == first.runtime["llm_cost"]
    assert len(server.bodies) == calls


def test_a_folder_of_prompts_is_relative_to_the_experiments_file(experiment_file: Callable[..., Path]) -> None:
    short = choice("http://127.0.0.1:1/v1", prompts="words")
    long = {"name": "llm_few_shot", "settings": {"model": "other", "prompts": "words"}}
    file = experiment_file(grid=[{"source": "real_small", "methods": [short, long]}], seeds=[0])
    (file.parent / "words").mkdir()
    (file.parent / "words" / "classify.txt").write_text("Say it: {{ row }}")
    jobs = make(load(file), None).jobs
    assert {job.trial.method.settings["templates"]["classify"] for job in jobs} == {"Say it: {{ row }}"}


def test_a_plan_with_nothing_but_a_language_model_left(experiment_file: Callable[..., Path], tmp_path: Path) -> None:
    method = choice("http://127.0.0.1:1/v1")
    shown = Home(tmp_path)("plan", experiment_file(grid=[{"source": "real_small", "methods": [method]}], seeds=[0]))
    assert shown.returncode == 0, shown.stderr
    assert "the remaining trials query a language model" in shown.stdout


def test_two_rows_of_one_name_are_refused(experiment_file: Callable[..., Path]) -> None:
    methods = [choice(f"http://127.0.0.1:{port}/v1") for port in (1, 2)]
    with pytest.raises(UserError, match="both be called 'llm_few_shot"):
        planned(experiment_file(grid=[{"source": "real_small", "methods": methods}], seeds=[0]))


def test_a_missing_key_is_an_error_that_says_what_to_do(experiment_file: Callable[..., Path], tmp_path: Path) -> None:
    method = {"name": "llm_few_shot", "model": "fake", "server": {"key_env": "NO_SUCH_KEY_HERE"}}
    plan, job = planned(experiment_file(grid=[{"source": "real_small", "methods": [method]}], seeds=[0]))
    store = Store(str(tmp_path / "store"))
    for split in plan.splits["tiny"].values():
        save_split(split, store)
    with pytest.raises(TrialError, match="NO_SUCH_KEY_HERE"):
        run_trial.run(job, store, lambda entry: None)


def test_the_prompt_is_part_of_the_trial(tmp_path: Path) -> None:
    plain = resolve(parse(MethodChoice, choice("http://127.0.0.1:1/v1"), "test"))
    assert set(plain.choice.settings["templates"]) == {"system", "classify"}
    assert not plain.trains
    (tmp_path / "classify.txt").write_text("Say it: {{ row }}")
    other = parse(MethodChoice, choice("http://127.0.0.1:1/v1", prompts=str(tmp_path)), "test")
    assert resolve(other).choice.settings["templates"]["classify"] == "Say it: {{ row }}"
    assert len(resolve(other).choice.settings["prompts"]) == 6, "the folder by its content, not by its place"
    assert resolve(other).label != plain.label == "llm_few_shot(model=fake, shots=3)"
    described = parse(MethodChoice, choice("http://127.0.0.1:1/v1", descriptions={"neutral": "so so"}), "test")
    assert re.fullmatch(r"llm_few_shot\(descriptions=[0-9a-f]{6}, model=fake, shots=3\)", resolve(described).label)
    with pytest.raises(UserError, match="nothing is trained"):
        resolve(MethodChoice(name="llm_few_shot", settings={"model": "fake", "clip": 2.0}))
    with pytest.raises(UserError, match="model"):
        resolve(MethodChoice(name="llm_few_shot"))


def test_it_has_no_weights() -> None:
    kind = methods.get("llm_few_shot")
    method = kind(kind.settings_type()(model="fake"))
    with pytest.raises(TrialError, match="without training"):
        method.weights(MicroBatch((), *[None] * 6))  # type: ignore[arg-type]


def test_no_prediction_is_wrong_worked_by_hand() -> None:
    # class 0: precision 1, recall 1/3, F1 1/2; class 1: precision 1/2, recall 1, F1 2/3
    metrics = label_metrics(np.array([0, -1, 1, 1]), np.array([0, 0, 1, 0]), 2, "test")
    assert metrics == {"test_accuracy": 0.5, "test_f1": pytest.approx(7 / 12)}
