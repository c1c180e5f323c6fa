"""The command ``harness weigh``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from harness.cli.options import HOME, Address, Home, StoreUrl, TrackingUri
from harness.errors import UserError
from harness.paths import Paths

if TYPE_CHECKING:  # `harness --help` reads no data
    from harness.weigh.result import Line
    from harness.weigh.settings import WeighSettings


def weigh(
    people: Annotated[
        Path, typer.Argument(metavar="PEOPLE", help="Rows that people labeled (csv, jsonl, parquet), or a YAML file.")
    ],
    written: Annotated[
        Path | None,
        typer.Argument(metavar="WRITTEN", help="Rows that a language model wrote.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="The text column; twice for a pair. Default: guessed.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="The label column. Default: guessed.")] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="How long it may take, e.g. 15m or 2h; less time, fewer steps. Default: 30m."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", help="A hub name, a folder or package:NAME/PATH. Default: all-MiniLM-L6-v2 (English)."
        ),
    ] = None,
    reviewed: Annotated[
        Path | None,
        typer.Option("--reviewed", metavar="FILE", help="Verdicts on written rows: columns id and verdict."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Output folder. Default: weigh/NAME.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of its trainings or resources, e.g. --set training.learning_rate=5e-5. Repeatable.",
        ),
    ] = None,
    address: Address = None,
    home: Home = HOME,
    store: StoreUrl = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Decide whether rows that a language model wrote are worth training on, beside rows that people labeled.

    No test set is needed: five folds of the human rows take turns, one to judge and four to train. The answer says
    whether to use the written rows and with which loss, what they gain, how many human rows they replace, and which of
    their labels are probably wrong; and the model is trained. It is *use*, *do not use* (both with 90 % confidence in a
    better or worse Brier score) or *cannot tell*; then the model is trained on human rows alone.

    `harness weigh people.csv written.csv` - columns and labels are guessed and shown

    `harness weigh people.csv written.csv --text review --label stars --budget 15m`

    `harness weigh weigh.yaml` - a file with the keys people, written, and any of: text, label, budget, encoder, name

    The answer is in DIR: report.html, weigh.json (numbers), weights.csv (a row for every written row), and model/,
    which `AutoModelForSequenceClassification.from_pretrained` loads. weigh.yaml there repeats the run.

    To apply your own verdicts to suspicious rows: copy their id from weights.csv to a file, add a column `verdict`
    (`keep`, `drop`, or the right label), and run the command again with --reviewed FILE, with all verdicts so far.

    If the language model had your human rows in sight when it wrote, the gain is optimistic: keep rows that it has
    not seen, and give only those as PEOPLE.

    Interrupted, the same command goes on; finished trials are in the ledger like those of any run. Exit codes: 0 there
    is an answer; 1 a trial failed; 2 a mistake in the files or the options; 130 stopped.
    """
    from harness.cli.app import out, recorded_command
    from harness.cli.progress import Progress
    from harness.cli.views import farewell_failed
    from harness.weigh.page import write
    from harness.weigh.result import lines
    from harness.weigh.session import FailedTrialsError, Session

    chosen = _settings(people, written, text, label, budget, encoder, reviewed, tuple(settings or ()))
    place = (folder or Path(chosen.out or Path("weigh") / chosen.title)).resolve()
    paths = Paths.at(home, store, tracking_uri)

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    try:
        answer = Session(chosen, paths, place, address, recorded_command(), lambda: Progress(out), say).run()
    except FailedTrialsError as error:
        farewell_failed(error.summary, out)
        raise typer.Exit(1) from None
    page = write(answer.result, answer.rows, place, chosen.title, recorded_command())
    _print(lines(answer.result, str(answer.model)), out)
    say(f"Report: {page}")


def _settings(
    people: Path, written: Path | None, text: list[str] | None, label: str | None, budget: str | None,
    encoder: str | None, reviewed: Path | None, overrides: tuple[str, ...],
) -> WeighSettings:  # fmt: skip
    from harness.weigh.settings import from_files, from_yaml

    if text is not None and len(text) > 2:
        raise UserError(f"--text: expected one column, or two for a pair, found {len(text)}")
    options = {
        "text": None if not text else text[0] if len(text) == 1 else text, "label": label, "budget": budget,
        "encoder": encoder, "reviewed": None if reviewed is None else str(reviewed.resolve()),
    }  # fmt: skip
    if people.suffix in (".yaml", ".yml"):
        if written is not None:
            raise UserError(f"expected two data files, or one YAML file; found {people} and {written}")
        return from_yaml(people, options, overrides)
    if written is None:
        raise UserError(f"expected two files, PEOPLE and WRITTEN, found only {people}")
    return from_files(people, written, options, overrides)


def _print(lines: list[Line], out: Console) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row(line.topic, line.text)
    out.print(table)
