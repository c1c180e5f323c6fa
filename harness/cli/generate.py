"""``harness generate``: thin, typed, no logic of its own."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

MODEL, WRITE, ROWS, FAST, MONEY = "Model and server", "What is written", "Prompts", "Speed", "Cost"

Option = typer.Option
Describe = Annotated[
    list[str] | None,
    Option("--describe", metavar="LABEL=TEXT", rich_help_panel=ROWS, help="What a label means. Repeatable."),
]
Attributes = Annotated[
    list[str] | None,
    Option(
        "--attribute", metavar="NAME", rich_help_panel=ROWS,
        help="Step one asks the model for values of it; each call draws one. Repeatable. Default: topic, style.",
    ),
]  # fmt: skip
KeyEnv = Annotated[
    str | None,
    Option(
        metavar="NAME", rich_help_panel=MODEL,
        help="Environment variable with the API key. Default: OPENAI_API_KEY for OpenAI itself, no key for others.",
    ),
]  # fmt: skip


def generate(
    benchmark: Annotated[str, Option(help="A benchmark of the catalogue, or its YAML file.", rich_help_panel=WRITE)],
    model: Annotated[str, Option(help="The model's name at the server.", rich_help_panel=MODEL)],
    n: Annotated[int, Option("--n", min=1, help="Rows wanted, over all labels.", rich_help_panel=WRITE)] = 2000,
    base_url: Annotated[
        str | None, Option(help="e.g. http://127.0.0.1:8000/v1 (vLLM). Default: OpenAI.", rich_help_panel=MODEL)
    ] = None,
    key_env: KeyEnv = None,
    out: Annotated[
        Path | None, Option(help="Default: generated/BENCHMARK.jsonl; card beside it.", rich_help_panel=WRITE)
    ] = None,
    balance: Annotated[
        str, Option(help="uniform, or real_small: the shares of its labels.", rich_help_panel=WRITE)
    ] = "uniform",
    license: Annotated[
        str | None, Option(help="What the card says about using the rows.", rich_help_panel=WRITE)
    ] = None,
    max_rounds: Annotated[int, Option(min=1, help="Rounds to replace rejected rows.", rich_help_panel=WRITE)] = 5,
    shots: Annotated[int, Option(min=0, max=8, help="Real rows in each prompt; 0: none.", rich_help_panel=ROWS)] = 4,
    shots_from: Annotated[
        str, Option(help="real_small or real_large: where they come from.", rich_help_panel=ROWS)
    ] = "real_small",
    attribute: Attributes = None,
    no_attributes: Annotated[bool, Option("--no-attributes", help="Skip step one.", rich_help_panel=ROWS)] = False,
    rows_per_call: Annotated[int, Option(min=1, max=50, help="Rows in one answer.", rich_help_panel=ROWS)] = 5,
    describe: Describe = None,
    prompts: Annotated[
        Path | None,
        Option(help="Folder with system.txt, attributes.txt, rows.txt in place of ours.", rich_help_panel=ROWS),
    ] = None,
    seed: Annotated[int, Option(help="Of examples and attributes drawn.", rich_help_panel=ROWS)] = 0,
    show_prompts: Annotated[
        bool, Option("--show-prompts", help="Print the prompts, ask nothing.", rich_help_panel=ROWS)
    ] = False,
    temperature: Annotated[float, Option(help="Negative: the server's default.", rich_help_panel=MODEL)] = 1.0,
    top_p: Annotated[float | None, Option(help="Default: the server's.", rich_help_panel=MODEL)] = None,
    max_tokens: Annotated[int, Option(min=1, help="Of one answer.", rich_help_panel=MODEL)] = 2000,
    structured: Annotated[
        str, Option(help="auto, schema, json or plain: how JSON is asked for.", rich_help_panel=MODEL)
    ] = "auto",
    concurrency: Annotated[int, Option(min=1, help="Requests at the same time.", rich_help_panel=FAST)] = 16,
    rpm: Annotated[float | None, Option(help="At most so many requests a minute.", rich_help_panel=FAST)] = None,
    tpm: Annotated[float | None, Option(help="At most so many tokens a minute.", rich_help_panel=FAST)] = None,
    timeout: Annotated[float, Option(help="Seconds for one request.", rich_help_panel=FAST)] = 120.0,
    retries: Annotated[int, Option(min=0, help="After passing troubles.", rich_help_panel=FAST)] = 6,
    dry_run: Annotated[bool, Option("--dry-run", help="Estimate, ask nothing.", rich_help_panel=MONEY)] = False,
    price_in: Annotated[float | None, Option(help="Of a million prompt tokens.", rich_help_panel=MONEY)] = None,
    price_out: Annotated[float | None, Option(help="Of a million answer tokens.", rich_help_panel=MONEY)] = None,
    budget: Annotated[float | None, Option(help="Stop before this much money.", rich_help_panel=MONEY)] = None,
    max_tokens_total: Annotated[int | None, Option(help="Stop before this.", rich_help_panel=MONEY)] = None,
    home: Annotated[Path, Option(envvar="HARNESS_HOME", help="Folder for caches.")] = Path(".harness"),
) -> None:
    """Write a corpus of labelled rows with a language model: any OpenAI-compatible server.

    1. Look: `harness generate --benchmark tweet_sentiment --model NAME --show-prompts`

    2. Reckon: the same with `--dry-run --price-in 0.15 --price-out 0.60`

    3. Try: `--n 30 --budget 0.05`; read the rows and the card.

    4. Write: `--n 2000 --budget 2`. Interrupted or killed, the same command goes on; no answer is paid for twice.

    Rows are rejected, and counted in the card, where they are malformed, have another label than asked for, or are
    near-duplicates of each other or of real rows. The API key comes from the environment and is written nowhere.
    """
    from harness.cli import generate_progress
    from harness.config.schema import parse
    from harness.data.benchmarks import resolve
    from harness.generation import corpus
    from harness.llm.settings import OPENAI, Generation
    from harness.paths import Paths

    raw: dict[str, Any] = {
        "n": n, "balance": balance, "max_rounds": max_rounds, "shots": shots, "shots_from": shots_from, "seed": seed,
        "rows_per_call": rows_per_call, "descriptions": descriptions(describe or []),
        "prompts": str(prompts) if prompts else None,
        "sampling": {
            "model": model, "temperature": None if temperature < 0 else temperature, "top_p": top_p,
            "max_tokens": max_tokens,
        },
        "server": {
            "base_url": base_url or OPENAI, "key_env": key_env, "concurrency": concurrency, "timeout": timeout,
            "requests_per_minute": rpm, "tokens_per_minute": tpm, "retries": retries, "structured": structured,
        },
        "limits": {
            "price_in": price_in, "price_out": price_out, "budget": budget, "max_tokens_total": max_tokens_total,
        },
    }  # fmt: skip
    raw |= {"attributes": () if no_attributes else attribute} if no_attributes or attribute else {}
    raw |= {"license": license} if license else {}
    settings = parse(Generation, raw, "generate")
    task = resolve(benchmark)
    path = out or Path("generated") / f"{task.name}.jsonl"
    cache = Paths.at(home, None).cache
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if show_prompts:
        for title, prompt in corpus.preview(settings, task, cache=cache):
            console.rule(title)
            console.print(prompt, markup=False, soft_wrap=True)
        return
    if dry_run:
        generate_progress.show_estimate(corpus.estimate(settings, task, path, cache=cache), settings, console)
        return
    with generate_progress.Bar(console) as bar:
        written = corpus.generate(settings, task, path, datetime.now(UTC).date(), cache=cache, observer=bar)
    generate_progress.show_corpus(written, settings, str(path), console)
    if not written.complete:
        raise typer.Exit(1)


def descriptions(given: list[str]) -> dict[str, str]:
    """``LABEL=TEXT`` as a mapping.

    Raises:
        UserError: there is no ``=`` in one.
    """
    from harness.errors import UserError

    out = {}
    for item in given:
        label, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--describe {item!r}: expected LABEL=TEXT, e.g. --describe 'neutral=plain news'")
        out[label.strip()] = text.strip()
    return out
