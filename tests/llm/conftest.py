"""Two small benchmarks, a fake server, and settings that point to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from harness.config.benchmark import Benchmark
from harness.generation.corpus import Corpus, generate
from harness.generation.settings import Generation
from tests.llm.server import Fake, Reply, good, sentence, serving

pytest.importorskip("openai")
DAY = date(2026, 1, 2)


@pytest.fixture
def serve() -> Iterator[Callable[..., Fake]]:
    """Starts servers that stop at the end of the test."""
    with ExitStack() as stack:

        def start(reply: Reply = good, latency: float = 0.0) -> Fake:
            return stack.enter_context(serving(Fake(reply, latency)))

        yield start


def real_rows(split: str, pair: bool = False) -> list[dict[str, str]]:
    """Six real rows of a split, with alternating labels."""
    number = ["real_small", "validation", "test"].index(split) + 900
    rows = []
    for row in range(6):
        label = ("negative", "positive")[row % 2]
        word = "good" if label == "positive" else "poor"
        texts = {"a": f"{word} {sentence(number, row)}", "b": sentence(number, row, 1)} if pair else {
            "text": f"{word} {sentence(number, row)}"
        }  # fmt: skip
        rows.append(texts | {"label": label})
    return rows


def make_benchmark(folder: Path, pair: bool = False) -> Benchmark:
    """A benchmark of files, whose generated split does not exist yet."""
    splits: dict[str, Any] = {"generated": {"file": str(folder / "not-yet.jsonl")}}
    for split in ("real_small", "validation", "test"):
        path = folder / f"{split}-{pair}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in real_rows(split, pair)), encoding="utf-8")
        splits[split] = {"file": str(path)}
    return Benchmark.model_validate(
        {"name": "small", "labels": ["negative", "positive"], "splits": splits}
        | ({"text": ["a", "b"]} if pair else {})
    )  # fmt: skip


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Single texts, two labels."""
    return make_benchmark(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Benchmark:
    """Pairs of texts, two labels."""
    return make_benchmark(tmp_path, pair=True)


def settings(fake: Fake, n: int = 12, **changes: Any) -> Generation:
    """Small settings for a server; the groups ``server``, ``sampling`` and ``limits`` are merged."""
    raw: dict[str, Any] = {
        "n": n, "rows_per_call": 3, "shots": 2, "attributes": (),
        "sampling": {"model": "fake"}, "server": {"base_url": fake.url, "backoff": 0.01, "timeout": 10.0},
    }  # fmt: skip
    for name, value in changes.items():
        raw[name] = {**raw.get(name, {}), **value} if isinstance(value, dict) else value
    return Generation.model_validate(raw)


def write(corpus_settings: Generation, benchmark: Benchmark, folder: Path, **more: Any) -> tuple[Corpus, Path]:
    """A corpus at ``folder/out.jsonl``."""
    path = folder / "out.jsonl"
    return generate(corpus_settings, benchmark, path, DAY, environ=more.pop("environ", {}), **more), path


def records(path: Path) -> list[dict[str, Any]]:
    """The rows of a corpus."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
