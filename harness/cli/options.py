"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="The experiment's YAML file.", metavar="EXPERIMENT.yaml")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set training.epochs=3. Repeatable."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="A Ray cluster: auto, or HOST:PORT of its head. Default: RAY_ADDRESS, else here."),
]
Home = Annotated[
    Path, typer.Option("--home", envvar="HARNESS_HOME", help="Folder for the ledger, the store and caches.")
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", envvar="HARNESS_STORE", help="Folder or URL (s3://...) for artifacts; default: in --home."),
]
Results = Annotated[Path, typer.Option("--results", help="Folder in which reports are written.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", help="The ledger: an MLflow server or database. Default: MLFLOW_TRACKING_URI, or in --home."
    ),
]
HOME, RESULTS = Path(".harness"), Path("results")
