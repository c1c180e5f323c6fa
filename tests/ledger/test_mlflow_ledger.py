"""The ledger on a real MLflow: a database in a folder, and a server."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from harness.config.experiment import MethodChoice, Training
from harness.errors import UserError
from harness.ledger.attempts import Outcome, Part, parquet
from harness.ledger.entries import Entry, SqliteReader, finished
from harness.ledger.local_database import analyze
from harness.ledger.mlflow_ledger import Ledger
from harness.ledger.report_artifacts import attach_report
from harness.paths import Paths
from harness.planning.trials import Job, Task, Trial, TrialStage
from tests.cli.test_cli import free_port
from tests.commands import end, wait_for_server


def job(seed: int = 0, method: str = "imp") -> Job:
    digests = {"generated": "a" * 64, "real_small": "b" * 64, "validation": "c" * 64, "test": "d" * 64}
    trial = Trial(
        task=Task(name="toy", labels=("no", "yes"), digests=digests), source="generated",
        stages=(TrialStage(splits=("generated",), weighted=True, training=Training()),),
        method=MethodChoice(name=method, settings={"clip": None}), seed=seed, fraction=0.5, encoder="some/encoder",
        encoder_identity="e", threads=2, workers=1, device="cpu", quality="1" * 16,
    )  # fmt: skip
    return Job(trial=trial, label=method, variants=("", "learning_rate=2e-5"))


HISTORY = [{"epoch": 1.0, "test_accuracy": 0.5, "loss": 0.7}, {"epoch": 2.0, "test_accuracy": 0.75, "loss": 0.4}]
BEGINNINGS = count(1_000)
FRAME = pd.DataFrame({"id": ["x", "y"], "weight_1": [0.5, 1.5]})


def begin(ledger: Ledger, job: Job) -> Part:
    """A trial that runs, and began after all before it."""
    part = Part(job, started=next(BEGINNINGS))
    return replace(part, run=ledger.write(part))


def finish(ledger: Ledger, part: Part) -> None:
    entries = tuple((1_000 * number, entry) for number, entry in enumerate(HISTORY))
    outcome = Outcome.finished({"seconds_train": 1.5}, {"torch": "9"}, HISTORY, {"weights.parquet": FRAME})
    ledger.write(replace(part, entries=entries, outcome=outcome))


def fail(ledger: Ledger, part: Part, error: str) -> None:
    ledger.write(replace(part, outcome=Outcome.failed(error)))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take long to make."""
    folder = tmp_path_factory.mktemp("ledger")
    Ledger(f"sqlite:///{folder / 'mlflow.db'}", folder)
    return folder / "mlflow.db"


@pytest.fixture
def uri(empty: Path, tmp_path: Path) -> str:
    (tmp_path / "home").mkdir()
    shutil.copy(empty, tmp_path / "home")
    return f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"


@pytest.fixture
def ledger(uri: str, tmp_path: Path) -> Ledger:
    """An open one."""
    opened = Ledger(uri, tmp_path / "home")
    opened.open("toys", {"command": "harness run toys.yaml"}, {"experiment.yaml": b"name: toys\n"})
    return opened


def test_a_new_ledger_is_empty_and_hidden_from_version_control(uri: str, tmp_path: Path) -> None:
    ledger = Ledger(uri, tmp_path / "home")
    assert ledger.trials() == {}
    assert finished(ledger.trials()) == set()
    assert ledger.parents() == {}
    assert (tmp_path / "home" / ".gitignore").read_text() == "*\n"


