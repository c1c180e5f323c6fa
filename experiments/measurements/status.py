"""How long `harness plan`, `status` and the first page of `report` take on a ledger of 10,000 trials.

The trials are written into the ledger's database in bulk, with as many tags and metrics as `harness run` writes: 89 %
are done, 1 % failed, 20 run, the rest waits. Every figure is the median of several runs, each in a process of its own.
With --server the ledger is read through an MLflow server on this machine, first without the files of finished trials
(`harness.ledger.batches`), then with them.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from statistics import median

from mlflow_server import server
from planning import METHODS, seconds
from scale import timed

from harness.config.experiment import Experiment
from harness.driver import plan_files
from harness.ledger.batches import BATCH, OPEN, SIZE, tag
from harness.ledger.entries import open_reader
from harness.ledger.mlflow_ledger import Ledger
from harness.ledger.signals import ALIVE, BEGAN
from harness.phases import Phase
from harness.planning.plan import Plan, make
from harness.planning.trials import Job, describe
from harness.testing import make_benchmark, make_encoder

#: Tags and metrics of a trial that a status does not need; as many as `harness run` writes.
OTHER_TAGS = [f"env.{i}" for i in range(22)]
OTHER_METRICS = [f"metric_{i}" for i in range(22)]


def state_of(position: int, count: int) -> str | None:
    """The state of the trial at a position; None for a waiting one."""
    if position < 0.9 * count:
        return "FAILED" if position % 90 == 0 else "FINISHED"
    return "RUNNING" if position < 0.9 * count + 20 else None


def fill(plan: Plan, ledger: Ledger, database: Path) -> None:
    """Writes the trials of a plan into a ledger's database."""
    ledger.open(plan.experiment.name, {}, plan_files(plan))
    now = int(time.time() * 1000)
    ledger.set_tags(ledger.parent, {ALIVE: str(now), BEGAN: str(now - 3_600_000)})
    experiment = ledger.parents()[plan.experiment.name].experiment
    with closing(sqlite3.connect(database)) as connection, connection:
        for position, job in enumerate(plan.jobs):
            if status := state_of(position, len(plan.jobs)):
                insert(connection, job, status, experiment, now)


def make_batches(plan: Plan, ledger: Ledger, database: Path) -> None:
    """Puts the finished trials into batches, and has the ledger write their files as the next run would."""
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT run_uuid FROM runs WHERE status = 'FINISHED' ORDER BY run_uuid"
        runs = [run for (run,) in connection.execute(query)]
        rows = [(BATCH, f"b{position // SIZE}", run) for position, run in enumerate(runs)]
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", rows)
    ledger.set_tags(ledger.parent, {tag(name): OPEN for _, name, _ in rows})
    running = "SELECT run_uuid FROM runs WHERE status = 'RUNNING'"
    with closing(sqlite3.connect(database)) as connection:
        ids = [run for (run,) in connection.execute(running)]
    ledger.open(plan.experiment.name, {}, {})
    with closing(sqlite3.connect(database)) as connection, connection:  # opening marks what runs as killed
        connection.executemany("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", zip(ids))


def commands(file: Path, environment: Mapping[str, str], repetitions: int) -> dict[str, float]:
    """Seconds of each command."""
    words = {
        "plan": ["plan", str(file)], "status": ["status", "large"], "status_of_all": ["status"],
        "first_page": ["report", "large", "--results", str(file.parent / "results")],
    }  # fmt: skip
    figures = {}
    for name, command in words.items():
        times = []
        for _ in range(repetitions):
            lines, whole = timed([sys.executable, "-m", "harness.cli", *command], environment, "First page")
            times.append(next((at for line, at in lines if line.startswith("First page")), whole))
        figures[f"{name}_seconds"] = median(times)
    return figures


def insert(connection: sqlite3.Connection, job: Job, status: str, experiment: str, now: int) -> None:
    """Writes the run of a trial."""
    run, ended = uuid.uuid4().hex, None if status == "RUNNING" else now - 1000
    connection.execute(
        "INSERT INTO runs (run_uuid, name, user_id, source_type, status, start_time, end_time, lifecycle_stage, "
        "artifact_uri, experiment_id) VALUES (?, '', '', 'UNKNOWN', ?, ?, ?, 'active', '', ?)",
        (run, status, now - 60_000, ended, experiment),
    )  # fmt: skip
    tags = {"harness.kind": "trial", "harness.trial": job.trial.id, "mlflow.runName": describe(job), "evaluations": "5"}
    tags |= dict.fromkeys(OTHER_TAGS, "some text of a usual length") | ({"error": "NaN"} if status == "FAILED" else {})
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(key, value, run) for key, value in tags.items()])
    keys = ["test_accuracy", *(phase.key for phase in Phase), *OTHER_METRICS]
    rows = [(key, 1.5, now, 3, False, run) for key in keys]
    connection.executemany("INSERT INTO latest_metrics VALUES (?, ?, ?, ?, ?, ?)", rows)


def main() -> None:
    """Prints the figures; ``--json FILE`` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--server", action="store_true", help="the ledger is an MLflow server on this machine")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
        (folder / "encoder").mkdir()
        settings = {
            "name": "large", "benchmarks": [str(make_benchmark(folder))], "grid": grid,
            "encoder": str(make_encoder(folder / "encoder")), "seeds": list(range(words.trials // 8)),
        }  # fmt: skip
        file, home = folder / "large.yaml", folder / "home"
        file.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        plan = make(Experiment.model_validate(settings), None)
        figures = {"trials": float(len(plan.jobs))}
        environment = os.environ | {"HARNESS_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        if words.server:
            with server(folder / "server") as uri:
                environment |= {"MLFLOW_TRACKING_URI": uri}
                ledger = Ledger(uri, home)
                fill(plan, ledger, folder / "server" / "server.db")
                without = commands(file, environment, 1)
                figures |= {f"{key}_without_files": value for key, value in without.items()}
                figures["files_seconds"] = seconds(
                    lambda: make_batches(plan, ledger, folder / "server" / "server.db"), 1
                )
                figures |= commands(file, environment, words.repetitions)
        else:
            uri = f"sqlite:///{home / 'mlflow.db'}"
            fill(plan, Ledger(uri, home), home / "mlflow.db")
            figures |= commands(file, environment | {"MLFLOW_TRACKING_URI": ""}, words.repetitions)
            figures["read_everything_seconds"] = seconds(open_reader(uri, home).trials, words.repetitions)
    for key, value in figures.items():
        print(f"{key}: {value:.2f}")
    if words.json:
        words.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
