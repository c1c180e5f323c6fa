"""`harness run` from beginning to end: what it records, what it does with failures, interrupts and kills."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.commands import PATIENCE, Home, family, gone, kill, kill_all, wait_for

pytestmark = pytest.mark.timeout(2400)

TRIALS = 6
GRID = [
    {"source": "real_small", "methods": ["ce"]},
    {"source": "generated", "methods": ["ce", "focal", "imp", "imp_quality", "dimp"]},
]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    kill_all()


@pytest.fixture(scope="module")
def file(experiment_file: Callable[..., Path]) -> Path:
    """Six trials of a second or so: long enough to be met while they run."""
    training = {"epochs": 25, "batch_size": 16, "learning_rate": 5e-3}
    return experiment_file(grid=GRID, seeds=[0], training=training, stages={"real_small": {"steps": 60}})


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbs: its home, what it printed, trials.csv, and how often each trial is finished."""

    home: Home
    text: str
    table: bytes
    finished: dict[str, int]


@pytest.fixture(scope="module")
def undisturbed(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    run = home.run(file)
    assert run.returncode == 0, run.stderr
    assert run.stderr == "", "MLflow, Ray, bars: nothing of that belongs on the console"
    return Undisturbed(home, run.stdout, home.table(), home.finished())


# -- what a run leaves -----------------------------------------------------------------------------------------------


def test_the_console_shows_a_line_for_every_trial_and_where_to_look(undisturbed: Undisturbed) -> None:
    home, text = undisturbed.home, undisturbed.text
    for number in range(1, TRIALS + 1):
        assert re.search(rf"\[{number}/{TRIALS}\] tiny · (real_small|generated) · \w+ · seed 0: accuracy 0\.\d+", text)
    assert f"{TRIALS} trials run, 0 done before, 0 failed." in text
    assert f"Report: {home.results / 'small' / 'report.html'}" in text
    assert f"All reports: {home.results / 'index.html'}" in text


def test_the_report_is_there(undisturbed: Undisturbed) -> None:
    folder = undisturbed.home.results / "small"
    assert {"report.html", "report.md", "trials.csv", "runtime.csv", "experiment.yaml"} <= {
        path.name for path in folder.iterdir()
    }
    assert list((folder / "figures").glob("*.svg"))
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == TRIALS
    assert set(table["status"]) == {"finished"}


def test_the_ledger_has_one_parent_and_one_child_a_trial(undisturbed: Undisturbed) -> None:
    home = undisturbed.home
    (parent,) = home.runs("experiment")
    children = home.runs("trial")
    assert parent.info.status == "FINISHED"
    assert home.statuses() == ["FINISHED"] * TRIALS
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len({run.data.tags["harness.trial"] for run in children}) == TRIALS
    tags = parent.data.tags
    assert tags["command"].startswith("harness run ")
    assert {"version.harness", "version.python", "version.ray", "version.torch", "version.mlflow"} <= tags.keys()
    assert "commit" in tags
    assert tags["dirty"] in ("true", "false")
    assert parent.data.metrics["wall_seconds"] > 0
    assert parent.data.metrics["driver_peak_memory_mb"] > 0
    assert [item.path for item in home.client.list_artifacts(parent.info.run_id)] == [
        "experiment.yaml", "plan.json", "report", "texts_tiny.parquet",
    ]  # fmt: skip


def test_a_child_holds_all_that_belongs_to_its_trial(undisturbed: Undisturbed, tmp_path: Path) -> None:
    home = undisturbed.home
    by_method = {(run.data.tags["source"], run.data.tags["method"]): run for run in home.runs("trial")}
    run = by_method["generated", "dimp"]
    tags, params = run.data.tags, run.data.params
    assert (tags["benchmark"], tags["seed"], tags["fraction"]) == ("tiny", "0", "1.0")
    assert tags["quality_checker"] == by_method["real_small", "ce"].data.tags["harness.trial"]
    assert tags["env.torch"]
    assert tags["env.threads"] == "1"
    assert params["training.epochs"] == "25"
    assert params["training.learning_rate"] == "0.005"
    assert params["source"] == "generated"

    client = home.client
    points = client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [point.step for point in points] == list(range(1, 26))
    assert {"seconds_train", "seconds_evaluate", "peak_memory_mb", "rows_per_second"} <= run.data.metrics.keys()
    digests = {item.dataset.name: json.loads(item.dataset.source)["sha256"] for item in run.inputs.dataset_inputs}

    folder = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert {path.name for path in folder.iterdir()} == {
        "trial.json", "history.json", "predictions.parquet", "weights.parquet",
    }  # fmt: skip
    trial = json.loads((folder / "trial.json").read_text())
    assert digests == {f"tiny/{split}": digest for split, digest in trial["task"]["digests"].items()}
    assert set(trial["task"]["digests"]) == {"real_small", "generated", "validation", "test"}
    history = json.loads((folder / "history.json").read_text())["entries"]
    assert [entry["test_accuracy"] for entry in history] == [point.value for point in points]

    predictions = pd.read_parquet(folder / "predictions.parquet")
    last = predictions[predictions["epoch"] == 25]
    assert len(last) == 36
    assert (last["label"] == last["prediction"]).mean() == pytest.approx(history[-1]["test_accuracy"])
    weights = pd.read_parquet(folder / "weights.parquet")
    assert len(weights) == 48
    assert weights["weight_25"].mean() == pytest.approx(history[-1]["weight_mean"], rel=1e-5)


def test_the_report_says_how_far_the_labels_of_real_and_generated_rows_are_apart(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    home = undisturbed.home
    tables = {}
    for run in home.runs("trial"):
        if run.data.tags["method"] == "ce":
            (own := tmp_path / run.info.run_id).mkdir()
            folder = Path(home.client.download_artifacts(run.info.run_id, "", str(own)))
            last = pd.read_parquet(folder / "predictions.parquet").query("epoch == epoch.max()")
            (file,) = folder.glob("scores_*.parquet")
            scores = pd.read_parquet(file)
            assert len(scores) == 48
            tables[run.data.tags["source"]] = last.filter(like="p_").to_numpy(), np.exp(scores.filter(like="log_p_"))
    p, q = tables["real_small"], tables["generated"]
    kl = (p[0] * np.log(p[0] / q[0])).sum(axis=1).mean(), (q[1] * np.log(q[1] / p[1])).sum(axis=1).mean()
    text = (home.results / "small" / "report.md").read_text()
    _, _, table = text.partition("### Distance of real and generated labels")
    row = next(line for line in table.splitlines() if line.startswith("| tiny"))
    assert [cell.split(" ±")[0].strip() for cell in row.split("|")[-3:-1]] == [f"{value:.3f}" for value in kl]


def test_running_again_runs_nothing_and_writes_the_same_table(undisturbed: Undisturbed, file: Path) -> None:
    home = undisturbed.home
    before, children = home.table(), len(home.runs("trial"))
    again = home.run(file)
    assert again.returncode == 0, again.stderr
    assert f"0 trials run, {TRIALS} done before, 0 failed." in again.stdout
    assert again.stderr == ""
    assert home.table() == before
    assert len(home.runs("trial")) == children
    assert len(home.runs("experiment")) == 1


def test_show_plan_and_report_read_the_ledger_of_the_run(undisturbed: Undisturbed, file: Path, tmp_path: Path) -> None:
    home = undisturbed.home

    def output(*words: object, code: int = 0) -> str:
        command = home(*words)
        assert command.returncode == code, command.stderr
        return command.stdout + command.stderr

    trial = next(iter(undisturbed.finished))
    text = output("show", trial[:6])
    assert trial in text
    assert "finished" in text
    assert "test accuracy" in text
    assert "seconds train: " in text
    assert '"batch_size": 16' in text
    assert "unknown trial 'zzzz'" in output("show", "zzzz", code=2)
    assert "All trials are finished." in output("plan", file)
    more = output("plan", file, "--set", "seeds=[0, 1]")
    assert f"To run: {TRIALS} of {2 * TRIALS} trials. About" in more
    assert "from finished trials" in more
    output("report", file, "--results", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "small" / "trials.csv").read_bytes() == undisturbed.table


def test_a_checker_that_is_done_scores_other_rows_for_the_report(undisturbed: Undisturbed, file: Path) -> None:
    home = undisturbed.home
    methods = "grid=[{source: real_small, methods: [ce]}, {source: generated, methods: [imp_quality]}]"
    fewer = home.run(file, "--set", "name=fewer", "--set", "rows={generated: 24}", "--set", methods)
    assert fewer.returncode == 0, fewer.stdout + fewer.stderr
    checkers = [run for run in home.runs("trial") if run.data.tags["source"] == "real_small"]
    assert len(checkers) == 1, "it is not trained again"
    files = {item.path for item in home.client.list_artifacts(checkers[0].info.run_id)}
    assert len({path for path in files if path.startswith("scores_")}) == 2
    assert len(pd.read_csv(home.results / "fewer" / "trials.csv")) == 2


# -- failures --------------------------------------------------------------------------------------------------------

FRAGILE = """
from harness.methods.base import Method, MethodSettings

class Fragile(Method[MethodSettings]):
    '''Breaks.'''
    name = "fragile"

    def weights(self, step):
        {body}
"""


@pytest.fixture
def users_method(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a package with a method of the user's own, found through its entry point; the folder for PYTHONPATH."""

    def write(body: str) -> Path:
        folder = tmp_path / "site"
        info = folder / "fragile-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[harness.methods]\nfragile = fragile:Fragile\n")
        (folder / "fragile.py").write_text(FRAGILE.format(body=body))
        return folder

    return write


def test_a_failed_trial_is_recorded_and_the_others_go_on(
    experiment_file: Callable[..., Path], users_method: Callable[[str], Path], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    rows = [
        {"source": "real_small", "methods": ["ce"]},
        {"source": "generated", "methods": ["fragile", "imp_quality"]},
    ]
    # with a learning rate of 1e30 and gradients as they come the loss is NaN after a step
    training = {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3, "gradient_norm": 1e30}
    file = experiment_file(grid=rows, seeds=[0], training=training, sweep={"training.learning_rate": [5e-3, 1e30]})
    path = users_method("print('the moon is new'); raise OSError('the moon is in the wrong phase')")
    failed = home.run(file, PYTHONPATH=str(path), PYTHONDONTWRITEBYTECODE="1")
    assert failed.returncode == 1, failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "2 trials run, 0 done before, 4 failed." in failed.stdout

    children = {(run.data.tags["method"], run.data.params["training.learning_rate"]): run for run in home.runs("trial")}
    assert len(children) == 6
    ok = {key for key, run in children.items() if run.info.status == "FINISHED"}
    assert ok == {("ce", "0.005"), ("imp_quality", "0.005")}
    assert {run.info.status for key, run in children.items() if key not in ok} == {"FAILED"}
    assert children["fragile", "0.005"].data.tags["error"] == "OSError: the moon is in the wrong phase"
    assert re.search(r"the loss of row '.*' is nan at step \d+", children["ce", "1e+30"].data.tags["error"])
    checker = children["ce", "1e+30"].data.tags["harness.trial"]
    assert children["imp_quality", "1e+30"].data.tags["error"] == f"its checker {checker} failed"
    whole = home.client.download_artifacts(children["fragile", "0.005"].info.run_id, "error.txt", str(tmp_path))
    assert "Traceback" in Path(whole).read_text(), "the ledger has the whole error"
    log = home.client.download_artifacts(children["fragile", "0.005"].info.run_id, "log.txt", str(tmp_path))
    assert "the moon is new" in Path(log).read_text().partition("-- end of stdout --")[2], "and what the trial printed"
    listed = home("show", "--failed", "small").stdout
    assert "2 x OSError: the moon is in the wrong phase" in listed
    assert listed.index("1 x its checker") > listed.index("1 x the loss of row")
    assert f"failed: tiny · generated · imp_quality · seed 0 · learning_rate=1e+30: its checker {checker} failed" in (
        failed.stdout
    )
    (parent,) = home.runs("experiment")
    assert parent.info.status == "FAILED"
    table = pd.read_csv(home.results / "small" / "trials.csv")
    assert table["status"].value_counts().to_dict() == {"failed": 4, "finished": 2}

    users_method("return step.logits.new_ones(len(step.labels))")
    words = ("--set", "sweep={training.learning_rate: [5.0e-3, 2.0e-3]}")
    repaired = home.run(file, *words, PYTHONPATH=str(path), PYTHONDONTWRITEBYTECODE="1")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "4 trials run, 2 done before, 0 failed." in repaired.stdout
    assert set(home.finished().values()) == {1}
    table = pd.read_csv(home.results / "small" / "trials.csv")
    assert set(table["status"]) == {"finished"}


# -- interrupts and kills --------------------------------------------------------------------------------------------


def opened(home: Home) -> bool:
    """Before the first trial: the parent run is there, Ray is starting."""
    return bool(home.runs("experiment"))


def first_trial(home: Home) -> bool:
    return home.statuses().count("RUNNING") >= 1


def checker_done(home: Home) -> bool:
    return any(run.data.tags["method"] == "ce" and run.info.status == "FINISHED" for run in home.runs("trial"))


def dependent_runs(home: Home) -> bool:
    return any(run.data.tags["quality_checker"] and run.info.status == "RUNNING" for run in home.runs("trial"))


def all_finished(home: Home) -> bool:
    """After the last trial: Ray is ending, or the report is being written."""
    return len(home.finished()) == TRIALS


def test_kills_and_interrupts_lose_nothing_and_repeat_nothing(
    file: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """One experiment, started three times: the driver is killed, then Ctrl-C, then the trials' processes are killed."""
    home = Home(tmp_path)
    driver = home.start(file)
    wait_for(lambda: opened(home), driver, "an open ledger")
    second = home.run(file)
    assert second.returncode == 2
    assert "another run of the experiment 'small' is using" in second.stderr
    wait_for(lambda: first_trial(home), driver, "a running trial")
    assert kill(driver) == [], "the killed driver left processes behind"
    assert "RUNNING" in home.statuses(), "the kill left a trial that was running"

    before, known = home.finished(), len(home.statuses())
    driver = home.start(file)
    wait_for(lambda: first_trial(home) and len(home.statuses()) > known, driver, "a new trial that runs")
    family_of_driver = family(driver)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(PATIENCE) == 130, home.log.read_text()
    assert gone(family_of_driver) == []
    text = home.log.read_text()
    assert text.rstrip().endswith("Interrupted. Run the same command to continue.")
    assert "Traceback" not in text
    assert set(home.statuses()) - {"FINISHED"} == {"KILLED"}
    assert [run.info.status for run in home.runs("experiment")] == ["KILLED"]
    assert before.items() <= home.finished().items(), "a finished trial is lost"

    driver = home.start(file)
    wait_for(lambda: dependent_runs(home), driver, "a trial that needs a checker")
    workers = [p for p in driver.children(recursive=True) if p.cmdline()[:1] and "ImplicitFunc" in p.cmdline()[0]]
    assert workers
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    family_of_driver = family(driver)
    assert driver.wait(PATIENCE) == 0, home.log.read_text()
    assert gone(family_of_driver) == []
    assert "its process died; starting it again" in home.log.read_text()
    assert home.finished() == undisturbed.finished
    assert set(home.statuses()) == {"FINISHED", "KILLED"}
    assert home.table() == undisturbed.table
    assert [run.info.status for run in home.runs("experiment")] == ["FINISHED"]


@pytest.mark.slow
def test_a_driver_killed_at_five_moments_loses_nothing_and_repeats_nothing(
    file: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    statuses: dict[str, list[str]] = {}
    for moment in (opened, first_trial, checker_done, dependent_runs, all_finished):
        before = home.finished()
        driver = home.start(file)
        try:
            wait_for(lambda moment=moment: moment(home), driver, moment.__name__)
        finally:
            orphans = kill(driver)
        assert orphans == [], f"left after a kill at {moment.__name__}: {orphans}"
        assert before.items() <= home.finished().items(), f"a kill at {moment.__name__} lost a finished trial"
        statuses[moment.__name__] = home.statuses()
    assert statuses["opened"] == [], "that kill was before the first trial"
    assert "RUNNING" in statuses["first_trial"], "that kill left a trial that was running"
    assert "FINISHED" in statuses["checker_done"]
    assert statuses["dependent_runs"].count("FINISHED") < TRIALS, "that kill was before the end"
    last = home.run(file)
    assert last.returncode == 0, last.stderr
    assert f"0 trials run, {TRIALS} done before" in last.stdout, "all were finished before the last kill"
    assert home.finished() == undisturbed.finished
    assert set(home.statuses()) == {"FINISHED", "KILLED"}
    assert home.table() == undisturbed.table
    assert [run.info.status for run in home.runs("experiment")] == ["FINISHED"]
