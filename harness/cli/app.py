"""The command line: thin, typed, no logic of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Closed by default: nobody is told that harness runs, unless the user says so.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

from harness.cli.data_check import check_data  # noqa: E402
from harness.cli.generate import generate  # noqa: E402
from harness.config.experiment import load  # noqa: E402 - the environment comes first
from harness.errors import UserError  # noqa: E402
from harness.paths import Paths  # noqa: E402

app = typer.Typer(
    help="Which loss should you fine-tune with when a language model wrote most of your training data?\n\n"
    "Start with `harness plan experiments/quickstart.yaml`, then `harness run` the same file. "
    "Running again does only what is missing.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False,
)  # fmt: skip
listing = typer.Typer(help="List what there is.", no_args_is_help=True)
app.add_typer(listing, name="list")
# without a terminal (a log, a pipe) nothing says how wide it is
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

File = Annotated[Path, typer.Argument(help="The experiment's YAML file.", metavar="EXPERIMENT.yaml")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set training.epochs=3. Repeatable."),
]
Home = Annotated[
    Path, typer.Option("--home", envvar="HARNESS_HOME", help="Folder for the ledger, the store and caches.")
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", envvar="HARNESS_STORE", help="Folder or URL (s3://...) for artifacts; default: in --home."),
]
Results = Annotated[Path, typer.Option("--results", help="Folder in which reports are written.")]
HOME, RESULTS = Path(".harness"), Path("results")


app.command()(generate)
data = typer.Typer(help="Look at the data before training on it.", no_args_is_help=True)
app.add_typer(data, name="data")
data.command("check")(check_data)


@app.command()
def run(
    file: File,
    settings: Set = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster, e.g. auto or ray://head:10001. Default: RAY_ADDRESS, else here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    home: Home = HOME,
    store: StoreUrl = None,
    results: Results = RESULTS,
) -> None:
    """Run what is missing of an experiment, then write its report."""
    from harness.cli import views
    from harness.planning import plan as planning

    places = Paths.at(home, store)
    planned = planning.make(load(file, tuple(settings or ())), places.cache)
    if dry_run:
        return views.plan(planned, places, out)
    from harness.cli.progress import Progress
    from harness.driver import execute

    summary = execute(planned, places, address, _command(), Progress(out))
    views.farewell(summary, views.report(planned, places, results), _again("ui", home), out)
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def plan(file: File, settings: Set = None, home: Home = HOME, store: StoreUrl = None) -> None:
    """Show the trials of an experiment, what is done, what is shared, and about how long the rest takes."""
    from harness.cli import views
    from harness.planning import plan as planning

    places = Paths.at(home, store)
    views.plan(planning.make(load(file, tuple(settings or ())), places.cache), places, out)


@app.command()
def report(
    file: File, settings: Set = None, home: Home = HOME, store: StoreUrl = None, results: Results = RESULTS
) -> None:
    """Write the report of an experiment from the ledger: tables, figures, one HTML page."""
    from harness.cli import views
    from harness.planning import plan as planning

    places = Paths.at(home, store)
    page = views.report(planning.make(load(file, tuple(settings or ())), places.cache), places, results)
    out.print(f"Report: {page.resolve()}", soft_wrap=True)


@app.command()
def ui(
    home: Home = HOME, port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000
) -> None:
    """Open MLflow on the ledger, on this machine only (127.0.0.1)."""
    uri = Paths.at(home, None).tracking_uri
    if uri.startswith("http"):
        out.print(f"The ledger is a server already: {uri}")
        return
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"no ledger at {uri}; run an experiment first, or name its --home")
    out.print(f"MLflow on {uri}: http://127.0.0.1:{port} (end with Ctrl-C)", soft_wrap=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.call([*command, "--port", str(port), "--workers", "1"]))


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A trial id, or its first digits.")],
    home: Home = HOME,
) -> None:
    """Show one trial: settings, results by epoch, runtime, error."""
    from harness.cli import views

    views.trial(trial, Paths.at(home, None), out)


@listing.command("methods")
def list_methods() -> None:
    """The methods, what they need and their settings."""
    from harness.cli import views

    views.methods(out)


@listing.command("benchmarks")
def list_benchmarks(home: Home = HOME) -> None:
    """The benchmarks: splits, rows, labels, license, origin."""
    from harness.cli import views

    views.benchmarks(Paths.at(home, None), out)


def main() -> None:
    """The console script: a user's mistake is one message and exit code 2, without a traceback."""
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False).print(f"harness: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns the one into the other, with the code 130
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        Console(stderr=True).print("Interrupted. The same command goes on where it stopped.")
        sys.exit(130)


def _command() -> str:
    return shlex.join(["harness", *sys.argv[1:]])


def _again(command: str, home: Path) -> str:
    return f"harness {command}" + ("" if home == HOME else f" --home {shlex.quote(str(home))}")


if __name__ == "__main__":
    main()
