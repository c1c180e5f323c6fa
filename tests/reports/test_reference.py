"""Published results beside our own."""

from __future__ import annotations

import pytest

from harness.config.reference import Reference
from harness.config.schema import parse
from harness.errors import UserError
from harness.reports.reference import reference

GENERATED = {"ce": {"accuracy": 77.39}, "dimp": {"accuracy": 82.67, "f1": 79.4}, "new": {"f1": 1.0}}
SCORES = {"alpha": {"generated": GENERATED}}


def test_scores_and_gains_stand_side_by_side(small):
    benchmark = small.trials["benchmark"].iloc[0]
    scores = {benchmark: SCORES["alpha"]}
    small.meta["settings"]["report"] = {"reference": {"title": "A paper", "note": "BERT.", "scores": scores}}
    table = reference(small)
    rows = table.frame().set_index(["method", "metric"])
    assert table.title == "Beside A paper"
    assert table.note.endswith("Published: A paper. BERT.")
    assert rows["published"].tolist() == ["77.4", "82.7", "79.4", "1.0"]
    assert rows["gain published"].tolist() == ["–", "+5.28", "–", "–"]
    assert rows.loc[("new", "macro F1"), "here"] == "not planned"
    done = small.trials[small.trials["status"] == "finished"]
    cells = done[(done["benchmark"] == benchmark) & (done["source"] == "generated")]
    means = {m: cells[cells["method"] == m].set_index("seed")["test_accuracy"] for m in ("ce", "dimp")}
    assert rows.loc[("ce", "accuracy"), "here"].startswith(f"{100 * means['ce'].mean():.1f} ±")
    gain = 100 * (means["dimp"] - means["ce"]).mean()
    assert rows.loc[("dimp", "accuracy"), "gain over CE here"].startswith(f"{gain:+.2f} (".replace("-", "−"))


def test_without_published_results_there_is_no_table(small):
    assert not reference(small).rows


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": {"generatd": {}}}, "unknown source 'generatd' in scores.a. Did you mean 'generated'?"),
        ({"a": {"generated": {"ce": {"accuray": 1}}}}, "unknown metric 'accuray' in scores.a.generated.ce."),
    ],
)
def test_names_are_checked(scores, message):
    with pytest.raises(UserError, match=message):
        parse(Reference, {"title": "x", "scores": scores}, "x.yaml")
