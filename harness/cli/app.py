"""The command line: every command with its options. The work is done elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

# No usage reports, unless the user turns them on.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

from harness.cli.data_check import check_data  # noqa: E402 - the environment comes first
from harness.cli.generate import generate  # noqa: E402
from harness.cli.options import (  # noqa: E402
    HOME,
    RESULTS,
    Address,
    File,
    Home,
    Results,
    Set,
    StoreUrl,
    TrackingUri,
)
from harness.cli.status import status, stop  # noqa: E402
from harness.cli.weigh import weigh  # noqa: E402
from harness.errors import RunStoppedError, UserError  # noqa: E402
from harness.paths import Paths  # noqa: E402

if TYPE_CHECKING:
    from harness.planning.plan import Plan

app = typer.Typer(
    help="Which loss should you fine-tune with when a language model wrote most of your training data?\n\n"
    "Two files of rows? `harness weigh people.csv written.csv`. A grid of losses? "
    "`harness plan experiments/quickstart.yaml`, then `harness run` the same file. "
    "A repeated command runs only unfinished trials.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False,
)  # fmt: skip
listing = typer.Typer(help="List methods, benchmarks and sources.", no_args_is_help=True)
app.add_typer(listing, name="list")
# a log or a pipe has no width of its own
out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


app.command()(weigh)
app.command()(generate)
data = typer.Typer(help="Look at the data before training on it.", no_args_is_help=True)
app.add_typer(data, name="data")
data.command("check")(check_data)
app.command()(status)
app.command()(stop)


@app.command()
def run(
    file: File,
    settings: Set = None,
    address: Address = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan without running it.")] = False,
    home: Home = HOME,
    store: StoreUrl = None,
    tracking_uri: TrackingUri = None,
    results: Results = RESULTS,
) -> None:
    """Run the trials of an experiment that are not finished, then write its report.

    Trials that failed or were interrupted before are tried again; `harness retry` runs the failed ones alone.

    Exit codes: 0 all trials are finished; 1 a trial failed (`harness show --failed`), or the store or the machine
    failed three times in a row; 2 a mistake in the file or the options; 130 stopped by Ctrl-C or `harness stop`. The
    same command goes on where the last one ended.
    """
    from harness.cli import views

    paths = Paths.at(home, store, tracking_uri)
    planned = _plan(file, settings, paths)
    if dry_run:
        return views.plan(planned, paths, out)
    views.failed_before(planned, paths, out)
    _execute(planned, paths, address, results, ui_command(home, tracking_uri))


@app.command()
def retry(
    file: File,
    only_error: Annotated[
        str | None,
        typer.Option("--only-error", metavar="TEXT", help="Only trials whose error has this text in its last line."),
    ] = None,
    settings: Set = None,
    address: Address = None,
    home: Home = HOME,
    store: StoreUrl = None,
    tracking_uri: TrackingUri = None,
    results: Results = RESULTS,
) -> None:
    """Run only the failed trials of an experiment, and those that need them as checkers, then write its report.

    `harness run` tries failed trials again too, beside all others that are not finished. A trial with an error of its
    own (a loss that is NaN) fails again unless its settings or the code have changed: `harness show --failed
    EXPERIMENT` shows the errors, and --only-error chooses among them.

    `harness retry x.yaml --only-error "out of memory" --set resources.memory_gb=8`
    """
    from harness.cli import views

    paths = Paths.at(home, store, tracking_uri)
    planned = _plan(file, settings, paths)
    ids = views.trials_to_retry(planned, paths, only_error)
    if not ids:
        return out.print(f"No trial of {planned.experiment.name} has failed.", markup=False)
    _execute(planned, paths, address, results, ui_command(home, tracking_uri), ids)


@app.command()
def plan(
    file: File,
    settings: Set = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Time a few training steps if no finished trial gives a rate.")
    ] = False,
    home: Home = HOME,
    store: StoreUrl = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show an experiment's trials: which are finished, which are shared checkers, and the estimated time left."""
    from harness.cli import views

    paths = Paths.at(home, store, tracking_uri)
    views.plan(_plan(file, settings, paths), paths, out, estimate)


