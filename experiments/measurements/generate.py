"""Speed-up by concurrent requests: a corpus written with one request at a time, and with sixteen.

Both write the same number of rows through ``harness.generation`` over real HTTP: a small OpenAI-compatible server in a
process of its own answers every request after a fixed latency. Prompts, parsing, checks, journal (with fsync) and files
are all in; importing the client is in neither. The two alternate; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from datetime import date
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.data.benchmarks import resolve
from harness.generation.corpus import generate
from harness.generation.settings import Generation
from harness.testing import make_benchmark

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.llm.server import Fake, good, serving  # not installed

GOAL = 10.0


def serve(latency: float, per_call: int, pipe: Connection) -> None:
    """The server's process: sends its address, and when it is told to end, the number of requests."""
    with serving(Fake(partial(good, rows=per_call), latency)) as fake:
        pipe.send(fake.url)
        pipe.recv()
        pipe.send((len(fake.bodies), fake.most))


def measure(concurrency: int, rows: int, per_call: int, latency: float, folder: Path) -> dict[str, Any]:
    """Writes one corpus and measures it."""
    task = resolve(str(folder / "tiny.yaml"))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(latency, per_call, theirs), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        settings = Generation.model_validate(
            {
                "n": rows, "rows_per_call": per_call, "attributes": (), "sampling": {"model": "fake"},
                "server": {"base_url": ours.recv(), "concurrency": concurrency},
            }
        )  # fmt: skip
        start = time.perf_counter()
        corpus = generate(settings, task, Path(own) / "corpus.jsonl", date(2026, 1, 1), environ={})
        seconds = time.perf_counter() - start
    ours.send("end")
    requests, most = ours.recv()
    server.join()
    return {
        "concurrency": concurrency, "rows": len(corpus.rows), "requests": requests, "most": most,
        "seconds": seconds, "rows_per_second": len(corpus.rows) / seconds,
    }  # fmt: skip


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median time."""
    return sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python experiments/measurements/generate.py --json generate.json",
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=300, help="rows of a corpus (default 300)")
    parser.add_argument("--rows-per-call", type=int, default=1, help="rows in an answer (default 1)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at the same time (default 16)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds before each answer (default 0.1)")
    parser.add_argument("--repetitions", type=int, default=3, help="times each is measured (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()

    out = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="generate-") as temporary:
        folder = Path(temporary)
        make_benchmark(folder)
        measure(args.concurrency, 3, 1, 0.0, folder)  # imports
        runs: dict[int, list[dict[str, Any]]] = {1: [], args.concurrency: []}
        for _ in range(args.repetitions):
            for concurrency, done in runs.items():
                done.append(measure(concurrency, args.rows, args.rows_per_call, args.latency, folder))
    medians = [median(done) for done in runs.values()]
    ratio = medians[0]["seconds"] / medians[1]["seconds"]
    table = Table(title=f"{args.rows} rows, {args.rows_per_call} in an answer, {args.latency * 1000:.0f} ms latency")
    for column in ("at a time", "requests", "most at once", "seconds", "rows/s"):
        table.add_column(column, justify="right")
    for line in medians:
        counts = (str(line[key]) for key in ("concurrency", "requests", "most"))
        table.add_row(*counts, f"{line['seconds']:.2f}", f"{line['rows_per_second']:.1f}")
    out.print(table)
    out.print(f"speed-up: {ratio:.1f} ({'reaches' if ratio >= GOAL else 'below'} the goal of {GOAL:.0f})")
    if args.json:
        report = {
            "speedup_ratio": ratio,
            "runs": [run for done in runs.values() for run in done], "latency_seconds": args.latency,
            "cpus": os.cpu_count(),
            "python": platform.python_version(), "openai": version("openai"),
        }  # fmt: skip
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
