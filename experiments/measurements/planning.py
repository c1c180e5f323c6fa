"""How long planning takes: seconds to plan 100, 1,000 and 10,000 trials, and to start the commands that plan or list.

Every figure is the median of several runs. Commands run in processes of their own, on a home folder with the prepared
benchmark in it; trials are planned in this process, from the experiment to what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from harness.config.experiment import Experiment
from harness.planning.plan import make, missing
from harness.store import Store
from harness.testing import make_benchmark, make_encoder

SIZES = (100, 1_000, 10_000)
METHODS = ["ce", "focal", "imp", "imp_quality", "dimp", "filter", "prior"]
COMMANDS = {
    "--help": ["--help"],
    "list methods": ["list", "methods"],
    "list benchmarks": ["list", "benchmarks"],
    "plan of the quickstart": ["plan", "experiments/quickstart.yaml"],
}


def seconds(work: Callable[[], object], repetitions: int) -> float:
    """The median time of ``work``."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def plan_trials(count: int, folder: Path, encoder: Path, benchmark: Path) -> int:
    """Plans about ``count`` trials and looks for what is missing; how many there are."""
    grid = [{"source": "real_small", "methods": ["ce"]}, {"source": "generated", "methods": METHODS}]
    seeds = list(range(max(1, count // (1 + len(METHODS)))))
    settings = {"name": "planning", "benchmarks": [str(benchmark)], "grid": grid, "encoder": str(encoder)}
    experiment = Experiment.model_validate(settings | {"seeds": seeds})
    plan = make(experiment, folder / "cache")
    return len(missing(plan, set(), Store(str(folder / "store"))))


def main() -> None:
    """Prints a table; ``--json FILE`` keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repetitions", type=int, default=5)
    words = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "encoder").mkdir()
        (folder / "benchmark").mkdir()
        encoder, benchmark = make_encoder(folder / "encoder"), make_benchmark(folder / "benchmark")
        for count in SIZES:
            planned = plan_trials(count, folder, encoder, benchmark)  # the first also prepares the benchmark
            work = partial(plan_trials, count, folder, encoder, benchmark)
            figures[f"plan_{count}_seconds"] = seconds(work, words.repetitions)
            print(f"{planned:>6} trials planned in {figures[f'plan_{count}_seconds']:.3f} s")
        figures["plan_10000_over_1000_ratio"] = figures["plan_10000_seconds"] / figures["plan_1000_seconds"]
        environment = os.environ | {"HARNESS_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        for title, command in COMMANDS.items():

            def run(command: list[str] = command) -> None:
                subprocess.run(
                    [sys.executable, "-m", "harness.cli", *command], env=environment, check=True, capture_output=True
                )

            run()
            figures[f"{title} seconds"] = seconds(run, words.repetitions)
            print(f"harness {title}: {figures[f'{title} seconds']:.2f} s")
    if words.json:
        words.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
