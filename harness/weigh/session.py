"""From two files to the answer: four rounds of trials, then statistics, the table of rows, and the model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from harness import driver
from harness.config.benchmark import Benchmark
from harness.errors import TrialError, UserError
from harness.files import write_atomically
from harness.paths import Paths
from harness.planning.plan import Plan
from harness.recorder import ProgressObserver
from harness.store import Store, digest
from harness.weigh import lengths, row_table
from harness.weigh.analysis import JUDGES, Evidence
from harness.weigh.candidates import BY_KEY, CANDIDATES, DIMP, NULL, WRITTEN, Candidate
from harness.weigh.checks import Duplicates, check, find_duplicates
from harness.weigh.folds import ALL, fold_name, write_benchmarks
from harness.weigh.lengths import FIRST_SEED, Lengths
from harness.weigh.reading import Inputs, read
from harness.weigh.result import Numbers, Result
from harness.weigh.rounds import GridRows, outcomes, plan_round
from harness.weigh.row_table import Views
from harness.weigh.settings import FOLDS, SCREENING, WeighSettings, default_encoder

if TYPE_CHECKING:
    from harness.driver import Summary

#: Rows per second of training where the speed cannot be measured here, as with the GPUs of a cluster.
UNKNOWN_RATE = 500.0


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        result: the numbers.
        rows: the table of written rows.
        views: probabilities of all labels of every row.
        model: the folder of the model.
    """

    result: Result
    rows: pd.DataFrame
    views: Views
    model: Path


