"""A journal of all answers: a run that was killed continues from it, and no answer is paid for twice."""

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
    """The answer to one request.

    Attributes:
        key: the request's identity: hash of prompt, model, parameters and sample index.
        text: the answer, with the API key removed.
        finish: the finish reason: ``stop``, ``length``, ``content_filter``, ``refusal``.
        tokens_in: tokens of the prompt.
        tokens_out: tokens of the answer.
        estimated: the token counts are estimates, because the server reported no usage.
        model: the model's name as the server reported it.
        form: the form in which JSON was requested: ``schema``, ``json`` or ``plain``.
        seconds: duration of the last attempt, up to the last byte.
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
    """Total calls, tokens and seconds of some answers."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated_calls: int = 0
    seconds: float = 0.0
    """Sum over the calls, as if they had run one after the other."""

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Usage:
        """The total usage of some answers."""
        items = list(answers)
        return cls(
            len(items),
            sum(answer.tokens_in for answer in items),
            sum(answer.tokens_out for answer in items),
            sum(answer.estimated for answer in items),
            sum(answer.seconds for answer in items),
        )


class Journal:
    """Answers by key, in a JSON-lines file that only grows. A context manager; one process at a time.

    An answer counts once it is on the disk (fsync). Answers that arrive during a write are written together.

    Args:
        path: the file.
        patience: seconds to wait for another process that writes to the file; negative: no limit.

    Raises:
        UserError: another process writes to the file, or a line before the last is damaged.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        self.path = path
        self._patience = patience
        self.answers: dict[str, Answer] = {}
        self._pending: list[bytes] = []
        self._write_lock = asyncio.Lock()
        self._file: BinaryIO | None = None
        self._file_lock = FileLock(f"{path}.lock")

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file_lock.acquire(timeout=self._patience)
        except Timeout:
            raise UserError(f"{self.path}: another run is writing to this journal; wait for it, or stop it.") from None
        try:
            self.answers, end = read_journal(self.path)
            self._file = self.path.open("ab")
            self._file.truncate(end)
        except BaseException:
            self._file_lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._file_lock.release()

    async def add(self, answer: Answer) -> None:
        """Returns once the answer is on the disk."""
        line = (
            json.dumps(asdict(answer), sort_keys=True).encode() + b"\n"
        )  # ASCII: no character is read as a line break
        self._pending.append(line)
        async with self._write_lock:
            if self._pending:  # otherwise the previous writer has written this line, too
                lines, self._pending = self._pending, []
                await asyncio.to_thread(self._write, b"".join(lines))
        self.answers[answer.key] = answer

    def _write(self, lines: bytes) -> None:
        if self._file is None:
            raise RuntimeError("the journal is not open")
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> tuple[dict[str, Answer], int]:
    """Reads the answers of a journal, and the length in bytes up to the end of its last complete line.

    An incomplete last line, which a killed process leaves behind, is dropped.

    Raises:
        UserError: another line is damaged.
    """
    raw = path.read_bytes() if path.exists() else b""
    end = raw.rfind(b"\n") + 1
    answers: dict[str, Answer] = {}
    for number, line in enumerate(raw[:end].splitlines(), start=1):
        answer = _parse(line)
        if answer is None:
            raise UserError(
                f"{path}, line {number}: not an answer that harness wrote. Delete the line, so that its request is "
                "sent again, or choose another output file."
            )
        answers[answer.key] = answer
    return answers, end


def _parse(line: bytes) -> Answer | None:
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    names = {field.name for field in fields(Answer)}
    return Answer(**record) if isinstance(record, dict) and set(record) == names else None