@app.command()
def report(
    experiment: Annotated[str, typer.Argument(help="The name of an experiment, or its YAML file.")],
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
    results: Results = RESULTS,
) -> None:
    """Write the report of an experiment from the ledger alone, and the index of all reports in the results folder.

    The report is one HTML page, the same in Markdown, its tables in LaTeX, figures, CSV files and experiment.yaml. It
    is also added to the artifacts of the experiment in the ledger.
    """
    from harness.cli import views

    paths = Paths.at(home, None, tracking_uri)
    page, _ = views.report(views.experiment_name(experiment), paths, results, out, again=True)
    out.print(f"All reports: {(results / 'index.html').resolve()}", soft_wrap=True, markup=False)
    out.print(f"Report: {page.resolve()}", soft_wrap=True, markup=False)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="An experiment of the ledger, or a results folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What to compare with A.")],
    metric: Annotated[str, typer.Option(help="The metric of the test split: accuracy or f1.")] = "accuracy",
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every number to this file as well.")
    ] = None,
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Compare two experiments cell by cell: which got better or worse, slower or faster.

    A cell is a benchmark, source, method, share of real rows and variant. Its trials in B are compared with those in A
    that have the same seed, with the statistics of reports: mean paired difference, 95 % interval over seeds and test
    rows (over seeds alone for folders, which have no predictions), and p corrected for all cells. Cells that only one
    experiment has are listed. The exit code is 0 whatever the outcome.

    B is *better* or *worse*, *faster* or *slower* if p is below 0.05 and the interval excludes zero; *unclear* if not;
    *same* if no seed differs; *untested* with one pair or without spread; *unpaired* if no seed has finished in both.

    `harness compare quickstart quickstart_2` - two experiments of the ledger

    `harness compare results/quickstart /elsewhere/quickstart` - two folders, by their trials.csv; no ledger is needed

    `harness compare results/quickstart quickstart --json changes.json` - what a new run changed
    """
    from harness.cli.compare import compare as compare_experiments

    compare_experiments(first, second, metric, Paths.at(home, None, tracking_uri), json, out)


@app.command()
def export(
    file: File,
    path: Annotated[Path, typer.Argument(help="The zip to write.", metavar="RESULTS.zip")],
    settings: Set = None,
    home: Home = HOME,
    store: StoreUrl = None,
) -> None:
    """Write the results of an experiment's finished trials to one file, to publish them or to go on elsewhere.

    `harness import RESULTS.zip` takes them into another home folder. Metrics, runtimes and checker scores are exact;
    predictions and weights are rounded to three digits.
    """
    from harness.archive import export as write
    from harness.store import Store

    paths = Paths.at(home, store)
    jobs = _plan(file, settings, paths).jobs
    count = write(jobs, Store(paths.store), path)
    out.print(f"{count} of {len(jobs)} trials: {path.resolve()}", soft_wrap=True)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A zip written by `harness export`.", metavar="RESULTS.zip")],
    home: Home = HOME,
    store: StoreUrl = None,
) -> None:
    """Take results written by `harness export` into the store: `harness run` then records them without training."""
    from harness.archive import restore
    from harness.store import Store

    added, known = restore(path, Store(Paths.at(home, store).store))
    before = f"; {known} were there before" if known else ""
    out.print(f"{added} trials added{before}. `harness run` of their experiment records them and goes on.")


@app.command()
def ui(
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow on the ledger, on this machine only (127.0.0.1)."""
    from harness.cli.ui import serve

    raise typer.Exit(serve(Paths.at(home, None, tracking_uri), port, out))


@app.command()
def show(
    trial: Annotated[str | None, typer.Argument(help="A trial id, or its first digits.", show_default=False)] = None,
    failed: Annotated[
        str | None,
        typer.Option("--failed", metavar="EXPERIMENT", help="List the failed trials of an experiment, by error."),
    ] = None,
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show one trial: settings, results by epoch, runtime; of a failed one its error and the end of its output.

    `harness show --failed EXPERIMENT` lists the failed trials of an experiment (a name or a YAML file), grouped by the
    last line of their error: which errors there are, how often, and the ids to look at with `harness show ID`.
    """
    from harness.cli import views
    from harness.cli.status import show_failed

    if (trial is None) == (failed is None):
        raise UserError("expected a trial id or --failed EXPERIMENT; `harness status EXPERIMENT` lists ids")
    paths = Paths.at(home, None, tracking_uri)
    if failed is not None:
        return show_failed(failed, paths, out)
    views.trial(str(trial), paths, out)


@listing.command("methods")
def list_methods() -> None:
    """The methods, what they need and their settings."""
    from harness.cli import listings

    listings.methods(out)


@listing.command("benchmarks")
def list_benchmarks(
    rows: Annotated[
        bool, typer.Option("--rows", help="Read the data, if necessary from the hub, and count its rows.")
    ] = False,
    home: Home = HOME,
) -> None:
    """The benchmarks: labels, license, origin, and where the rows of each split come from."""
    from harness.cli import listings

    listings.benchmarks(Paths.at(home), rows, out)


@listing.command("sources")
def list_sources() -> None:
    """The sources: what a trial can train on."""
    from harness.cli import listings

    listings.sources(out)


def _plan(file: Path, settings: list[str] | None, paths: Paths) -> Plan:
    from harness.config.experiment import load
    from harness.planning.plan import make

    return make(load(file, tuple(settings or ())), paths.cache)


def _execute(
    planned: Plan, paths: Paths, address: str | None, results: Path, ui: str, only: set[str] | None = None
) -> None:
    """Runs trials, writes the report and prints the result; exit code 1 if a trial failed."""
    from harness.cli import views
    from harness.cli.progress import Progress
    from harness.driver import execute

    summary = execute(planned, paths, address, recorded_command(), Progress(out), only)
    page, written = views.report(planned.experiment.name, paths, results, out)
    views.farewell(summary, page, written, views.mlflow_address(planned.experiment.name, paths) or ui, out)
    if summary.failed or summary.stopped:
        raise typer.Exit(1)


def main() -> None:
    """The console script. A user error prints one message and exits with 2, without a traceback."""
    try:
        app()
    except UserError as error:
        Console(stderr=True, highlight=False).print(f"harness: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except RunStoppedError as stopped:
        Console(stderr=True, highlight=False).print(f"Stopped by `harness stop`: {stopped}", soft_wrap=True)
        sys.exit(130)
    except (KeyboardInterrupt, SystemExit) as end:  # typer turns a KeyboardInterrupt into SystemExit(130)
        if isinstance(end, SystemExit) and end.code != 130:
            raise
        Console(stderr=True).print("Interrupted. Run the same command to continue.")
        sys.exit(130)


def recorded_command() -> str:
    """How this run was started, for the record: without the password of a tracking URI."""
    from harness.ledger.mlflow_pages import without_password

    return without_password(shlex.join(["harness", *sys.argv[1:]]))


def ui_command(home: Path, tracking_uri: str | None) -> str:
    """The command that opens MLflow on the same ledger."""
    from harness.ledger.mlflow_pages import without_password

    words = ["harness", "ui"]
    words += [] if home == HOME else ["--home", str(home)]
    words += [] if tracking_uri is None else ["--tracking-uri", without_password(tracking_uri)]
    return shlex.join(words)


if __name__ == "__main__":
    main()
