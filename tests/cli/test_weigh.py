"""The command ``harness weigh``: arguments, errors, and what is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from harness.cli import app
from harness.driver import Summary
from harness.weigh import page, session
from harness.weigh.decision import Gain
from harness.weigh.result import Result, Standing, confidence, lines
from harness.weigh.row_table import Views
from harness.weigh.worth import Estimate, Worth


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Runs the command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["harness", "weigh", *words])
    try:
        app.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def a_result(**changes: Any) -> Result:
    estimate = Estimate(0.7, 0.65, 0.75)
    fields: dict[str, Any] = {
        "judged": 180, "best": "both:dimp", "gain": Gain(0.05, 0.01, 100.0),
        "score": Gain(0.04, 0.01, 100.0), "temperature": 1.25, "accuracy": estimate,
        "null_accuracy": estimate,
        "standings": (Standing("real_small:ce", 0.6, 0.9, False), Standing("both:dimp", 0.7, 0.8, True)),
        "worth": (
            Worth(120.0, Estimate(90.0, 20.0, 150.0), False, True),
            Worth(240.0, Estimate(70.0, -10.0, 900.0), True, False),
        ),
        "next_rows": Estimate(0.012, 0.003, 0.02), "curves": {120: (0.6, 0.66), 240: (0.65, 0.7)}, "people": 300,
        "written": 3000, "suspicious": 57, "wrong_share": 0.06, "unlike": 12, "copies": 3, "repeated": 4, "notes": (),
        "seconds": 1800.0,
        "settings": {"labels": ["a", "b"], "encoder": "x", "steps": 70, "real_steps": 60, "seeds": [0],
            "precision": "float32",
        },
    }  # fmt: skip
    return Result(**(fields | changes))


def test_the_six_lines_of_a_yes() -> None:
    texts = {line.topic: line.text for line in lines(a_result(), "model/")}
    assert texts == {
        "Decision": "Use the written rows: both, written rows weighed by DIMP.",
        "How sure": "more than 99 % confidence that it predicts better than human rows alone, by the Brier score of "
        "all 300 human rows (90 % is needed to use it). Accuracy: +5.0 points (80 % interval +3.7 to +6.3), on 180 "
        "human rows.",
        "Worth": "Beside 120 human rows the 3,000 written ones are worth about 90 further human rows (80 % interval "
        "20 to 150).",
        "Next 100 human rows": "About +1.2 points of accuracy (80 % interval +0.3 to +2.0), by the slope of the "
        "learning curve.",
        "Suspicious rows": "57 of 3,000 written rows are worth reading: their labels may be wrong (weights.csv). About "
        "6 % of all labels are; 12 rows are unlike the human ones.",
        "Model": "model/ · both, written rows weighed by DIMP · expected accuracy 70.0 % (80 % interval 65.0 to 75.0)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "start"),
    [(-0.05, "Do not use the written rows: the best way"), (0.001, "These rows cannot tell whether written rows help")],
)
def test_a_no_and_no_answer(mean: float, start: str) -> None:
    result = a_result(score=Gain(mean, 0.01, 100.0), gain=Gain(0.0, 0.01, 100.0))
    assert lines(result, "model/")[0].text.startswith(start)
    assert result.recommended == "real_small:ce"
    assert "human rows alone" in lines(result, "model/")[-1].text


def test_a_worth_that_the_rows_cannot_tell_and_a_negative_one() -> None:
    unclear = Worth(120.0, Estimate(90.0, 0.0, 5000.0), False, False)
    assert lines(a_result(worth=(unclear,)), "")[2].text.startswith("These rows cannot tell how many human rows")
    harmful = Worth(120.0, Estimate(-40.0, -60.0, -5.0), False, True)
    text = lines(a_result(worth=(harmful,)), "")[2].text
    assert text.endswith("cost as much as losing 40 of them (80 % interval 5 to 60).")
    doubtful = Worth(120.0, Estimate(-15.0, -77.0, 64.0), False, True)
    text = lines(a_result(worth=(doubtful,)), "")[2].text
    assert text.endswith("are worth about −15 further human rows (80 % interval −77 to 64): no clear effect.")


def test_a_score_and_an_accuracy_that_clearly_contradict_each_other_cannot_tell() -> None:
    worse = Gain(-0.05, 0.01, 100.0)
    assert a_result(gain=worse).verdict == "cannot tell"
    assert a_result(gain=worse, score=worse).verdict == "do not use"
    assert a_result(score=worse).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.896, "89 %"),
        (0.9, "90 %"),
        (0.104, "11 %"),
        (0.5, "50 %"),
        (0.9901, "more than 99 %"),
        (0.0, "less than 1 %"),
    ],
)
def test_a_confidence_does_not_seem_to_reach_a_threshold(share: float, text: str) -> None:
    assert confidence(share) == text


def test_written_rows_alone_as_the_best_way() -> None:
    result = a_result(best="generated:ce")
    assert lines(result, "")[3].text.startswith("Nothing, as long as no human rows are trained on")
    card = page._render("model.md.j2", page._card(result, "x", False)).decode()
    assert "trained on 3,000 rows that a language model wrote" in card
    assert "temperature 1.25" in card


def test_the_answer_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.DataFrame({
        "id": ["1", "2", "3"], "text": ["<b>one</b>", "two", "three"], "label": ["a", "b", "a"],
        "suggested_label": ["b", "", ""], "p_wrong": [0.9, 0.1, 0.2], "p_label": [0.1, 0.9, 0.8],
        "q_label": [0.2, 0.8, 0.7],
    })  # fmt: skip
    answer = session.Answer(a_result(notes=("a note",)), rows, Views({}, {}), tmp_path / "out" / "model")
    monkeypatch.setattr(session, "Session", lambda *_: SimpleNamespace(run=lambda: answer))
    for name in ("people", "written"):
        (tmp_path / f"{name}.csv").write_text("text,label\n")
    files = [str(tmp_path / f"{name}.csv") for name in ("people", "written")]
    assert call(monkeypatch, *files, "--out", str(tmp_path / "out"), "--home", str(tmp_path / "home")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Decision Use the written rows" in printed
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in printed
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written >= {"report.html", "weigh.json", "weights.csv", "README.md", "curves.png"}
    html = (tmp_path / "out" / page.PAGE).read_text()
    assert "&lt;b&gt;one&lt;/b&gt;" in html
    cells = re.sub(r"\s*<[^>]*>\s*", "|", html[html.index("Which labels are probably wrong") :])
    assert re.search(r"of all with this label\|+a\|+b\|+1\|+2\|", cells)
    assert "a note" in html
    assert "(0.040, interval 0.027 to 0.053)" in html
    assert json.loads((tmp_path / "out" / "weigh.json").read_text())["score"]["mean"] == 0.04


def test_failed_trials_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise session.FailedTrialsError(Summary(0, 0, {"fold-1 · both · ce": "Traceback\nOSError: the disk is full"}))

    monkeypatch.setattr(session, "Session", lambda *_: SimpleNamespace(run=fail))
    assert call(monkeypatch, "a.csv", "b.csv", "--out", str(tmp_path)) == 1
    assert "failed: fold-1 · both · ce: OSError: the disk is full" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.csv"], "expected two files, PEOPLE and WRITTEN, found only a.csv"),
        (["a.yaml", "b.csv"], "expected two data files, or one YAML file"),
        (["a.csv", "b.csv", "--budget", "soon"], "budget: expected a duration such as 30m or 1h30m, found 'soon'"),
        (["a.csv", "b.csv", "--text", "a", "--text", "b", "--text", "c"], "expected one column, or two for a pair"),
        (["a.csv", "b.csv"], "unknown file 'a.csv'"),
        (["missing.yaml"], "unknown file 'missing.yaml'"),
    ],
)
def test_mistakes_end_with_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