def test_what_is_written_is_read(ledger: Ledger, uri: str) -> None:
    run = begin(ledger, job())
    assert ledger.trials()[job().trial.id].status == "RUNNING"
    assert finished(ledger.trials()) == set(), "what runs is not finished"
    finish(ledger, run)
    ledger.close("FINISHED", {"wall_seconds": 3.0})

    entry = ledger.trials()[job().trial.id]
    assert (entry.run, entry.status, entry.error) == (run.run, "FINISHED", "")
    assert finished(ledger.trials()) == {job().trial.id}
    expected = {
        "method": "imp", "seed": "0", "fraction": "0.5", "variant": "learning_rate=2e-5", "threads": "2",
        "quality_checker": "1" * 16, "diversity_checker": "", "env.torch": "9", "harness.experiment": "toys",
    }  # fmt: skip
    assert expected.items() <= entry.tags.items()
    assert entry.metrics == {"test_accuracy": 0.75, "loss": 0.4, "seconds_train": 1.5}
    parent = ledger.parents()["toys"]
    assert (parent.status, parent.metrics, parent.tags["command"]) == (
        "FINISHED", {"wall_seconds": 3.0}, "harness run toys.yaml",
    )  # fmt: skip
    assert ledger.artifact(parent, "experiment.yaml") == b"name: toys\n"
    assert ledger.artifact(entry, "no.such") is None

    client = MlflowClient(uri)
    stored = client.get_run(run.run)
    assert stored.data.tags["mlflow.parentRunId"] == parent.run
    assert stored.data.params["training.batch_size"] == "32"
    assert stored.data.params["method.settings.clip"] == "None"
    assert [(p.step, p.value) for p in client.get_metric_history(run.run, "test_accuracy")] == [(1, 0.5), (2, 0.75)]
    assert {d.dataset.name: d.dataset.digest for d in stored.inputs.dataset_inputs}["toy/test"] == "d" * 36


def test_a_local_ledger_is_read_without_mlflow_and_alike(ledger: Ledger, uri: str) -> None:
    finish(ledger, begin(ledger, job(0)))
    fail(ledger, begin(ledger, job(1)), "no")
    reader = SqliteReader(uri)
    assert reader.trials() == ledger.trials()
    assert reader.parents() == ledger.parents()
    entry = reader.trials()[job(0).trial.id]
    assert reader.artifact(entry, "history.json") == ledger.artifact(entry, "history.json") is not None
    assert reader.artifact(entry, "no.such") is None


