"""The page over all experiments: from folders alone, without losing one."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.errors import UserError
from harness.reports.folder import read_trials
from harness.reports.index import Best, entries, write_index
from harness.reports.page import write
from harness.reports.results import Results

from .conftest import edit, make
from .test_page import EVIL, elements


def save(results: Results, folder: Path, **meta: object) -> None:
    write(replace(results, meta={**results.meta, **meta}), folder)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three experiments: a finished one, one with failed and missing trials, and one whose table is broken."""
    folder = tmp_path_factory.mktemp("results")
    experiment = f"description: {EVIL!r}\n"
    save(make(rows=10, epochs=1), folder / "older", started="2025-01-02 03:04 UTC", experiment=experiment)
    trials = make(rows=10, epochs=1)
    dimp = trials.trials["method"] == "dimp"
    part = edit(trials, dimp & (trials.trials["seed"] == 0), status="failed")
    part = edit(part, dimp & (trials.trials["seed"] == 1), status="missing")
    save(part, folder / "newer & part", started="2025-02-02 03:04 UTC")
    (folder / "broken").mkdir()
    (folder / "broken" / "trials.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (folder / "no results").mkdir()
    (folder / "README.md").touch()
    return folder


def test_every_experiment_has_its_entry_the_newest_first(results: Path) -> None:
    newer, older, broken = entries(results)
    assert (newer.name, newer.link) == ("newer & part", "newer%20%26%20part/report.html")
    assert (newer.finished, newer.planned, newer.failed) == (10, 12, 1)
    assert (older.finished, older.planned, older.failed) == (12, 12, 0)
    assert older.started == "2025-01-02 03:04 UTC"
    assert (broken.link, broken.planned) == ("broken/trials.csv", 0)
    assert "no column benchmark, source" in broken.problem


def test_the_best_method_on_a_source_is_one_with_all_of_its_trials(results: Path) -> None:
    newer, older, _ = entries(results)
    assert [(best.source, best.method) for best in older.best] == [("real_small", "ce"), ("generated", "dimp")]
    assert [(best.source, best.method) for best in newer.best] == [("real_small", "ce"), ("generated", "imp")]
    assert older.best[0].gain == older.best[0].interval == ""


def test_the_gain_of_the_best_is_paired_by_seed(tmp_path: Path) -> None:
    """Gains of 4, 5 and 6 points: mean 5, standard deviation 1, t(0.975, 2) = 4.303, half width 2.484.

    Scores 74, 85 and 81: mean 80, standard deviation √(62/2) = 5.57.
    """
    base = {0: 0.70, 1: 0.80, 2: 0.75}
    results = make(methods=("ce", "imp"), sources=("generated",), rows=5, epochs=1)
    scores = [
        base[seed] + (0.04 + 0.01 * seed if method == "imp" else 0.0)
        for method, seed in zip(results.trials["method"], results.trials["seed"], strict=True)
    ]
    save(replace(results, trials=results.trials.assign(test_accuracy=scores)), tmp_path / "toy")
    (entry,) = entries(tmp_path)
    assert entry.best == (Best("news", "generated", "imp", "80.0 ± 5.6 (3)", "+5.00", "+2.52 to +7.48"),)


def test_the_page_is_escaped_and_loads_nothing(results: Path) -> None:
    page = write_index(results)
    text = page.read_text(encoding="utf-8")
    parsed = elements(page)
    assert set(parsed.sources) == {"newer%20%26%20part/report.html", "older/report.html", "broken/trials.csv"}
    assert "script" not in parsed.tags
    assert not re.search(r"url\(|@import|https?://", text.replace("http://example.org", ""))
    assert '<h2><a href="newer%20%26%20part/report.html">newer &amp; part</a></h2>' in text
    assert "10 of 12 trials finished, 1 failed · started 2025-02-02 03:04 UTC" in text
    assert write_index(results).read_text(encoding="utf-8") == text, "the same folders, the same page"


def test_an_empty_folder_has_a_page_too(tmp_path: Path) -> None:
    assert "No results yet." in write_index(tmp_path / "new").read_text(encoding="utf-8")


def test_runs_that_end_together_lose_no_entry(tmp_path: Path) -> None:
    small = make(methods=("ce",), seeds=(0,), rows=2, epochs=1)
    (tmp_path / "seed").mkdir()
    small.trials.to_csv(tmp_path / "seed" / "trials.csv", index=False)
    content = (tmp_path / "seed" / "trials.csv").read_bytes()

    def end(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "trials.csv").write_bytes(content)
        write_index(tmp_path)

    threads = [threading.Thread(target=end, args=(f"run{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(elements(tmp_path / "index.html").sources) == 9


# -- the table of a folder -------------------------------------------------------------------------------------------


def test_trials_are_read_back_as_they_were_written(results: Path) -> None:
    written = make(rows=10, epochs=1).trials
    read = read_trials(results / "older").set_index(["trial", "source"]).loc[
        list(zip(written["trial"], written["source"], strict=True))
    ].reset_index()  # fmt: skip
    names = ["benchmark", "source", "method", "fraction", "variant", "seed", "trial", "requested", "status",
             "quality_checker", "test_accuracy", "seconds_train", "device", "threads"]  # fmt: skip
    pd.testing.assert_frame_equal(read[names], written[names], check_dtype=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no trials.csv in .*: it is empty; expected a folder that `harness run` wrote"),
        ("", "cannot be read"),
        ("benchmark,source\n", "no column method, fraction"),
    ],
)
def test_what_is_no_table_of_trials_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trials.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_trials(tmp_path)


@pytest.mark.parametrize(("column", "value"), [("test_accuracy", "high"), ("seed", "")])
def test_a_value_of_another_kind_is_refused(column: str, value: str, tmp_path: Path) -> None:
    trials = make(methods=("ce",), seeds=(0,), rows=2, epochs=1).trials.astype({column: object})
    trials.loc[0, column] = value
    trials.to_csv(tmp_path / "trials.csv", index=False)
    with pytest.raises(UserError, match=f"column '{column}'"):
        read_trials(tmp_path)