class FailedTrialsError(Exception):
    """Trials have failed, so there is no answer. ``summary`` has their errors."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"{len(summary.failed)} trials failed")
        self.summary = summary


class Session:
    """One run of ``harness weigh``. The same call again continues where the last one ended.

    Args:
        settings: files and budget.
        paths: store and ledger.
        folder: for results; the rows of the folds are kept there too.
        address: of a Ray cluster, or None.
        command: the command line, for the record.
        progress: makes an observer of the progress of a round.
        say: prints a line.
    """

    def __init__(
        self, settings: WeighSettings, paths: Paths, folder: Path, address: str | None, command: str,
        progress: Callable[[], ProgressObserver], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.settings, self.paths, self.folder, self.address = settings, paths, folder, address
        self.command, self.progress, self.say = command, progress, say
        self.store = Store(paths.store)
        self.encoder = settings.encoder or default_encoder()
        self.resources = {"cpus": 1, "gpus": float(address is None and _has_gpu())}

    def run(self) -> Answer:
        """Reads, trains, decides.

        Raises:
            UserError: the rows or the settings are not valid.
            FailedTrialsError: a trial failed.
        """
        started = time.perf_counter()
        inputs = read(self.settings)
        duplicates = find_duplicates(inputs.people, inputs.written)
        inputs = replace(inputs, notes=(*inputs.notes, *check(inputs, duplicates)))
        self._introduce(inputs)
        save_settings(self.settings, self.folder)
        benchmarks = write_benchmarks(inputs, duplicates, self.settings.title, self.folder / "data")
        self.lengths = self._lengths(inputs, benchmarks)
        self.evidence = Evidence(self.lengths)
        self._screen(benchmarks)
        best_two = self.evidence.best_two()
        self._judge(benchmarks, best_two)
        best = self.evidence.best(best_two)
        self._curves(benchmarks, BY_KEY[best])
        numbers = self.evidence.numbers(best_two, best, len(inputs.people))
        views = row_table.views(self.evidence.outcomes)
        result, rows = self._rows(inputs, duplicates, views, numbers, benchmarks[ALL])
        model = self._model(benchmarks[ALL], BY_KEY[result.recommended], inputs, result.temperature)
        return Answer(replace(result, seconds=time.perf_counter() - started), rows, views, model)

    def _introduce(self, inputs: Inputs) -> None:
        for file, columns in inputs.columns.items():
            guessed = " (guessed; --text and --label name others)" if columns.guessed else ""
            self.say(f"{file}: {columns}{guessed}")
        names = ", ".join(inputs.labels)
        self.say(f"{len(inputs.people):,} human rows, {len(inputs.written):,} written rows, labels {names}")
        for note in inputs.notes:
            self.say(f"Note: {note}")

    def _lengths(self, inputs: Inputs, benchmarks: dict[str, Benchmark]) -> Lengths:
        """The lengths of an earlier run of the same rows, or new ones by the measured speed."""
        settings = self.settings
        key = digest(inputs.people.digest, inputs.written.digest, self.encoder, settings.budget, settings.experiment)
        file = self.folder / "lengths.json"
        chosen = Lengths.read(file, key)
        if chosen is not None:
            self.say(f"Going on with {chosen.steps} steps a training, as chosen before.")
            return chosen
        rates, slots = self._measure(benchmarks)
        precision = lengths.faster(rates) if len(rates) > 1 else next(iter(rates))
        people, written = len(inputs.people), len(inputs.written)
        chosen = lengths.choose(people, written, settings.budget, rates[precision], slots, precision)
        if precision != "float32" and "float32" in rates:
            self.say(
                f"Training in {precision}: {rates[precision] / rates['float32']:.1f} times as fast here as float32."
            )
        self.say(
            f"{chosen.steps} steps a training, {chosen.real_steps} on human rows alone, {len(chosen.seeds)} "
            f"seed{'s' * (len(chosen.seeds) > 1)}: about {chosen.seconds / 60:.0f} min in all "
            f"(budget {settings.budget / 60:.0f} min)."
        )
        if chosen.seconds > 1.2 * settings.budget:
            self.say("The budget is too small for these rows on this machine: it will take longer.")
        write_atomically(file, chosen.to_json(key))
        return chosen

    def _measure(self, benchmarks: dict[str, Benchmark]) -> tuple[dict[str, float], int]:
        """Rows per second of one training alone, by precision unless the settings name one; and trials at once."""
        from harness.training.speed import rows_per_second

        rates: dict[str, float] = {}
        for precision in ("float32", "bfloat16"):
            probe = Lengths(1, 1, FIRST_SEED, (), 0.0, precision)
            plan = self._plan("screen", [benchmarks[fold_name(0)]], [(WRITTEN, FIRST_SEED)], probe)
            trial, resources = plan.jobs[0].trial, plan.experiment.resources
            slots = 1 if resources.gpus else max(1, len(os.sched_getaffinity(0)) // resources.cpus)
            slots = min(slots, resources.concurrent or slots)
            if trial.training.precision in rates:  # the settings name one
                continue
            rate = rows_per_second(trial, plan.splits[trial.task.name]["generated"], self.store, steps=6)
            if rate is None:
                return {trial.training.precision: UNKNOWN_RATE}, slots
            rates[trial.training.precision] = rate
        return rates, slots

    def _screen(self, benchmarks: dict[str, Benchmark]) -> None:
        """Round 1: all candidates on the folds that choose the finalists."""
        folds = [benchmarks[fold_name(fold)] for fold in SCREENING]
        title = f"{len(CANDIDATES)} ways to train with written rows, and human rows alone, on two folds"
        self._round(1, "screen", title, folds, [(candidate, FIRST_SEED) for candidate in (NULL, *CANDIDATES)])

    def _judge(self, benchmarks: dict[str, Benchmark], best_two: Sequence[str]) -> None:
        """Round 2: the finalists and the null on all folds."""
        rows = [(candidate, self.lengths.seeds) for candidate in (NULL, *(BY_KEY[name] for name in best_two))]
        if WRITTEN.key not in best_two:
            rows.append((WRITTEN, FIRST_SEED))  # it scores the rows that it has not seen
        title = "the best two on all folds: " + "; ".join(BY_KEY[name].title for name in best_two)
        self._round(2, "judge", title, [benchmarks[fold_name(fold)] for fold in range(FOLDS)], rows)

    def _curves(self, benchmarks: dict[str, Benchmark], best: Candidate) -> None:
        """Round 3: the best candidate and the null with fewer human rows."""
        shares = self.lengths.shares
        sizes = " and ".join(f"{100 * share:.0f} %" for share in shares)
        title = f"{sizes} of the human rows, with written rows and without"
        judges = [benchmarks[fold_name(fold)] for fold in JUDGES]
        rows = [(candidate, FIRST_SEED) for candidate in (NULL, best) if candidate != WRITTEN]
        self._round(3, "curves", title, judges, rows, shares)

    def _round(
        self, number: int, name: str, title: str, benchmarks: list[Benchmark], rows: GridRows,
        shares: Sequence[float] = (1.0,),
    ) -> None:  # fmt: skip
        self.say(f"Round {number} of 4: {title}")
        plan = self._plan(name, benchmarks, rows, self.lengths, shares)
        self._execute(plan)
        self.evidence.outcomes |= outcomes(plan, self.store)

    def _plan(
        self, name: str, benchmarks: list[Benchmark], rows: GridRows, lengths: Lengths, shares: Sequence[float] = (1.0,)
    ) -> Plan:
        cache, resources = self.paths.cache, self.resources
        return plan_round(self.settings, name, benchmarks, rows, lengths, self.encoder, cache, shares, resources)

    def _execute(self, plan: Plan) -> None:
        summary = driver.execute(plan, self.paths, self.address, self.command, self.progress())
        if summary.failed or summary.stopped:
            raise FailedTrialsError(summary)

    def _rows(
        self, inputs: Inputs, duplicates: Duplicates, views: Views, numbers: Numbers, benchmark: Benchmark
    ) -> tuple[Result, pd.DataFrame]:
        """The result and the table of rows."""
        import torch

        from harness.training.embeddings import embed
        from harness.training.run_trial import tokens_of

        wrong = row_table.suspicion(inputs, views)
        trial = self._plan("model", [benchmark], [(NULL, FIRST_SEED)], self.lengths).jobs[0].trial
        device = torch.device("cuda" if trial.device == "cuda" and torch.cuda.is_available() else "cpu")
        people, written = (
            embed(trial, split, tokens_of(trial, split, self.store), self.store, device).astype(np.float64)
            for split in (inputs.people, inputs.written)
        )
        weighing = numbers.best if BY_KEY[numbers.best].weighs_rows else DIMP.key
        outcomes = self.evidence.outcomes
        frame = row_table.table(inputs, duplicates, outcomes, views, wrong, (people, written), weighing)
        unlike = frame["flags"].str.split().map(lambda names: "unlike" in names)
        settings = {
            "encoder": self.encoder, "steps": self.lengths.steps, "real_steps": self.lengths.real_steps,
            "precision": self.lengths.precision, "folds": FOLDS, "seeds": list(self.lengths.seeds),
            "labels": list(inputs.labels),
        }  # fmt: skip
        result = Result(
            **{field.name: getattr(numbers, field.name) for field in fields(numbers)},
            people=len(inputs.people), written=len(inputs.written) - len(duplicates.of_people),
            suspicious=int(wrong[1].suspicious.sum()), wrong_share=wrong[1].share, unlike=int(unlike.sum()),
            copies=len(duplicates.of_people), repeated=len(duplicates.of_written), notes=inputs.notes, seconds=0.0,
            settings=settings, reviewed=None if inputs.reviewed is None else dict(inputs.reviewed),
        )  # fmt: skip
        return result, frame

    def _model(self, benchmark: Benchmark, recommended: Candidate, inputs: Inputs, temperature: float) -> Path:
        """Round 4: the model of all rows, written as a folder."""
        from harness.training.kept_model import write

        self.say("Round 4 of 4: the model, trained on all rows (an accuracy below is on its own training rows)")
        settings = self.settings.model_copy(update={"experiment": _with_full_vocabulary(self.settings.experiment)})
        plan = plan_round(
            settings, "model", [benchmark], [(recommended, FIRST_SEED)], self.lengths, self.encoder, self.paths.cache,
            resources=self.resources,
        )  # fmt: skip
        jobs = [job.model_copy(update={"keep_model": job.requested}) for job in plan.jobs]
        self._execute(replace(plan, jobs=jobs))
        folder = self.folder / "model"
        try:
            trial = next(job.trial for job in jobs if job.requested)
            write(trial, inputs.labels, self.store, folder, temperature)
        except TrialError as error:
            raise UserError(f"{error}; use the store that belongs to the ledger, or another --home") from None
        return folder


def save_settings(settings: WeighSettings, folder: Path) -> None:
    """Writes weigh.yaml, which repeats the run."""
    raw = settings.model_dump(mode="json", exclude_defaults=True)
    raw["budget"] = f"{settings.budget}s"
    raw["out"] = str(folder)
    write_atomically(folder / "weigh.yaml", yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())


def _with_full_vocabulary(experiment: dict[str, Any]) -> dict[str, Any]:
    training = experiment.get("training", {})
    if not isinstance(training, dict):
        raise UserError(f"experiment.training: expected a mapping of settings, found {training!r}")
    return {**experiment, "training": {**training, "vocabulary": "full"}}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
