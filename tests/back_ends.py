"""Shared back ends on this machine, for tests: PostgreSQL, an S3 server (moto) and an MLflow server over both."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.commands import end, wait_for, wait_for_server

BUCKET = "harness"
PASSWORD = "for-this-test-only"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def postgres_binaries() -> Path | None:
    """The folder of `initdb`, `postgres` and `pg_isready`: in PATH, or where Debian puts them (the newest)."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(binaries: Path) -> Iterator[str]:
    """A PostgreSQL server on loopback, as a user other than root; its URI with the password."""
    port = free_port()
    # not in pytest's folders: those are closed to other users
    folder = Path(tempfile.mkdtemp(prefix="harness-postgres-"))
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    password = folder / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    if user:
        shutil.chown(folder, "nobody", "nogroup")
        shutil.chown(password, "nobody", "nogroup")
    data = folder / "data"
    initdb = [
        binaries / "initdb", "-D", data, "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync",
    ]  # fmt: skip
    server = [binaries / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    try:
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        process = psutil.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user)
        try:
            wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, process, "an answer of PostgreSQL")
            yield f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def s3(log: Path) -> Iterator[dict[str, str]]:
    """An S3 server on loopback with one empty bucket; the environment that leads to it."""
    port = free_port()
    environment = KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: _listens(port), process, "an answer of the S3 server")
        s3_client(environment).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        end(process)


def s3_client(environment: Mapping[str, str]) -> Any:
    """A client of the S3 server."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"], aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def s3_keys(environment: Mapping[str, str], prefix: str) -> list[str]:
    """The keys of the objects in the bucket that begin with a prefix."""
    pages = s3_client(environment).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class MlflowServer:
    """An MLflow server on loopback that can be stopped and started again at the same address."""

    environment: dict[str, str]
    folder: Path
    port: int
    process: psutil.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [
            sys.executable, "-m", "mlflow", "server", "--artifacts-destination", f"s3://{BUCKET}/mlflow",
            "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
        ]  # fmt: skip
        with (self.folder / "mlflow.log").open("a") as output:
            self.process = psutil.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(os.environ) | self.environment,
            )
        wait_for_server(self.port, self.process)

    def stop(self) -> None:
        """Ends it and all of its workers."""
        if self.process is not None:
            end(self.process)
        self.process = None


@contextmanager
def back_ends(binaries: Path, folder: Path) -> Iterator[MlflowServer]:
    """All of them; ``environment`` of the MLflow server also leads to the S3 server."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres(binaries))
        storage = stack.enter_context(s3(folder / "s3.log"))
        hidden = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = MlflowServer(storage | hidden, folder, free_port())
        stack.callback(server.stop)
        server.start()
        yield server
