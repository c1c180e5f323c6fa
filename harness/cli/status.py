"""The commands ``harness status`` and ``harness stop``, and the list of failed trials: a run seen from any machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.cli.options import HOME, Home, TrackingUri
from harness.errors import UserError
from harness.paths import Paths

if TYPE_CHECKING:  # `harness --help` reads no ledger
    from harness.reports.status import Status

#: Seconds between two screens of ``--watch``.
REFRESH = 10.0
#: Rows of a table of trials; the rest is counted.
ROWS = 20
COLORS = {"running": "green", "stopping": "yellow", "silent": "red", "failed": "red", "stopped": "yellow"}


def status(
    experiment: Annotated[
        str | None, typer.Argument(help="The name of an experiment, or its YAML file. Default: all of the ledger.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 10 s until the run ends, or Ctrl-C.")] = False,
    price: Annotated[
        float | None, typer.Option("--price", help="Price of a device-hour, in any currency, for the cost.", min=0.0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: every number, every failed trial.")] = False,
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show how far an experiment is, from any machine that can use its ledger; without an argument, all experiments.

    A trial is *done*; *running*; *waiting*, perhaps for a checker; *failed*, with the last line of its error; or
    *interrupted*. The driver, the process of `harness run`, writes a heartbeat every 30 s; without one for 2 min it
    counts as not heard of: it was killed, or cannot reach the ledger.

    The time left supposes as many trials at a time as run now, each as long as similar ones that are done. Device-hours
    (of GPUs where trials use them, else of CPU cores) are those of the timed phases of done trials, and of running ones
    since their start; failed and interrupted trials and idle machines are not in them.

    `harness status` - a line for every experiment

    `harness status quickstart --watch` - until the run ends

    `harness status quickstart --price 2.50` - what it costs, at 2.50 for a device-hour

    `harness status quickstart --json | jq .seconds_left` - for scripts
    """
    if watch and as_json:
        raise UserError("expected --watch or --json, found both; call --json repeatedly instead")
    paths = Paths.at(home, None, tracking_uri)
    if as_json:
        statuses = [asdict(one) for one in read(experiment, paths)]
        return typer.echo(json.dumps(statuses[0] if experiment else statuses, indent=2, ensure_ascii=False))
    out = console()
    show = (lambda found: detail(found[0], price)) if experiment else overview
    if not watch:
        return out.print(show(list(read(experiment, paths))))
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        while True:
            found = list(read(experiment, paths))
            live.update(show(found), refresh=True)
            if not any(one.live for one in found):
                return
            time.sleep(REFRESH)


def stop(
    experiment: Annotated[str, typer.Argument(help="The name of an experiment, or its YAML file.")],
    now: Annotated[bool, typer.Option("--now", help="Also end the running trials; they start anew next time.")] = False,
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
) -> None:
    """Stop a run from any machine: no more trials are started, and the run ends when the running ones have.

    The driver, the process of `harness run`, looks for the request every 5 s. It writes all results to the ledger,
    prints one line and exits with 130, as after Ctrl-C. `harness run` of the same file goes on; it forgets the request.
    """
    from harness.cli.views import experiment_name
    from harness.ledger.mlflow_ledger import Ledger
    from harness.ledger.signals import STOP, Stop
    from harness.reports.state import find_parent
    from harness.reports.status import KEYS, read_status

    paths = Paths.at(home, None, tracking_uri)
    ledger = Ledger(paths.tracking_uri, paths.home)
    name = experiment_name(experiment)
    parent = find_parent(name, ledger)
    current = read_status(name, parent, ledger.trials(KEYS), ledger, time.time())
    if not current.live:
        raise UserError(f"nothing to stop: the last run of {name!r} {driver_text(current)}")
    ledger.set_tags(parent.run, {STOP: Stop.NOW if now else Stop.AFTER_RUNNING})
    running = "1 running trial" if current.running == 1 else f"{current.running} running trials"
    how = f"it ends now, with {running}" if now else f"it starts no more trials, and ends after {running}"
    out = console()
    out.print(f"Stop of {name} requested: {how}. See `harness status {name}`.", markup=False, soft_wrap=True)
    if current.state == "silent":
        out.print(f"{name}: {driver_text(current)}", style="red", markup=False, soft_wrap=True)


def show_failed(experiment: str, paths: Paths, out: Console) -> None:
    """Prints the failed trials of an experiment, grouped by the last line of their error."""
    from harness.reports.status import group_errors

    (found,) = read(experiment, paths)
    out.print(f"{found.experiment}: {found.failed} of {found.planned} trials failed", markup=False)
    for error, trials in group_errors(found.failed_trials):
        out.print(f"\n{len(trials)} x {error or 'no error recorded'}", style="red", markup=False, soft_wrap=True)
        for trial in trials[:ROWS]:
            out.print(f"  {trial.trial}  {trial.name}", markup=False, soft_wrap=True)
        if len(trials) > ROWS:
            out.print(f"  and {len(trials) - ROWS} more (`harness status {found.experiment} --json`)", markup=False)
    if found.failed:
        out.print("\n`harness show ID` shows the whole error and the end of the trial's output.")


