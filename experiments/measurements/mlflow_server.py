"""An MLflow server on this machine, and a proxy before it that can be away; for other scripts of this folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 300.0  # seconds until a server that does not answer is given up


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_server(folder: Path, port: int, workers: int = 1) -> psutil.Popen:
    """An MLflow server on loopback that answers, with an SQLite database in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    server = psutil.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
            "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
            "--workers", str(workers),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # else it starts seven more processes
    )  # fmt: skip
    end = time.monotonic() + PATIENCE
    while Proxy.ask(port, "GET", "/health", b"", {})[0] != 200:
        if time.monotonic() > end or server.poll() is not None:
            raise RuntimeError(f"the MLflow server on port {port} does not answer")
        time.sleep(0.2)
    return server


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server on this machine; its address."""
    port = free_port()
    process = start_server(folder, port, workers=2)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for one in [*process.children(recursive=True), process]:
            one.terminate()


class Proxy:
    """Stands before the MLflow server: passes requests on, answers 500, or closes the connection.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self.state = "up"
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.state == "away":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, answer = 500, b"{}"
                headers: list[tuple[str, str]] = []
                if proxy.state == "up":
                    status, headers, answer = proxy.ask(port, self.command, self.path, body, dict(self.headers))
                self.send_response(status)
                for key, value in headers:
                    if key.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def ask(
        port: int, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer."""
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            headers["Host"] = f"127.0.0.1:{port}"
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, HTTPException):
            return 502, [], b"{}"
        finally:
            connection.close()
