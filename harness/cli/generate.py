"""``harness generate``: reads a YAML file, writes a corpus."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set limits.budget=2. Repeatable."),
]


def generate(
    file: Annotated[Path, typer.Argument(help="The settings of the corpus.", metavar="FILE.yaml")],
    settings: Overrides = None,
    show_prompts: Annotated[
        bool, typer.Option("--show-prompts", help="Print the prompts, without sending a request.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate calls, tokens and cost, without sending a request.")
    ] = False,
    home: Annotated[Path, typer.Option("--home", envvar="HARNESS_HOME", help="Folder for caches.")] = Path(".harness"),
) -> None:
    """Write a corpus of labeled rows with a language model behind any OpenAI-compatible server.

    1. Read the prompts: `harness generate experiments/generation/tweet_sentiment.yaml --show-prompts`

    2. Estimate the cost: `--dry-run --set limits.price_in=0.15 --set limits.price_out=0.60`

    3. Try a few rows: `--set n=30 --set out=trial.jsonl`; read the rows, and the card beside them.

    4. Write the corpus: without options. Run the same command after an interruption: no answer is paid for twice.

    Rows are rejected, and counted on the card, if they are malformed, have another label than requested, or are
    near-duplicates of each other or of real rows. The API key is read from the environment and never written.
    """
    from harness.cli import generate_progress
    from harness.data.benchmarks import resolve
    from harness.generation import corpus
    from harness.generation.settings import load
    from harness.paths import Paths

    request = load(file, tuple(settings or ()))
    benchmark = resolve(request.benchmark)
    path = Path(request.out or f"generated/{benchmark.name}.jsonl")
    cache = Paths.at(home, None).cache
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if show_prompts:
        for title, prompt in corpus.preview(request, benchmark, cache=cache):
            console.rule(title)
            console.print(prompt, markup=False, soft_wrap=True)
        return
    if dry_run:
        estimate = corpus.estimate(request, benchmark, path, cache=cache)
        generate_progress.show_estimate(estimate, request, console)
        return
    with generate_progress.ProgressBar(console) as bar:
        today = datetime.now(UTC).date()
        rows = corpus.generate(request, benchmark, path, today, cache=cache, observer=bar)
    generate_progress.show_corpus(rows, request, str(path), console)
    if not rows.complete:
        raise typer.Exit(1)
