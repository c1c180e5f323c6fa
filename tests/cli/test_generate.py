"""The command ``harness generate``: its file, its options, its errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from harness.cli.generate import generate
from harness.config.benchmark import Benchmark
from harness.data.benchmarks import resolve
from harness.errors import UserError
from harness.generation.settings import load
from tests.generation.conftest import records
from tests.llm.server import Fake, json_objects, prompt

Serve = Callable[..., Fake]
EXAMPLE = Path(__file__).parents[2] / "experiments" / "generation" / "tweet_sentiment.yaml"


@pytest.fixture
def command(benchmark: Benchmark, tmp_path: Path) -> Callable[..., str]:
    """Runs the command on a file for the small benchmark; returns its output."""
    app = typer.Typer()
    app.command()(generate)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(benchmark.model_dump(mode="json", exclude_defaults=True)))

    def run(*arguments: str, code: int = 0, **settings: Any) -> str:
        raw = {
            "benchmark": "small.yaml",
            "sampling": {"model": "fake"},
            "attributes": [],
            "rows_per_call": 3,
        } | settings
        (folder / "corpus.yaml").write_text(yaml.safe_dump(raw))
        result = CliRunner().invoke(app, [str(folder / "corpus.yaml"), "--home", str(tmp_path / "home"), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_it_writes(command: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    fake = serve()
    settings: dict[str, Any] = {
        "n": 12, "out": str(tmp_path / "out.jsonl"), "server": {"base_url": fake.url}, "shots": 2,
        "limits": {"price_in": 1, "price_out": 2}, "descriptions": {"negative": "a complaint"},
    }  # fmt: skip
    assert "calls" in command("--dry-run", **settings)
    output = command("--show-prompts", **settings)
    assert any("rows" in content for content in json_objects(output))
    assert not fake.bodies
    assert "12 rows" in command(**settings)
    assert len(records(tmp_path / "out.jsonl")) == 12
    assert "a complaint" in prompt(fake.bodies[-1])
    overrides = ("limits.max_tokens_total=2000", "sampling.max_tokens=60", "n=60")
    output = command(*(word for pair in overrides for word in ("--set", pair)), code=1, **settings)
    assert "Incomplete" in output


def test_the_default_file_is_in_the_current_folder(
    command: Callable[..., str], serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command(n=6, server={"base_url": serve().url})
    assert len(records(tmp_path / "here" / "generated" / "small.jsonl")) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {"budget": 1}}, "a budget needs price_in and price_out"),
        ({"balance": "even"}, "unknown value 'even' in balance"),
        ({"descriptions": ["negative"]}, "descriptions: expected a mapping"),
        ({"descriptions": {"negativ": "x"}}, "in descriptions. Did you mean 'negative'"),
        ({"attributes": ["Big Topic"]}, "lower-case word"),
        ({"attributes": ["label"]}, "attributes: label: the corpus has a column of that name"),
        ({"shots_from": "real_large"}, "Set shots_from to real_small, or shots to 0"),
        ({"prompts": "nowhere"}, "prompts: .*files/nowhere: there is no such folder"),
        ({"server": {"base_url": "http://a:b@host/v1"}}, "credentials.*server.key_env"),
        ({"server": {"base_urll": "http://host/v1"}}, "Did you mean 'base_url'"),
        ({"shot": 3}, "Did you mean 'shots'"),
        ({"model": "fake"}, "unknown key 'model'. It belongs to 'sampling'"),
        ({"benchmark": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str, command: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=message):
        command("--dry-run", **settings)


@pytest.mark.parametrize("override", ["n", "n=[", "n.x=3"])
def test_wrong_overrides(override: str, command: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="--set"):
        command("--set", override, n=6)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{benchmark: task.yaml, prompts: words, sampling: {model: m}, out: x.jsonl}")
    request = load(tmp_path / "a.yaml", ("shots=0", "sampling.model=other"))
    assert (request.benchmark, request.prompts) == (str(tmp_path / "task.yaml"), str(tmp_path / "words"))
    assert (request.out, request.shots, request.sampling.model, request.n) == ("x.jsonl", 0, "other", 2000)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").touch()
    with pytest.raises(UserError, match=r"Did you mean 'corpus.yaml'\?"):
        load(tmp_path / "corpsu.yaml")


def test_the_example_is_valid() -> None:
    request = load(EXAMPLE)
    assert set(request.descriptions) <= set(resolve(request.benchmark).labels)
    assert request.server.base_url == "http://127.0.0.1:8000/v1"


def test_help_teaches(command: Callable[..., str]) -> None:
    text = command("--help")
    assert "--dry-run" in text
    assert "no answer is paid for twice" in " ".join(text.replace("│", " ").split())


def test_importing_the_command_is_cheap() -> None:
    code = (
        "import sys, harness.cli.generate\n"
        "print([name for name in ('torch', 'mlflow', 'openai', 'numpy', 'ray') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
