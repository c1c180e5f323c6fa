"""How long `harness status` takes on a local ledger of 10,000 trials, beside reading every tag and metric.

The trials are written into the ledger's database in bulk, with as many tags and metrics as `harness run` writes: 89 %
are done, 1 % failed, 20 run, the rest waits. Every figure is the median of several runs; the command runs in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from planning import METHODS, seconds

from harness.config.experiment import Experiment
from harness.driver import plan_files
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


def fill(plan: Plan, folder: Path) -> None:
    """Writes a ledger with the trials of a plan."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    ledger = Ledger(uri, folder)
    ledger.open(plan.experiment.name, {}, plan_files(plan))
    now = int(time.time() * 1000)
    ledger.set_tags(ledger.parent, {ALIVE: str(now), BEGAN: str(now - 3_600_000)})
    experiment = ledger.parents()[plan.experiment.name].experiment
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        for position, job in enumerate(plan.jobs):
            if status := state_of(position, len(plan.jobs)):
                insert(connection, job, status, experiment, now)


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
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
        (folder / "encoder").mkdir()
        settings = {
            "name": "large", "benchmarks": [str(make_benchmark(folder))], "grid": grid,
            "encoder": str(make_encoder(folder / "encoder")), "seeds": list(range(words.trials // 8)),
        }  # fmt: skip
        plan = make(Experiment.model_validate(settings), None)
        home = folder / "home"
        fill(plan, home)
        environment = os.environ | {"HARNESS_HOME": str(home), "HF_HUB_OFFLINE": "1", "MLFLOW_TRACKING_URI": ""}

        def status(*arguments: str) -> None:
            command = [sys.executable, "-m", "harness.cli", "status", *arguments]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)

        reader = open_reader(f"sqlite:///{home / 'mlflow.db'}", home)
        figures = {
            "trials": float(len(plan.jobs)),
            "status_seconds": seconds(lambda: status("large"), words.repetitions),
            "status_of_all_seconds": seconds(status, words.repetitions),
            "read_everything_seconds": seconds(reader.trials, words.repetitions),
        }
    for key, value in figures.items():
        print(f"{key}: {value:.2f}")
    if words.json:
        words.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
