"""A tiny encoder and a tiny benchmark, so that whole experiments run in seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.testing import make_benchmark, make_encoder

os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"})
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)

#: Files that take a minute or more. Tests side by side take them first, so that no process is left with one alone.
LONGEST = ("test_driver.py", "test_groups.py", "test_reuse.py", "test_session.py", "test_run_trial.py", "test_weigh.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; the order is otherwise kept."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _node_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The node cache of the tests, not that of their user."""
    os.environ["HARNESS_NODE_CACHE"] = str(tmp_path_factory.mktemp("node-cache"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny encoder."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def tiny_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of a benchmark with three classes in CSV files."""
    return make_benchmark(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="session")
def experiment_file(
    tiny_encoder: Path, tiny_benchmark: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes the YAML of a small experiment; keyword arguments override its keys."""
    import yaml

    def write(**changes: object) -> Path:
        raw: dict[str, object] = {
            "name": "small",
            "benchmarks": [str(tiny_benchmark)],
            "encoder": str(tiny_encoder),
            "grid": [
                {"source": "real_small", "methods": ["ce"]},
                {"source": "generated", "methods": ["ce", "imp", "dimp"]},
            ],
            "seeds": [0, 1],
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 5e-3},
            "stages": {"real_small": {"steps": 12}},
        }
        file = tmp_path_factory.mktemp("experiment") / "small.yaml"
        file.write_text(yaml.safe_dump(raw | changes), encoding="utf-8")
        return file

    return write
