"""``harness compare`` and ``harness report`` on ledgers in memory and on folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli import compare, views
from harness.errors import UserError
from harness.paths import Paths
from harness.reports.page import write
from tests.reports.conftest import make
from tests.reports.fake_ledger import FakeLedger

A = {"ce": {0: 0.70, 1: 0.72}, "imp": {0: 0.7, 1: 0.8}}
B = {"ce": {0: 0.70, 1: 0.72}, "dimp": {0: 0.7, 1: 0.8}}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for module in (compare, views):
        monkeypatch.setattr(module, "open_reader", lambda uri, home: FakeLedger({"first": A, "second": B}))
    monkeypatch.chdir(tmp_path)
    return Paths.at(tmp_path / "home")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_two_experiments_of_the_ledger(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    compare.compare("first", "second", "accuracy", paths, None, Console(width=120))
    lines = printed(capsys)
    assert lines[:2] == ["A: first", "B: second"]
    assert lines[2] == "cell A n difference p B is time B is"
    assert lines[4:6] == ["toy", "generated · ce 71.0 2 0.00 – same 1.00× same"]
    assert lines[-6:] == [
        "Cells in both: 1. B against A: 1 same. Time: 1 same.",
        "Cells only in A: 1",
        "toy · generated · imp",
        "Cells only in B: 1",
        "toy · generated · dimp",
        "Times are from different devices: A ran on first, 1 thread, B on second, 1 thread.",
    ]


def test_a_folder_and_the_same_folder_are_the_same(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(make(rows=5, epochs=1), tmp_path / "results" / "toy")
    compare.compare("results/toy", str(tmp_path / "results" / "toy"), "f1", paths, Path("c.json"), Console(width=120))
    assert "Cells in both: 4. B against A: 4 same. Time: 4 same." in printed(capsys)
    (tmp_path / "results" / "toy" / "runtime.csv").unlink()
    compare.compare("results/toy", "results/toy", "accuracy", paths, None, Console(width=120))
    assert "Cells in both: 4. B against A: 4 same. Time: 4 unpaired." in printed(capsys), "scores without times"
    content = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert (content["first"], content["metric"]) == ("results/toy", "test_f1")
    assert {row["outcome"] for row in content["cells"]} == {"same"}
    assert content["cells"][0]["fraction"] == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "frist",
            r"no run of the experiment 'frist'.*Did you mean 'first'\?.* Nor is 'frist' a folder with trials.csv",
        ),
        ("results/tou", r"unknown results folder 'tou' in results\. Did you mean 'toy'\?"),
        ("nowhere/tou", r"unknown results folder 'tou' in nowhere"),
        (
            "results/toy",
            r"no trials.csv in results/toy: it holds notes.txt; expected a folder that `harness run` wrote",
        ),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str, paths: Paths) -> None:
    Path("results/toy").mkdir(parents=True)
    Path("results/toy/notes.txt").touch()
    with pytest.raises(UserError, match=message):
        compare.compare(name, "second", "accuracy", paths, None, Console())


def test_an_unknown_metric_is_refused(paths: Paths) -> None:
    with pytest.raises(UserError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        compare.compare("first", "second", "acuracy", paths, None, Console())


def test_no_cell_in_both(paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FakeLedger({"a": {"ce": {0: 0.5}}, "b": {"imp": {0: 0.5}}})
    monkeypatch.setattr(compare, "open_reader", lambda uri, home: ledger)
    compare.compare("a", "b", "accuracy", paths, None, Console(width=120))
    assert printed(capsys)[2:4] == ["Cells in both: 0.", "Cells only in A: 1"]


# -- the report ------------------------------------------------------------------------------------------------------


def test_a_ledger_that_refuses_the_report_is_a_warning(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("403 Forbidden")

    monkeypatch.setattr(views, "attach_report", refuse)
    page, written = views.report("first", paths, tmp_path / "results", Console(width=300))
    assert written
    assert page.is_file()
    assert (tmp_path / "results" / "index.html").is_file()
    text = capsys.readouterr().out
    assert f"The report is in {tmp_path / 'results' / 'first'}, but not among the artifacts in MLflow at" in text
    assert "403 Forbidden" in text
    again, written = views.report("first", paths, tmp_path / "results", Console())
    assert (again, written) == (page, False)
    assert capsys.readouterr().out == ""


def test_the_report_is_attached_as_it_is_in_the_folder(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: dict[str, bytes] = {}
    monkeypatch.setattr(views, "attach_report", lambda parent, files, uri, home: attached.update(files))
    page, _ = views.report("first", paths, tmp_path / "results", Console())
    on_disk = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}
    assert attached.keys() == on_disk > {"report.html", "report.md", "tables.tex", "figures/accuracy.svg"}
    assert attached["report.html"] == page.read_bytes()


def test_many_trials_have_a_first_page(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is there before any artifact of a trial is read, and does not count as the report."""
    place = tmp_path / "results" / "first" / "report.html"

    def interrupted(*_: object) -> None:
        assert place.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(views, "MANY", 4)
    with monkeypatch.context() as patch:
        patch.setattr("harness.reports.load.load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            views.report("first", paths, tmp_path / "results", Console(width=300))
    first = place.read_text()
    assert "The first page" in first
    assert "75.0 ± 7.1" in first
    assert f"First page, from metrics alone: {place}" in capsys.readouterr().out
    _, written = views.report("first", paths, tmp_path / "results", Console(width=300))
    assert written
    assert "The first page" not in place.read_text()
