"""Thousands of trials through dozens of kills: is every trial finished exactly once?

The driver of a run of simulated trials (see `scale.py`; here they do not sleep) is killed with SIGKILL at random
moments, with everything that it has started, and started again by the same command. In the end, the ledger must have
every planned trial as finished once, under one id, and the store its result. How often trials were begun is counted
apart: a kill costs the trials that were running, and no others.

    python experiments/measurements/exactly_once.py --json results/runtime/exactly_once.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from scale import METHODS, Curve, make_inputs, simulate

from harness.config.experiment import Experiment
from harness.driver import execute
from harness.paths import Paths
from harness.planning.plan import Plan, make
from harness.planning.trials import Job
from harness.store import Store
from harness.training.trial_result import load_result

NAME = "exactly_once"
BEGUN, KILLS = "begun.txt", "kills.txt"


def make_plan(folder: Path, trials: int) -> tuple[Plan, Paths]:
    """The experiment and its home."""
    grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
    settings = {
        "name": NAME, "benchmarks": [str(folder / "benchmark" / "tiny.yaml")], "encoder": str(folder / "encoder"),
        "grid": grid, "seeds": list(range(-(-trials // (1 + len(METHODS))))),
    }  # fmt: skip
    paths = Paths.at(folder / "home")
    return make(Experiment.model_validate(settings), paths.cache), paths


def count_and_simulate(
    begun: Path, job: Job, store: str, report: Callable[[dict[str, Any]], None], scratch: Path
) -> None:
    """Reports a stored result, as workers do; without one, writes down that the trial begins, and simulates it."""
    stored = load_result(job.trial, Store(store))
    if stored is not None:
        for entry in stored.history:
            report(entry)
        return
    append(begun, job.trial.id)
    simulate(0.0, job, store, report, scratch)


def drive(folder: Path, trials: int) -> None:
    """One driver: what is left of the run."""
    plan, paths = make_plan(folder, trials)
    curve = Curve()
    summary = execute(plan, paths, None, NAME, curve, fit=partial(count_and_simulate, folder / BEGUN))
    assert not summary.failed, summary.failed
    assert not curve.failures, curve.failures[:3]


def start(folder: Path, trials: int) -> psutil.Popen:
    """Starts a driver in a process group of its own."""
    command = [sys.executable, __file__, "--drive", str(folder), "--trials", str(trials)]
    with (folder / "driver.log").open("a") as log:
        return psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill(driver: psutil.Popen) -> None:
    """SIGKILL for the driver and everything that it has started, as when a machine is lost."""
    family = [driver, *driver.children(recursive=True)]
    for process in family:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=20)


def disturb(folder: Path, trials: int, kills: int, rng: random.Random, console: Console) -> None:
    """Runs to the end through kills at random numbers of trials begun; goes on where an earlier call ended."""
    moments = sorted(rng.uniform(0.0, 0.98) * trials for _ in range(kills))
    began, first = time.perf_counter(), count_lines(folder / BEGUN)
    while True:
        happened = count_lines(folder / KILLS)
        driver = start(folder, trials)
        while driver.poll() is None:
            time.sleep(0.2)
            done = count_lines(folder / BEGUN)
            if happened < kills and done >= moments[happened]:
                time.sleep(rng.uniform(0.0, 2.0))
                kill(driver)
                append(folder / KILLS, str(done))
                left = (time.perf_counter() - began) * (trials - done) / max(done - first, 1)
                console.print(f"kill {happened + 1} of {kills}: {done} trials begun; about {left / 60:.0f} min left")
                break
        else:
            if driver.returncode:
                raise RuntimeError(f"the driver ended with {driver.returncode}; see {folder / 'driver.log'}")
            return


def append(file: Path, line: str) -> None:
    """Adds a line; a short one is written whole."""
    with file.open("a") as handle:
        handle.write(line + "\n")


def count_lines(file: Path) -> int:
    """Lines of a file; 0 if there is none."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def check(folder: Path, trials: int) -> dict[str, Any]:
    """What the ledger and the store have, against the plan."""
    from mlflow import MlflowClient

    plan, paths = make_plan(folder, trials)
    client = MlflowClient(paths.tracking_uri)
    experiment = client.get_experiment_by_name(NAME)
    assert experiment is not None
    finished: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'trial'", max_results=1000,
                                  page_token=token)  # fmt: skip
        statuses.update(run.info.status for run in page)
        finished.update(run.data.tags["harness.trial"] for run in page if run.info.status == "FINISHED")
        token = page.token
        if not token:
            break
    store = Store(paths.store)
    begun = Counter((folder / BEGUN).read_text().split())
    return {
        "trials": len(plan.jobs),
        "different_ids": len({job.trial.id for job in plan.jobs}),
        "missing": len(plan.trials.keys() - finished.keys()),
        "not_planned": len(finished.keys() - plan.trials.keys()),
        "finished_twice": sum(count > 1 for count in finished.values()),
        "without_result": sum(load_result(job.trial, store) is None for job in plan.jobs),
        "begun": begun.total(),
        "begun_again": sum(count - 1 for count in begun.values()),
        "runs_by_status": dict(statuses),
    }


def main() -> int:
    """Runs, kills, checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=22_500)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: a new one, printed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the run; one that is there goes on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.drive:
        drive(args.drive, args.trials)
        return 0
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    console = Console(highlight=False)
    console.print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="exactly-once-", ignore_cleanup_errors=True) as temporary:
        folder = args.keep.resolve() if args.keep else Path(temporary)
        if not (folder / "benchmark").is_dir():
            make_inputs(folder)
        disturb(folder, args.trials, args.kills, random.Random(seed), console)
        report = {"seed": seed, "kills": count_lines(folder / KILLS), **check(folder, args.trials)}
    table = Table("", "", show_header=False)
    for key, value in report.items():
        table.add_row(key.replace("_", " "), str(value))
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    wrong = ("missing", "not_planned", "finished_twice", "without_result")
    return 1 if any(report[key] for key in wrong) or report["different_ids"] != report["trials"] else 0


if __name__ == "__main__":
    sys.exit(main())
