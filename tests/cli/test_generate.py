"""The command: thin, but its options reach what they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from harness.cli.generate import generate
from harness.config.benchmark import Benchmark
from harness.errors import UserError
from tests.generation.conftest import records
from tests.llm.server import Fake

Serve = Callable[..., Fake]


@pytest.fixture
def command(benchmark: Benchmark, tmp_path: Path) -> Callable[..., str]:
    """Runs the command on the small benchmark; what it printed."""
    app = typer.Typer()
    app.command()(generate)
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(benchmark.model_dump(mode="json", exclude_defaults=True)))

    def run(*arguments: str, code: int = 0) -> str:
        given = ["--benchmark", str(file), "--model", "fake", "--home", str(tmp_path / "home"), *arguments]
        found = CliRunner().invoke(app, given)
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == code, found.output
        return found.output

    return run


def test_it_writes(command: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    fake = serve()
    where = ("--n", "12", "--base-url", fake.url, "--out", str(tmp_path / "out.jsonl"))
    prices = ("--price-in", "1", "--price-out", "2")
    assert "calls" in command(*where, "--dry-run", *prices)
    assert "with the label" in command(*where, "--show-prompts")
    assert not fake.bodies
    assert "12 rows" in command(*where, *prices, "--describe", "negative=a complaint")
    assert len(records(tmp_path / "out.jsonl")) == 12
    assert "a complaint" in fake.bodies[-1]["messages"][-1]["content"]
    short = ("--max-tokens-total", "2000", "--max-tokens", "60", "--n", "60")
    assert "Incomplete" in command(*where, *short, code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "1"), "a budget needs price_in and price_out"),
        (("--balance", "even"), "unknown value 'even' in balance"),
        (("--describe", "negative"), "expected LABEL=TEXT"),
        (("--attribute", "Big Topic"), "lower-case word"),
        (("--base-url", "http://a:b@host/v1"), "credentials"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str, command: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=message):
        command(*arguments)


def test_help_teaches(command: Callable[..., str]) -> None:
    text = command("--help")
    assert "--dry-run" in text
    assert "no answer is paid for twice" in " ".join(text.replace("│", " ").split())