def test_a_write_that_a_kill_has_cut_off_is_undone_before_reading(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    finish(ledger, begin(ledger, job(0)))
    before = SqliteReader(uri).trials()
    (killed := tmp_path / "killed").mkdir()
    with closing(sqlite3.connect(tmp_path / "home" / "mlflow.db")) as connection:
        connection.execute("PRAGMA cache_size = 1")  # the file is written to before the end of the transaction
        connection.execute("UPDATE tags SET value = 'half done'")
        connection.execute("CREATE TABLE padding AS SELECT randomblob(1000000)")
        for file in (tmp_path / "home").glob("mlflow.db*"):
            shutil.copy(file, killed)
    assert (killed / "mlflow.db-journal").exists()
    assert SqliteReader(f"sqlite:///{killed / 'mlflow.db'}").trials() == before
    assert not (killed / "mlflow.db-journal").exists()


def test_the_report_of_an_experiment_is_replaced(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    parent = SqliteReader(uri).parents()["toys"]
    attach_report(parent, {"report.html": b"1", "figures/old.svg": b"1"}, uri, tmp_path / "home")
    attach_report(parent, {"report.html": b"2", "figures/new.svg": b"2"}, uri, tmp_path / "home")
    assert ledger.artifact(parent, "report/report.html") == b"2"
    paths = [item.path for item in MlflowClient(uri).list_artifacts(parent.run, "report/figures")]
    assert paths == ["report/figures/new.svg"]
    assert ledger.artifact(parent, "experiment.yaml") == b"name: toys\n", "the others stay"


def test_a_copied_ledger_keeps_its_own_report(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    copy = SqliteReader(f"sqlite:///{tmp_path / 'copy' / 'mlflow.db'}")
    attach_report(copy.parents()["toys"], {"report.html": b"copy"}, copy.uri, tmp_path / "copy")
    assert ledger.artifact(ledger.parents()["toys"], "report/report.html") is None
    assert [path.read_bytes() for path in (tmp_path / "copy").rglob("report.html")] == [b"copy"]


def test_a_report_without_a_folder_for_it_is_refused(tmp_path: Path) -> None:
    parent = Entry("run", "FINISHED", 0, artifacts=(tmp_path / "elsewhere").as_uri())
    with pytest.raises(UserError, match="elsewhere, is not on this machine"):
        attach_report(parent, {"report.html": b""}, "http://127.0.0.1:1", tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_an_artifact_store_that_refuses_is_a_user_error(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("AccessDenied by s3://me:secret@bucket")

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    with pytest.raises(UserError, match=r"AccessDenied by s3://me:\*\*\*@bucket"):
        ledger.replace_files(ledger.parents()["toys"], "report", {"report.html": b""})


def test_a_metric_that_is_not_a_number_is_read_as_such(ledger: Ledger, uri: str) -> None:
    entry = {"epoch": 1.0, "weight_mean": float("nan"), "test_accuracy": 0.5}
    ledger.write(replace(begin(ledger, job()), entries=((1, entry),)))
    for reader in (ledger, SqliteReader(uri)):
        metrics = reader.trials()[job().trial.id].metrics
        assert math.isnan(metrics["weight_mean"])
        assert metrics["test_accuracy"] == 0.5


def test_a_reader_of_some_keys_reads_these_and_how_far_a_trial_is(ledger: Ledger, uri: str) -> None:
    ledger.write(Part(job(), entries=((1, HISTORY[0]),)))
    finish(ledger, Part(job(seed=1)))
    keys = ("evaluations", "seconds_train", "test_accuracy")
    few, every = SqliteReader(uri).trials(keys), ledger.trials(keys)
    for seed, epoch in ((0, 1), (1, 2)):
        one, whole = few[job(seed).trial.id], every[job(seed).trial.id]
        assert set(one.tags) == {"harness.trial", "evaluations"}
        assert set(one.metrics) == set(whole.metrics) & set(keys)
        assert (one.epoch, one.started, one.ended) == (whole.epoch, whole.started, whole.ended)
        assert one.epoch == epoch
        assert one.tags["evaluations"] == str(job().trial.evaluations)
    assert few[job().trial.id].ended is None
    assert (few[job(1).trial.id].ended or 0) >= few[job(1).trial.id].started


def test_a_copied_ledger_finds_its_artifacts(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    finish(ledger, begin(ledger, job()))
    shutil.move(tmp_path / "home", tmp_path / "elsewhere")
    reader = SqliteReader(f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}")
    assert reader.artifact(reader.trials()[job().trial.id], "history.json")
    assert reader.artifact(reader.parents()["toys"], "experiment.yaml") == b"name: toys\n"


def test_a_whole_trial_is_one_batch(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[int, int, int]] = []
    send = MlflowClient.log_batch

    def log_batch(
        self: MlflowClient, run_id: str, metrics: list[object], params: list[object], tags: list[object]
    ) -> None:
        requests.append((len(metrics), len(params), len(tags)))
        send(self, run_id, metrics, params, tags)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    monkeypatch.setattr(MlflowClient, "log_metric", None)
    finish(ledger, Part(job()))
    ((metrics, params, tags),) = requests
    assert (metrics, tags) == (2 * 2 + 1, 1)
    assert params > 10


def test_what_mlflow_does_not_take_in_one_request_is_written_in_several(ledger: Ledger, uri: str) -> None:
    entries = tuple((k, {"epoch": k + 1.0, "loss": 0.5, "accuracy": 0.1}) for k in range(700))
    part = Part(job(), entries=entries, outcome=Outcome("FINISHED", tags={f"tag_{k}": "" for k in range(150)}))
    run = ledger.write(part)
    points = MlflowClient(uri).get_metric_history(run, "loss")
    assert [point.step for point in points] == list(range(1, 701))
    assert len([tag for tag in ledger.trials()[job().trial.id].tags if tag.startswith("tag_")]) == 150


def test_a_part_that_is_written_again_is_there_once(ledger: Ledger, uri: str) -> None:
    part = Part(job(), entries=((1, HISTORY[0]),), outcome=Outcome.failed("no"))
    first = ledger.write(part)
    assert ledger.write(replace(part, repeated=True)) == first
    assert len(MlflowClient(uri).search_runs(["1"], "tags.`harness.kind` = 'trial'")) == 1
    assert len(MlflowClient(uri).get_metric_history(first, "loss")) == 1


def test_a_finished_run_beats_a_newer_failed_one(ledger: Ledger) -> None:
    first = begin(ledger, job())
    finish(ledger, first)
    fail(ledger, begin(ledger, job()), "Traceback ...\nValueError: no")
    entry = ledger.trials()[job().trial.id]
    assert (entry.run, entry.status) == (first.run, "FINISHED")


def test_the_newest_of_failed_runs_counts(ledger: Ledger) -> None:
    fail(ledger, begin(ledger, job()), "first")
    second = begin(ledger, job())
    fail(ledger, second, "Traceback ...\nValueError: second")
    entry = ledger.trials()[job().trial.id]
    assert (entry.status, entry.error) == ("FAILED", "ValueError: second")
    assert ledger.artifact(entry, "error.txt") == b"Traceback ...\nValueError: second"
    ledger.write(replace(begin(ledger, job()), outcome=Outcome.interrupted("stopped")))
    assert (ledger.trials()[job().trial.id].status, ledger.trials()[job().trial.id].error) == ("KILLED", "stopped")


def test_the_pages_of_mlflow_find_description_command_and_commit(ledger: Ledger, uri: str) -> None:
    ledger.open("toys", {"description": "Which toy?", "command": "harness run toys.yaml", "commit": "c0ffee"}, {})
    parent = ledger.parents()["toys"]
    assert parent.tags["mlflow.note.content"] == "Which toy?"
    assert parent.tags["mlflow.source.name"] == parent.tags["command"] == "harness run toys.yaml"
    assert parent.tags["mlflow.source.git.commit"] == "c0ffee"
    experiment = MlflowClient(uri).get_experiment_by_name("toys")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_experiment_has_a_table_and_a_chart_on_the_pages_of_mlflow(ledger: Ledger, uri: str) -> None:
    tags = MlflowClient(uri).get_experiment_by_name("toys").tags
    table, chart = (json.loads(tags[f"mlflow.sharedViewState.{key}"]) for key in ("harness-table", "harness-chart"))
    begin(ledger, job())
    entry = ledger.trials()[job().trial.id]
    columns = [name.removeprefix("tags.")[1:-1] for name in table["selectedColumns"] if name.startswith("tags.")]
    assert columns == ["label", "source", "benchmark", "seed", "fraction"]
    assert set(columns) <= set(entry.tags), "columns without values would be empty"
    assert [card["selectedMetrics"] for card in chart["compareRunCharts"]] == [["test_accuracy"], ["test_f1"]]
    params = MlflowClient(uri).get_run(entry.run).data.params
    assert all(set(card["selectedParams"]) <= set(params) for card in chart["compareRunCharts"])
    assert {card["metricSectionId"] for card in chart["compareRunCharts"]} <= {
        section["uuid"] for section in chart["compareRunSections"]
    }


def test_the_end_of_a_run_leaves_statistics_for_sqlite(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    """With them SQLite sorts many trials by a metric ten times as fast."""
    finish(ledger, begin(ledger, job(0)))
    ledger.close("FINISHED", {})
    with closing(sqlite3.connect(tmp_path / "home" / "mlflow.db")) as connection:
        tables = {name for (name,) in connection.execute("SELECT DISTINCT tbl FROM sqlite_stat1")}
    assert {"runs", "tags", "latest_metrics"} <= tables
    analyze("sqlite:////no/such/mlflow.db")
    assert not Path("/no").exists()


def test_the_views_are_added_once_and_to_ledgers_that_lack_them(
    ledger: Ledger, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(uri)
    client.delete_experiment_tag("1", "mlflow.sharedViewState.harness-chart")
    assert Ledger(uri, tmp_path / "home").add_views() == {"toys": "1"}
    assert "mlflow.sharedViewState.harness-chart" in client.get_experiment("1").tags
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", None)
    again = Ledger(uri, tmp_path / "home")
    again.add_views()
    again.open("toys", {}, {})


def test_a_metric_of_earlier_runs_of_the_experiment_can_be_added_to(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    assert ledger.before("wall_seconds") == 0.0
    ledger.close("FINISHED", {"wall_seconds": 3.0})
    again = Ledger(uri, tmp_path / "home")
    again.open("toys", {}, {})
    assert again.before("wall_seconds") == 3.0


def test_more_tables_for_a_finished_trial(ledger: Ledger) -> None:
    run = begin(ledger, job())
    finish(ledger, run)
    ledger.write(replace(run, files=parquet({"scores_abc.parquet": FRAME})))
    assert ledger.artifact(ledger.trials()[job().trial.id], "scores_abc.parquet") is not None


def test_label_names_may_stand_in_parameters(ledger: Ledger, uri: str) -> None:
    odd = job()
    settings = {"descriptions": {"billing (EU)": "money", "R&D": "new things"}}
    method = odd.trial.method.model_copy(update={"settings": settings})
    run = begin(ledger, odd.model_copy(update={"trial": odd.trial.model_copy(update={"method": method})}))
    params = MlflowClient(uri).get_run(run.run).data.params
    assert params["method.settings.descriptions.billing _EU_"] == "money"
    assert params["method.settings.descriptions.R_D"] == "new things"


def test_opening_marks_what_a_dead_driver_left_running(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    interrupted, complete = begin(ledger, job(0)), begin(ledger, job(1))
    finish(ledger, complete)
    again = Ledger(uri, tmp_path / "home")
    assert again.trials()[job(0).trial.id].status == "RUNNING", "reading changes nothing"
    again.open("toys", {}, {})
    entries = again.trials()
    assert entries[job(0).trial.id].status == "KILLED"
    assert entries[job(0).trial.id].run == interrupted.run
    assert "the driver ended before the trial did" in entries[job(0).trial.id].error
    assert entries[job(1).trial.id].status == "FINISHED"
    parents = MlflowClient(uri).search_runs(["1"], "tags.`harness.kind` = 'experiment'")
    assert [run.info.status for run in parents] == ["RUNNING"], "the parent is opened again, not made again"


def test_abandoning_marks_what_runs_even_if_its_creator_was_interrupted(ledger: Ledger) -> None:
    begin(ledger, job(0))  # nobody kept its run id
    finish(ledger, begin(ledger, job(1)))
    ledger.abandon("stopped")
    entries = ledger.trials()
    assert (entries[job(0).trial.id].status, entries[job(0).trial.id].error) == ("KILLED", "stopped")
    assert entries[job(1).trial.id].status == "FINISHED"


def test_opening_leaves_the_trials_of_other_experiments_alone(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    begin(ledger, job())
    Ledger(uri, tmp_path / "home").open("others", {}, {})
    assert ledger.trials()[job().trial.id].status == "RUNNING"


def test_a_trial_of_another_experiment_is_found(ledger: Ledger, uri: str, tmp_path: Path) -> None:
    finish(ledger, begin(ledger, job()))
    other = Ledger(uri, tmp_path / "home")
    other.open("others", {}, {})
    assert finished(other.trials()) == {job().trial.id}


@pytest.mark.parametrize("bad", ["mlruns", "file:///tmp/mlruns", "ftp://host"])
def test_a_uri_that_mlflow_does_not_know_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected sqlite:///ABSOLUTE/PATH.*mlflow migrate-filestore"):
        Ledger(bad, tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database, " * 100)
    with pytest.raises(UserError, match=r"the MLflow ledger at sqlite:///.* cannot be used"):
        Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


def test_a_password_in_the_uri_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 0)  # ten tries take a minute and a half
    with pytest.raises(UserError, match=r"ledger at postgresql://me:\*\*\*@127") as caught:
        Ledger("postgresql://me:secret@127.0.0.1:1/db", tmp_path)
    assert "secret" not in str(caught.value)


def test_a_server_that_loses_metrics_is_met_at_the_start(
    ledger: Ledger, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = ledger.parents().values()
    assert "connection_check" not in before.metrics, "a local database needs no check"
    ledger.uri = "http://someone:secret@mlflow:5000"  # the client goes on with the database
    ledger.open("toys", {}, {})
    (parent,) = ledger.parents().values()
    assert parent.metrics["connection_check"] > 0
    monkeypatch.setattr(ledger, "_metrics", lambda run, values, step: None)
    monkeypatch.setattr("time.time", lambda: 5.0)
    with pytest.raises(
        UserError, match=r"MLflow server at .*mlflow:5000 does not keep metrics: it was sent 5"
    ) as caught:
        ledger.open("toys", {}, {})
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"the MLflow ledger at http://127\.0\.0\.1:\d+ cannot be used"):
        Ledger(f"http://127.0.0.1:{free_port()}", tmp_path)


def test_making_a_ledger_says_nothing(tmp_path: Path) -> None:
    uri, code = (
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        "from harness.ledger.mlflow_ledger import Ledger; from pathlib import Path; ",
    )
    code += f"ledger = Ledger({uri!r}, Path({str(tmp_path)!r})); ledger.open('toys', {{}}, {{'a.txt': b'a'}}); "
    code += "print(ledger.artifact(ledger.parents()['toys'], 'a.txt'))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (process.stdout, process.stderr) == ("b'a'\n", "")


def test_an_interrupt_inside_a_query_leaves_no_traceback_on_the_console(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from harness.ledger.mlflow_ledger import Ledger

Ledger(f"sqlite:///{sys.argv[1]}/mlflow.db", Path(sys.argv[1]))
from sqlalchemy import create_engine

class Cursor:
    def close(self):
        raise RuntimeError("interrupted in the middle of a query")

with create_engine("sqlite://").connect() as connection:
    connection._safe_close_cursor(Cursor())
print("went on")
"""
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (process.stdout, process.stderr) == ("went on\n", "")


def test_a_server_as_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    log = (tmp_path / "server.log").open("w")
    server = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ), cwd=tmp_path)
    try:
        wait_for_server(port, server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        paths = Paths.at(tmp_path / "home", None)
        ledger = Ledger(paths.tracking_uri, paths.home)
        ledger.open("toys", {"command": "x"}, {"experiment.yaml": b"name: toys\n"})
        run = begin(ledger, job())
        finish(ledger, run)
        ledger.close("FINISHED", {})
        again = Ledger(paths.tracking_uri, paths.home)
        assert finished(again.trials()) == {job().trial.id}
        raw = again.artifact(again.trials()[job().trial.id], "weights.parquet")
        assert raw is not None
        assert again.artifact(again.trials()[job().trial.id], "nothing.parquet") is None
        (tmp_path / "back.parquet").write_bytes(raw)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "back.parquet"), FRAME)
        assert list((tmp_path / "artifacts").rglob("weights.parquet")), "the artifact went through the server"
        parent = again.parents()["toys"]
        for name in ("old", "new"):
            files = {"report.html": name.encode(), f"figures/{name}.svg": b""}
            attach_report(parent, files, paths.tracking_uri, paths.home)
        assert again.artifact(parent, "report/report.html") == b"new"
        assert [path.name for path in (tmp_path / "artifacts").rglob("*.svg")] == ["new.svg"]
        assert not (tmp_path / "home" / "artifacts").exists()
    finally:
        end(server)
        log.close()