def console() -> Console:
    """A console of the terminal's width; a log or a pipe has none, and gets 120."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def read(experiment: str | None, paths: Paths) -> Iterator[Status]:
    """The status of an experiment, or of all of the ledger, the newest first."""
    from harness.cli.views import experiment_name
    from harness.ledger.entries import open_reader
    from harness.reports.state import find_parent
    from harness.reports.status import KEYS, read_status

    reader = open_reader(paths.tracking_uri, paths.home)
    if experiment is None:
        parents = reader.parents()
    else:
        parents = {experiment_name(experiment): find_parent(experiment_name(experiment), reader)}
    entries = reader.trials(KEYS)
    for name, parent in sorted(parents.items(), key=lambda item: -item[1].started):
        yield read_status(name, parent, entries, reader, time.time())


def overview(statuses: list[Status]) -> RenderableType:
    """A line for every experiment."""
    if not statuses:
        return Text("The ledger has no experiment yet; start one with `harness run`.")
    table = Table("experiment", "state", box=None, pad_edge=False)
    for name in ("done", "running", "waiting", "failed", "interrupted", "left"):
        table.add_column(name, justify="right")
    for one in statuses:
        counts = (one.running, one.waiting, one.failed, one.interrupted)
        left = duration_text(one.seconds_left) if one.live else ""
        table.add_row(
            escape(one.experiment), Text(driver_text(one, short=True), COLORS.get(one.state, "")),
            f"{one.done} of {one.planned}", *(str(count or "") for count in counts), left,
        )  # fmt: skip
    return table


def detail(one: Status, price: float | None = None) -> RenderableType:
    """One experiment: counts, time left, cost, running and failed trials."""
    counts = [f"{one.done} of {one.planned} trials done"]
    counts += [f"{one.running} running"] if one.running else []
    if one.waiting:
        checkers = f" ({one.waiting_for_checkers} for a checker)" if one.waiting_for_checkers else ""
        counts.append(f"{one.waiting} waiting{checkers}")
    counts += [f"{one.failed} failed"] if one.failed else []
    counts += [f"{one.interrupted} interrupted"] if one.interrupted else []
    head = Text.assemble((one.experiment, "bold"), ": ", (driver_text(one), COLORS.get(one.state, "")))
    parts: list[RenderableType] = [head, Text(" · ".join(counts))]
    if one.live:
        parts.append(Text(_pace(one)))
    return Group(*parts, Text(_cost(one, price)), *_trials(one))


def driver_text(one: Status, short: bool = False) -> str:
    """The state of an experiment's driver in words."""
    if one.state == "silent" and one.driver_silence is None:
        return "no heartbeat" if short else "its driver has written no heartbeat: it has just started, or was killed"
    if one.state == "silent":
        text = f"the driver has not been heard of for {duration_text(one.driver_silence)}"
        return text if short else f"{text}: it was killed, or cannot reach the ledger"
    if one.live:
        text = f"running since {clock(one.began)}" + (", a stop is requested" if one.state == "stopping" else "")
        return text if short else f"{text}; the driver was heard of {duration_text(one.driver_silence)} ago"
    when = "" if one.ended is None else f" {clock(one.ended)}"
    if one.state == "failed":
        return f"ended{when}" + ("" if short else ", with failed trials")
    return f"{one.state}{when}"


def clock(milliseconds: int) -> str:
    """A moment in local time: ``22:51``, or ``Nov 25 22:51`` on another day."""
    moment = datetime.fromtimestamp(milliseconds / 1000)
    return f"{moment:%H:%M}" if moment.date() == datetime.now().date() else f"{moment:%b %d %H:%M}"


def duration_text(seconds: float | None) -> str:
    """Seconds in words, or a question mark."""
    from harness.cli.progress import duration

    return "?" if seconds is None else duration(seconds)


def _pace(one: Status) -> str:
    left = "no estimate of the time left yet"
    if one.state == "stopping":
        left = "it ends when the running trials do"
    elif one.seconds_left is not None:
        until = clock(int((time.time() + one.seconds_left) * 1000))
        left = f"about {duration_text(one.seconds_left)} left (until {until})"
    plural = "" if one.devices_in_use == 1 else "s"
    return f"{left} · {one.trials_per_hour:.0f} trials an hour · {one.devices_in_use:g} {one.device}{plural} in use"


def _cost(one: Status, price: float | None) -> str:
    text = f"{one.device_hours:.2f} {one.device}-hours so far"
    known = one.device_hours_total is not None and one.device_hours_total > one.device_hours
    text += f", about {one.device_hours_total:.2f} in total" if known else ""
    if price is not None:
        text += f" · cost {price * one.device_hours:.2f} so far"
        text += f", about {price * (one.device_hours_total or 0.0):.2f} in total" if known else ""
        text += f", at {price:g} a {one.device}-hour"
    return text


def _trials(one: Status) -> Iterator[RenderableType]:
    """Tables of the running and of the failed trials."""
    now = time.time()
    running = Table("running", "trial", "since", "evaluated", box=None, pad_edge=False, title_justify="left")
    for trial in one.running_trials[:ROWS]:
        since = f"{clock(trial.since)} ({duration_text(now - trial.since / 1000)})"
        epoch = f"{trial.epoch} of {trial.evaluations}" if trial.evaluations else str(trial.epoch)
        running.add_row(trial.trial, escape(trial.name), since, epoch)
    failed = Table("failed", "trial", "error", box=None, pad_edge=False)
    for broken in one.failed_trials[:ROWS]:
        failed.add_row(broken.trial, escape(broken.name), Text(broken.error, "red"))
    for table, count in ((running, one.running), (failed, one.failed)):
        if count:
            yield Text("")
            yield table
        if count > ROWS:
            yield Text(f"and {count - ROWS} more")
    if one.failed:
        yield Text(f"`harness show --failed {one.experiment}` groups them by error", "dim")
