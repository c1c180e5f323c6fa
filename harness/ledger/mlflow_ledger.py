"""The ledger in MLflow: which trial is finished, with what result. Only the driver writes.

An experiment has one parent run, a trial one child run. Trials are looked up by id in all experiments.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from harness.errors import UserError
from harness.files import write_atomically
from harness.ledger.attempts import Part, now
from harness.ledger.batches import BATCH, EARLIER, OPEN, SIZE, batches, pack, tag
from harness.ledger.entries import EVALUATIONS, EXPERIMENT, KIND, SQLITE, TRIAL, Entry, is_local
from harness.ledger.local_database import analyze
from harness.ledger.mlflow_pages import shared_views, without_password
from harness.ledger.mlflow_reader import MlflowReader
from harness.planning.trials import Job, describe

PARENT, ATTEMPT = "mlflow.parentRunId", "harness.attempt"
#: Metrics that MLflow takes in one request; of params and tags it takes a tenth.
MOST = 1000
#: MLflow's codes of errors that may pass.
_LATER = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
#: MLflow shows the experiment as model training, not as a language-model application.
CUSTOM_MODEL = {"mlflow.experimentKind": "custom_model_development"}
#: Tags that MLflow's pages show as description, source and commit of a run.
SHOWN = {
    "description": "mlflow.note.content",
    "command": "mlflow.source.name",
    "commit": "mlflow.source.git.commit",
}


class Ledger(MlflowReader):
    """A ledger that is also written.

    Args:
        uri: an absolute tracking URI.
        home: where artifacts go if the URI is a local database.
        batched: whether finished trials are put into files too; None for yes unless the ledger is a local file, which
            is read faster without.

    Raises:
        UserError: see ``MlflowReader``.
    """

    def __init__(self, uri: str, home: Path, batched: bool | None = None) -> None:
        super().__init__(uri, home)
        self._batched = not uri.startswith(SQLITE) if batched is None else batched
        self._artifacts = None if uri.startswith("http") else (home.resolve() / "artifacts").as_uri()
        self._parent: Run | None = None
        self._folders: dict[str, Path] = {}  # of the artifacts of its open runs, where they are local
        self._batch, self._in_batch = "", 0  # the open batch, and the number of its trials

    @property
    def parent(self) -> str:
        """The parent run of the open experiment."""
        assert self._parent is not None, "open() comes first"
        return str(self._parent.info.run_id)

    def set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a run, in one request."""
        self._client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])

    def open(self, experiment: str, tags: Mapping[str, str], files: Mapping[str, bytes]) -> None:
        """Creates or reopens the parent run, and marks trials that an earlier driver left running as killed."""
        stored = self._client.get_experiment_by_name(experiment)
        if stored is not None:
            id_ = stored.experiment_id
        else:
            location = self._artifacts and f"{self._artifacts}/{experiment}"
            id_ = self._client.create_experiment(experiment, location, tags=CUSTOM_MODEL)
        self._add_views(id_)
        runs = list(self._search(f"tags.`{KIND}` = 'experiment' and tags.`{EXPERIMENT}` = '{experiment}'", [id_]))
        if runs:
            self._parent = runs[0]
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            self.abandon("interrupted: the driver ended before the trial did")
            self._take_over(batches(runs[0].data.tags))
        else:
            identity = {KIND: "experiment", EXPERIMENT: experiment}
            self._parent = self._client.create_run(id_, tags=identity, run_name=experiment)
        display = {name: tags.get(key, "") for key, name in SHOWN.items()}
        self._client.log_batch(self._parent.info.run_id, tags=[RunTag(k, v) for k, v in {**tags, **display}.items()])
        self._upload(self._parent.info.run_id, files)
        if self.uri.startswith("http"):
            self._check_server(self._parent.info.run_id)

    def write(self, part: Part) -> str:
        """Writes what is new of an attempt at a trial, in as few requests as possible; returns the run id.

        Writing a part again writes nothing twice.
        """
        metrics = [Metric(k, float(v), at, int(e["epoch"])) for at, e in part.entries for k, v in e.items()]
        metrics = [metric for metric in metrics if metric.key != "epoch"]
        tags, files, outcome = {}, dict(part.files), part.outcome
        run, params = part.run, []
        if not run:
            run = self._create(part)
            params = _params(part.job)
            files["trial.json"] = part.job.trial.model_dump_json(indent=2).encode()
        if outcome is not None:
            step = int(part.entries[-1][1]["epoch"]) if part.entries else 0
            metrics += [Metric(k, float(v), outcome.ended, step) for k, v in outcome.metrics.items()]
            files |= outcome.files
            tags = dict(outcome.tags) | (self._batch_tag() if outcome.status == "FINISHED" else {})
            if outcome.error:
                tags["error"] = _last_line(outcome.error)
        self._log(run, metrics, params, tags)
        if not part.run:
            self._client.log_inputs(run, _datasets(part.job))
        self._upload(run, files)
        if outcome is not None:
            self._client.set_terminated(run, outcome.status, outcome.ended)
            self._folders.pop(run, None)
            self._count(tags)
        return run

    def unreachable(self, error: Exception) -> bool:
        """Whether the ledger is away, busy or full, so that the same write can succeed later."""
        if isinstance(error, MlflowException):
            return error.error_code in _LATER
        return isinstance(error, OSError) or type(error).__module__ != "builtins"  # artifact stores have their own

    def replace_files(self, entry: Entry, folder: str, files: Mapping[str, bytes]) -> None:
        """Writes artifacts into a folder of a run, then removes all others from it.

        Args:
            entry: the run.
            folder: in its artifacts.
            files: by their path in ``folder``.

        Raises:
            UserError: the server or its artifact store refuses.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            self._upload(entry.run, files, folder)
            names = {f"{folder}/{name}" for name in files}
            if old := [path for path in self._files(entry.run, folder) if path not in names]:
                repository = get_artifact_repository(entry.artifacts, tracking_uri=self.uri)
                for path in old:
                    repository.delete_artifacts(path)  # type: ignore[no-untyped-call]
        except Exception as error:  # every artifact store has its own errors
            raise UserError(without_password(str(error))) from None

    def abandon(self, why: str) -> None:
        """Marks every running trial of the experiment as interrupted.

        The ledger is searched because an interrupt may come before the caller has the id of a new run.
        """
        assert self._parent is not None, "open() comes first"
        condition = f"tags.`{KIND}` = 'trial' and attributes.status = 'RUNNING'"
        for run in list(self._search(condition, [self._parent.info.experiment_id])):
            self._client.set_tag(run.info.run_id, "error", _last_line(why))
            self._client.set_terminated(run.info.run_id, "KILLED")

    def before(self, metric: str) -> float:
        """The value of a parent run's metric before this run, 0 without one."""
        assert self._parent is not None, "open() comes first"
        return float(self._parent.data.metrics.get(metric, 0.0))

    def close(self, status: str, metrics: Mapping[str, float]) -> None:
        """Writes the last metrics of the parent run and ends it."""
        assert self._parent is not None, "open() comes first"
        self._metrics(self._parent.info.run_id, metrics, 0)
        if self._batch:
            self._end_batch()
        self._client.set_terminated(self._parent.info.run_id, status)
        analyze(self.uri)

    def add_views(self) -> dict[str, str]:
        """Adds the table and the chart to every experiment that lacks them; experiment name -> MLflow experiment id."""
        analyze(self.uri)
        experiments = {name: entry.experiment for name, entry in self.parents().items()}
        for id_ in experiments.values():
            self._add_views(id_)
        return experiments

    # -- batches of finished trials: see harness.ledger.batches ---------------------------------------------------

    def _take_over(self, known: Mapping[str, str]) -> None:
        """Writes the files of batches that earlier drivers left open; without batches, removes their tags."""
        if not self._batched:
            for name in known:
                self._client.delete_tag(self.parent, tag(name))
            return
        for name in [name for name, path in known.items() if path == OPEN]:
            self._write_batch(name, f"tags.`{BATCH}` = '{name}'")
        if not known:
            self._write_batch(EARLIER, f"tags.`{KIND}` = 'trial'")

    def _batch_tag(self) -> dict[str, str]:
        """The tag of a trial that is about to finish; announces a batch if none is open."""
        if not self._batched:
            return {}
        if not self._batch:
            name = uuid.uuid4().hex[:12]
            self.set_tags(self.parent, {tag(name): OPEN})
            self._batch, self._in_batch = name, 0
        return {BATCH: self._batch}

    def _count(self, tags: Mapping[str, str]) -> None:
        """A trial with these tags has ended."""
        self._in_batch += BATCH in tags
        if self._in_batch >= SIZE:
            self._end_batch()

    def _end_batch(self) -> None:
        self._write_batch(self._batch, f"tags.`{BATCH}` = '{self._batch}'")
        self._batch, self._in_batch = "", 0

    def _write_batch(self, name: str, condition: str) -> None:
        """Writes finished trials to the file of a batch, then records its path."""
        assert self._parent is not None, "open() comes first"
        finished = f"{condition} and attributes.status = 'FINISHED'"
        path, content = pack(name, self._entries(finished, [self._parent.info.experiment_id]))
        self._upload(self.parent, {path: content})
        self.set_tags(self.parent, {tag(name): path})

    # -- the client ----------------------------------------------------------------------------------------------

    def _add_views(self, experiment: str) -> None:
        tags = self._client.get_experiment(experiment).tags
        for key, value in shared_views().items():
            if tags.get(key) != value:
                self._client.set_experiment_tag(experiment, key, value)

    def _create(self, part: Part) -> str:
        """Creates the child run of an attempt, or finds it where its creation was not answered."""
        assert self._parent is not None, "open() comes first"
        parent = self._parent
        if part.repeated:
            known = list(self._search(f"tags.`{ATTEMPT}` = '{part.attempt}'", [parent.info.experiment_id]))
            if known:
                return str(known[0].info.run_id)
        job, trial = part.job, part.job.trial
        tags = {
            KIND: "trial", TRIAL: trial.id, EXPERIMENT: parent.data.tags[EXPERIMENT], ATTEMPT: part.attempt,
            PARENT: parent.info.run_id, "benchmark": trial.task.name, "source": trial.source,
            "method": trial.method.name, "label": job.label, "seed": str(trial.seed),
            "fraction": "" if trial.fraction is None else str(trial.fraction), "encoder": trial.encoder,
            "variant": "; ".join(v for v in job.variants if v), "quality_checker": trial.quality or "",
            "diversity_checker": trial.diversity or "", "device": trial.device, "threads": str(trial.threads),
            "layers": str(trial.training.layers or ""), "precision": trial.training.precision,
            EVALUATIONS: str(trial.evaluations),
        }  # fmt: skip
        run = self._client.create_run(parent.info.experiment_id, part.started, tags, describe(job))
        if is_local(run.info.artifact_uri):
            self._folders[run.info.run_id] = Path(unquote(urlsplit(run.info.artifact_uri).path))
        return str(run.info.run_id)

    def _check_server(self, run: str) -> None:
        """Writes a metric and reads it back, before hours of training depend on it."""
        value, stored = float(now() // 1000), None
        try:
            self._metrics(run, {"connection_check": value}, 0)
            stored = self._client.get_run(run).data.metrics.get("connection_check")
        except MlflowException as error:
            reason = without_password(str(error))
        else:
            reason = f"it was sent {value:.0f} and gave back {stored}"
        if stored != value:
            raise UserError(
                f"the MLflow server at {without_password(self.uri)} does not keep metrics: {reason}. Check that this "
                "account may write, and the server's log."
            )

    def _metrics(self, run: str, values: Mapping[str, float], step: int) -> None:
        at = now()
        self._client.log_batch(run, metrics=[Metric(k, float(v), at, step) for k, v in values.items()])

    def _log(self, run: str, metrics: list[Metric], params: list[Param], tags: Mapping[str, str]) -> None:
        """Writes metrics, params and tags in one request, or in several where MLflow allows no more in one."""
        entries = [RunTag(key, value) for key, value in tags.items()]
        while metrics or params or entries:
            self._client.log_batch(run, metrics[:MOST], params[: MOST // 10], entries[: MOST // 10])
            metrics, params, entries = metrics[MOST:], params[MOST // 10 :], entries[MOST // 10 :]

    def _upload(self, run: str, files: Mapping[str, bytes], target: str | None = None) -> None:
        if not files:
            return
        if own := self._folders.get(run):
            for name, content in files.items():
                write_atomically(own / (target or "") / name, content)
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._client.log_artifacts(run, folder, target)

    def _files(self, run: str, folder: str) -> list[str]:
        """The paths of all artifacts in a folder of a run."""
        paths: list[str] = []
        for item in self._client.list_artifacts(run, folder):
            paths += self._files(run, item.path) if item.is_dir else [item.path]
        return paths


def _params(job: Job) -> list[Param]:
    """The settings of a trial."""
    trial = job.trial
    settings = trial.model_dump(mode="json", exclude={"stages"}) | {"training": trial.training.model_dump(mode="json")}
    settings |= {"stages": ["+".join(stage.splits) for stage in trial.stages]}
    return [Param(_key(key), str(value)[:6000]) for key, value in _flat(settings).items()]


def _datasets(job: Job) -> list[DatasetInput]:
    """The splits of a trial."""
    task = job.trial.task
    return [
        DatasetInput(Dataset(f"{task.name}/{split}", digest[:36], "harness", json.dumps({"sha256": digest})))
        for split, digest in task.digests.items()
    ]


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1][:4000] if error.strip() else ""


def _key(name: str) -> str:
    """A parameter name that MLflow accepts; names may contain a user's labels, and so any character."""
    return re.sub(r"[^\w.\- /]", "_", name)[:250]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out
