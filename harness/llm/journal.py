"""Every answer of a language model, written down as it comes: killed at any moment, nothing is paid for twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from harness.errors import UserError


@dataclass(frozen=True)
class Answer:
    """What a server answered to one request.

    Attributes:
        key: the request's identity: hash of prompt, model, parameters and sample index.
        text: the answer as it came, the API key scrubbed.
        finish: why it ended: ``stop``, ``length``, ``content_filter``, ``refusal``.
        tokens_in: tokens of the prompt.
        tokens_out: tokens of the answer.
        estimated: the server gave no usage, and the tokens are our estimate.
        model: the model's name as the server gave it.
        form: how JSON was asked for: ``schema``, ``json`` or ``plain``.
        seconds: from sending to the last byte, the last attempt alone.
    """

    key: str
    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    estimated: bool
    model: str
    form: str
    seconds: float


@dataclass(frozen=True)
class Usage:
    """Calls and tokens, summed."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated_calls: int = 0
    seconds: float = 0.0
    """Inside the calls, one after the other."""

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Usage:
        """The usage of these answers."""
        found = list(answers)
        return cls(
            len(found),
            sum(answer.tokens_in for answer in found),
            sum(answer.tokens_out for answer in found),
            sum(answer.estimated for answer in found),
            sum(answer.seconds for answer in found),
        )


class Journal:
    """Answers by key, in a JSON-lines file that only grows. A context manager; one process at a time.

    An answer counts once it is on the disk (fsync). Answers that come while the disk is busy go down together.

    Args:
        path: the file.
        patience: seconds to wait for another process that writes to it; negative for ever.

    Raises:
        UserError: another process writes to the file, or a line before the last is damaged.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        self.path = path
        self._patience = patience
        self.answers: dict[str, Answer] = {}
        self._waiting: list[bytes] = []
        self._turn = asyncio.Lock()
        self._file: BinaryIO | None = None
        self._lock = FileLock(f"{path}.lock")

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=self._patience)
        except Timeout:
            raise UserError(f"{self.path}: another run is writing to this journal; wait for it, or end it.") from None
        try:
            self.answers, whole = read_journal(self.path)
            self._file = self.path.open("ab")
            self._file.truncate(whole)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    async def add(self, answer: Answer) -> None:
        """Returns once the answer is on the disk."""
        line = json.dumps(asdict(answer), sort_keys=True).encode() + b"\n"  # ASCII: no character can break a line
        self._waiting.append(line)
        async with self._turn:
            if self._waiting:  # else the one before us wrote our line as well
                lines, self._waiting = self._waiting, []
                await asyncio.to_thread(self._write, b"".join(lines))
        self.answers[answer.key] = answer

    def _write(self, lines: bytes) -> None:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> tuple[dict[str, Answer], int]:
    """The answers of a journal, and after how many bytes its last whole line ends.

    A last line without an end, which a kill leaves behind, is dropped.

    Raises:
        UserError: another line is damaged.
    """
    raw = path.read_bytes() if path.exists() else b""
    whole = raw.rfind(b"\n") + 1
    answers: dict[str, Answer] = {}
    for number, line in enumerate(raw[:whole].splitlines(), start=1):
        answer = _parse(line)
        if answer is None:
            raise UserError(
                f"{path}, line {number}: not an answer that harness wrote. Delete the line, and its request is sent "
                "again; or name another output file."
            )
        answers[answer.key] = answer
    return answers, whole


def _parse(line: bytes) -> Answer | None:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    wanted = {field.name for field in fields(Answer)}
    return Answer(**record) if isinstance(record, dict) and set(record) == wanted else None
