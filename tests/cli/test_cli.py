"""The command line: helps, refuses with one message, shows."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import app, views
from harness.driver import Summary
from harness.ledger.entries import Entry
from harness.ledger.mlflow_ledger import Ledger
from harness.paths import Paths
from harness.training import speed
from tests.commands import Home, end, family, gone, wait_for_server

COMMANDS = [
    [], ["run"], ["plan"], ["report"], ["compare"], ["ui"], ["show"], ["status"], ["stop"], ["retry"], ["list"],
    ["list", "methods"], ["list", "benchmarks"],
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def invoke(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process, as the console script does; what it printed, after `code` was checked."""

    def call(*words: object, code: int = 0) -> str:
        for key, value in home.environment().items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr("sys.argv", ["harness", *map(str, words)])
        monkeypatch.setattr(app.out, "_file", None)
        monkeypatch.setattr(app.out, "_width", 200)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        captured = capsys.readouterr()
        assert (ended.value.code or 0) == code, captured.err
        if code:
            assert captured.out == ""
            return captured.err
        return captured.out

    return call


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "harness")
def test_every_command_explains_itself(words: list[str]) -> None:
    result = CliRunner().invoke(app.app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 5


# -- mistakes --------------------------------------------------------------------------------------------------------

ROWS = [{"source": "generated", "methods": ["ce"]}]


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"grid": [{"source": "generated", "methods": ["dmip"]}]}, [], r"unknown method 'dmip'.*Did you mean 'dimp'\?"),
        ({"grid": [{"source": "generated", "methods": [{"name": "focal", "gama": 1}]}]}, [], r"'gama'.*'gamma'"),
        ({"benchmarks": ["tweet_sentimnt"]}, [], r"'tweet_sentimnt'.*Did you mean 'tweet_sentiment'\?"),
        ({"learning_rate": 1}, [], r"unknown key 'learning_rate'"),
        ({}, ["training.epoch=3"], r"unknown key 'epoch'.*Did you mean 'epochs'\?"),
        ({}, ["training.epochs=zero"], r"training\.epochs"),
        ({}, ["training.epochs"], r"training\.epochs"),
        ({"encoder": "/no/such/folder"}, [], r"/no/such/folder"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_users_mistake_is_one_message_and_exit_code_2(
    command: str, changes: dict[str, object], settings: list[str], message: str, invoke: Callable[..., str],
    experiment_file: Callable[..., Path],
) -> None:  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    text = invoke(command, experiment_file(**changes), *words, code=2)
    assert text.startswith("harness: ")
    assert re.search(message, text), text
    assert "Traceback" not in text


def test_a_file_that_is_not_there(invoke: Callable[..., str]) -> None:
    text = invoke("run", "no/such.yaml", code=2)
    assert f"unknown file 'such.yaml' in {Path('no').absolute()}." in text
    assert "Traceback" not in text


def test_a_mistake_through_the_console_has_no_traceback_either(home: Home) -> None:
    process = home("run", "no/such.yaml")
    assert (process.returncode, process.stdout) == (2, "")
    assert len(process.stderr.strip().splitlines()) == 1


# -- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["plan"], ["run", "--dry-run"]], ids=" ".join)
def test_a_plan_shows_rows_checkers_and_an_estimate(
    words: list[str], invoke: Callable[..., str], experiment_file: Callable[..., Path], home: Home
) -> None:
    rows = [{"source": "generated", "methods": ["imp", "dimp"]}]
    text = invoke(*words, experiment_file(grid=rows, seeds=[0, 1]))
    assert "small: 8 trials" in text
    assert re.search(r"tiny .*generated .*imp .*2 .*0 .*2", text)
    assert re.search(r"real_small .*ce \(checker only\)", text)
    assert "Checkers: 4 trials are checkers of 4 others, 4 of them only as checkers." in text
    assert "To run: 8 of 8 trials. No time estimate: no finished trial gives a rate; `--estimate`" in text
    assert "To run: 8 of 8 trials. About" in invoke("plan", "--estimate", experiment_file(grid=rows, seeds=[0, 1]))
    assert Ledger(f"sqlite:///{home.folder / 'home' / 'mlflow.db'}", home.folder / "home").trials() == {}


@pytest.mark.parametrize(("bfloat16", "hint"), [(120.0, True), (55.0, False)])
def test_an_estimate_says_where_bfloat16_is_much_faster(
    bfloat16: float, hint: bool, invoke: Callable[..., str], experiment_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rates = {"float32": 50.0, "bfloat16": bfloat16}
    monkeypatch.setattr(speed, "rows_per_second", lambda trial, *_: rates[trial.stages[-1].training.precision])
    text = " ".join(invoke("plan", "--estimate", experiment_file(seeds=[0])).split())
    assert ("In bfloat16 a step is 2.4 times as fast here: --set training.precision=bfloat16." in text) == hint


def test_list_methods(invoke: Callable[..., str]) -> None:
    text = invoke("list", "methods")
    for word in ("ce", "focal", "imp", "dimp", "gamma=", "diversity, quality"):
        assert word in text


def test_list_benchmarks(invoke: Callable[..., str]) -> None:
    text = invoke("list", "benchmarks")
    assert "tweet_sentiment" in text
    assert "license" in text
    assert "negative, neutral, positive" in text


def test_a_report_without_a_run_is_refused(invoke: Callable[..., str], experiment_file: Callable[..., Path]) -> None:
    assert "no run of the experiment 'small'" in invoke("report", experiment_file(grid=ROWS), code=2)


# -- the server ------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ui_refuses_without_a_ledger(invoke: Callable[..., str], home: Home) -> None:
    assert "no ledger at sqlite:///" in invoke("ui", code=2)
    assert not (home.folder / "home" / "mlflow.db").exists()


def test_ui_names_the_pages_of_a_server(invoke: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "__init__", lambda self, uri, home: None)
    monkeypatch.setattr(Ledger, "add_views", lambda self: {"toys": "7"})
    output = invoke("ui", "--tracking-uri", "http://me:secret@127.0.0.1:1")
    assert "server already: http://me:***@127.0.0.1:1\n" in output
    assert "trials of toys: http://127.0.0.1:1/#/experiments/7/runs?viewStateShareKey=harness-table" in output
    assert "chart of toys: http://127.0.0.1:1/#/experiments/7/runs?viewStateShareKey=harness-chart" in output


def test_the_last_line_of_a_run_names_the_server_that_has_the_ledger(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Entry("run", "FINISHED", 0, {"harness.experiment": "toys"}, experiment="7")
    monkeypatch.setattr(
        views, "open_reader", lambda uri, home: SimpleNamespace(uri=uri, parents=lambda: {"toys": entry})
    )
    pages = views.mlflow_address("toys", Paths.at(tmp_path, None, "https://me:secret@mlflow.example/sub/"))
    views.farewell(Summary(2, 1, {}), tmp_path / "report.html", True, pages, Console(width=200))
    last = capsys.readouterr().out.splitlines()[-1]
    assert "MLflow: https://mlflow.example/sub/#/experiments/7/runs?viewStateShareKey=harness-table" in last
    assert "harness ui" not in last
    assert "secret" not in last


@pytest.mark.parametrize(
    ("home", "uri", "expected"),
    [
        (app.HOME, None, "harness ui"),
        (Path("other home"), None, "harness ui --home 'other home'"),
        (app.HOME, "postgresql://me:secret@db/x", "harness ui --tracking-uri 'postgresql://me:***@db/x'"),
    ],
)
def test_the_last_line_of_a_run_names_the_command_that_opens_a_ledger_without_a_server(
    home: Path, uri: str | None, expected: str
) -> None:
    assert views.mlflow_address("toys", Paths.at(home, None, uri or "sqlite:////x/mlflow.db")) is None
    assert app.ui_command(home, uri) == expected


def test_the_recorded_command_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "run", "toys.yaml", "--tracking-uri", "https://me:secret@host"])
    assert app.recorded_command() == "harness run toys.yaml --tracking-uri https://me:***@host"


def test_ui_listens_on_this_machine_only(home: Home) -> None:
    Ledger(f"sqlite:///{home.folder / 'home' / 'mlflow.db'}", home.folder / "home")
    port = free_port()
    with home.log.open("w") as log:
        server = psutil.Popen(
            home.command("ui", "--port", port), stdout=log, stderr=subprocess.STDOUT, env=home.environment()
        )
    try:
        wait_for_server(port, server)
        listening = {
            connection.laddr.ip
            for process in family(server)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        }
        assert listening == {"127.0.0.1"}
        assert f"http://127.0.0.1:{port}" in home.log.read_text()
    finally:
        end(server)


def test_ui_ends_all_its_processes_when_it_is_terminated(home: Home) -> None:
    Ledger(f"sqlite:///{home.folder / 'home' / 'mlflow.db'}", home.folder / "home")
    port = free_port()
    with home.log.open("w") as log:
        server = psutil.Popen(
            home.command("ui", "--port", port), stdout=log, stderr=subprocess.STDOUT, env=home.environment()
        )
    wait_for_server(port, server)
    processes = family(server)
    assert len(processes) > 1
    server.terminate()
    assert server.wait(60) == 143
    assert gone(processes) == []
