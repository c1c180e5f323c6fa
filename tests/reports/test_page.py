from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from harness.reports.page import report_key, write
from harness.reports.results import Results

from .conftest import Build, edit, make

EVIL = '<script>alert("x")</script> & | `code` **bold** [a](http://example.org) $x$'


class Elements(HTMLParser):
    """Collects the tags and the addresses that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def elements(page: Path) -> Elements:
    parser = Elements()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the plain grid, with two changes to its provenance."""
    results = make()
    results.meta.update(dirty=True, epoch_rule="best_validation")
    return write(results, tmp_path_factory.mktemp("report"))


def test_two_writings_give_the_same_bytes(page: Path, tmp_path: Path) -> None:
    results = make()
    results.meta.update(dirty=True, epoch_rule="best_validation")
    again = write(results, tmp_path).parent
    files = sorted(str(p.relative_to(again)) for p in again.rglob("*") if p.is_file())
    assert {"report.md", "report.html", "trials.csv", "runtime.csv", "figures/accuracy.svg"} <= set(files)
    for file in files:
        assert (again / file).read_bytes() == (page.parent / file).read_bytes(), file


def test_trials_csv_depends_on_the_numbers_only(page: Path, tmp_path: Path) -> None:
    results = make()
    changes = {"seconds_train": 1.0, "peak_memory_mb": 1.0, "device": "gpu", "resumed": 1.0}
    other = results.trials.sample(frac=1.0, random_state=1).assign(**changes)
    write(replace(results, trials=other, meta={**results.meta, "started": "later"}), tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == (page.parent / "trials.csv").read_bytes()
    assert (tmp_path / "runtime.csv").read_bytes() != (page.parent / "runtime.csv").read_bytes()
    assert pd.read_csv(tmp_path / "runtime.csv")["resumed"].tolist() == [1.0] * len(other)
    assert "resumed" not in pd.read_csv(page.parent / "runtime.csv")


def test_csv_floats_read_back_to_the_same_bits(page: Path) -> None:
    results = make()
    with (page.parent / "trials.csv").open(encoding="utf-8") as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(results.trials)
    for trial, accuracy in zip(results.trials["trial"], results.trials["test_accuracy"], strict=True):
        assert float(rows[trial]["test_accuracy"]) == accuracy
        assert rows[trial]["seed"] in {"0", "1", "2"}


def test_temperatures_and_diagnostics_stand_in_trials_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.reports.page._sections", lambda results: [])
    results = make()
    more = {"diagnostic_auc": 0.9, "quality_temperature": 1.5}
    write(replace(results, trials=results.trials.assign(**more)), tmp_path)
    with (tmp_path / "trials.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert list(first)[-2:] == list(more)
    assert (first["diagnostic_auc"], first["quality_temperature"]) == ("0.9", "1.5")


def test_everything_is_escaped(build: Build, tmp_path: Path) -> None:
    results = build(methods=("ce", "imp", "dimp"), rows=30)
    trials = results.trials
    results = edit(results, (trials["method"] == "imp") & (trials["seed"] == 0), status="failed", error=EVIL)
    meta = {
        **results.meta,
        "name": EVIL,
        "description": EVIL,
        "command": EVIL,
        "hardware": EVIL,
        "settings": {"a": EVIL},
    }
    weights = results.weights.assign(text=EVIL, label=EVIL)
    page = write(Results(results.trials, results.epochs, weights, meta), tmp_path)
    assert "script" not in elements(page).tags
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    prose = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))  # code blocks are literal
    assert "<script>" not in prose
    assert "\\[a\\](http" in prose


def test_a_method_name_cannot_break_a_figure(build: Build, tmp_path: Path) -> None:
    results = build()
    frames = [
        f.replace({"method": {"imp": "imp(a=$<b>_&)"}}) for f in (results.trials, results.epochs, results.weights)
    ]
    page = write(Results(*frames, results.meta), tmp_path)
    assert "imp(a=$&lt;b&gt;_&amp;)" in page.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page: Path) -> None:
    parsed = elements(page)
    assert parsed.sources
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in parsed.sources)
    assert "script" not in parsed.tags
    assert not re.search(r"url\(|@import|https?://", page.read_text(encoding="utf-8"))


def nothing_finished() -> Results:
    """As the ledger gives it: no measured column at all."""
    results = make(seeds=(0, 1))
    identity = ["trial", "benchmark", "source", "method", "seed", "fraction", "variant"]
    trials = results.trials[[*identity, "requested", "quality_checker", "diversity_checker", "device", "threads"]]
    trials = trials.assign(status="missing", error="")
    return Results(trials, pd.DataFrame(columns=[*identity, "epoch"]), pd.DataFrame(columns=identity), results.meta)


def failed_everywhere() -> Results:
    results = make(seeds=(0, 1))
    return edit(results, results.trials["seed"] >= 0, status="failed", error="out of memory")


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (nothing_finished(), "has a result yet"),
        (failed_everywhere(), "failed (0 of 2)"),
        (Results(make().trials[:0], make().epochs[:0], make().weights[:0], make().meta), "Nothing was planned"),
        (make(variants=("lr=1", "lr=2"), seeds=(0,)), "news, lr=2"),
        (make(benchmarks=("news", "irony"), seeds=(0,)), "± – (1)"),
        (make(sources=("generated",), methods=("ce",), epochs=1), "no other method has a higher mean"),
        (replace(make(methods=("ce",)), meta={}), "experiment"),
    ],
    ids=["none", "failed", "empty", "variants", "one seed", "only ce", "no meta"],
)
def test_whatever_is_there_is_shown(results: Results, expected: str, tmp_path: Path) -> None:
    page = write(results, tmp_path)
    assert expected in page.read_text(encoding="utf-8")
    assert expected in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_provenance_is_stated(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in (
        "harness run experiments/example.yaml",
        "0123456789abcdef with uncommitted changes",
        "torch 2.8.0",
        "12 min 34 s",
        "best validation accuracy",
        "Seeds: 0, 1, 2.",
    ):
        assert part in text


def test_the_key_of_a_report_is_read_back(page: Path, build: Build, tmp_path: Path) -> None:
    assert report_key(tmp_path) is None, "no report"
    assert report_key(page.parent) is None, "a report without a key"
    results = build(seeds=(0,), methods=("ce",))
    write(replace(results, meta={**results.meta, "key": "0123abcd"}), tmp_path)
    assert report_key(tmp_path) == "0123abcd"


def test_the_experiment_is_written_beside_the_report(page: Path, build: Build, tmp_path: Path) -> None:
    assert not (page.parent / "experiment.yaml").exists()
    results = build(seeds=(0,), methods=("ce",))
    write(replace(results, meta={**results.meta, "experiment": "name: größe\nseeds: [0]\n"}), tmp_path)
    assert (tmp_path / "experiment.yaml").read_text(encoding="utf-8") == "name: größe\nseeds: [0]\n"


def test_a_report_that_fails_midway_has_no_new_key(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = build(seeds=(0,), methods=("ce",))
    write(replace(results, meta={**results.meta, "key": "01"}), tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("harness.reports.page.write_atomically", fail)
    with pytest.raises(OSError, match="disk full"):
        write(replace(results, meta={**results.meta, "key": "02"}), tmp_path)
    assert report_key(tmp_path) == "01"
