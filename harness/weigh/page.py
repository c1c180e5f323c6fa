"""What ``harness weigh`` writes: the page, the numbers, the table of rows, and the card of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from harness.files import write_atomically
from harness.reports.figures.style import Drawing
from harness.reports.formatting import clip, duration, number, percent, points
from harness.reports.rendering import environment
from harness.weigh.candidates import BY_KEY, NULL, WRITTEN
from harness.weigh.decision import CONFIDENCE
from harness.weigh.pictures import draw
from harness.weigh.result import Result, accuracy_sentence, decision, how_sure, lines, signed
from harness.weigh.settings import hub_name

PAGE, NUMBERS, ROWS = "report.html", "weigh.json", "weights.csv"
#: Rows of the table of the most doubtful rows on the page.
SHOWN = 25


def write(result: Result, rows: pd.DataFrame, folder: Path, name: str, command: str) -> Path:
    """Writes all files but the model's weights; the page is the last. Returns its path.

    Args:
        result: the numbers.
        rows: the table of written rows.
        folder: for the files.
        name: title of the page.
        command: the command line.
    """
    drawings = draw(result, rows)
    files: dict[str, bytes] = {NUMBERS: result.to_json(), ROWS: rows.to_csv(index=False, float_format="%.6g").encode()}
    for drawing in drawings:
        files |= {f"figures/{file}": content for file, content in drawing.files().items()}
    files["model/README.md"] = _render("model.md.j2", _card(result, name, "text2" in rows))
    files[PAGE] = _render("weigh.html.j2", _context(result, rows, drawings, name, command))
    for file, content in files.items():
        write_atomically(folder / file, content)
    return folder / PAGE


def _render(template: str, context: Mapping[str, Any]) -> bytes:
    return environment().get_template(template).render(context).encode()


def _context(result: Result, rows: pd.DataFrame, drawings: list[Drawing], name: str, command: str) -> dict[str, Any]:
    doubtful = rows[rows["p_wrong"].notna()].sort_values("p_wrong", ascending=False, kind="stable").head(SHOWN)
    return {
        "name": name,
        "lines": lines(result, "model/"),
        "drawings": drawings,
        "candidates": _candidates(result),
        "worth": _worth(result),
        "doubtful": [
            (*map(str, (row["id"], clip(row["text"]), row["label"], row["suggested_label"])), _share(row["p_wrong"]))
            for row in doubtful.to_dict("records")
        ],
        "confused": _confused(rows),
        "notes": result.notes,
        "result": result,
        "confidence": f"{100 * CONFIDENCE:.0f} %",
        "duration": duration(result.seconds),
        "command": command,
    }


def _share(share: float) -> str:
    """A probability in percent, a small one with one more digit."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _confused(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Which labels are probably wrong: label, likeliest one, number of rows, and of how many with this label."""
    suspicious = rows[rows["suggested_label"] != ""]
    counts = Counter(zip(suspicious["label"], suspicious["suggested_label"], strict=True))
    totals = Counter(rows["label"])
    return [
        (label, suggested, f"{count:,}", f"{totals[label]:,}")
        for (label, suggested), count in counts.most_common(SHOWN)
    ]


def _candidates(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            BY_KEY[standing.candidate].title, percent(standing.accuracy), number(standing.log_loss, 3),
            "what others are compared with" if standing.candidate == NULL.key else "yes" if standing.finalist else "no",
        )
        for standing in result.standings
    ]  # fmt: skip


def _worth(result: Result) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    for worth, (alone, both) in zip(result.worth, result.curves.values(), strict=True):
        low, high = signed(round(worth.rows.low)), signed(round(worth.rows.high))
        rows = f"{signed(round(worth.rows.value))} ({low} to {high})" if worth.clear else "cannot tell"
        how = "extrapolated" if worth.extrapolated else "measured"
        out.append((f"{worth.people:.0f}", percent(alone), percent(both), points(both - alone, 1), rows, how))
    return out


def _training(result: Result) -> str:
    """The steps of the recommended training."""
    steps, real_steps = result.settings["steps"], result.settings["real_steps"]
    source = BY_KEY[result.recommended].source
    if source == NULL.source:
        return f"{real_steps} steps"
    return f"{steps} steps, then {real_steps} on human rows" if source == "generated_then_real" else f"{steps} steps"


def _used(result: Result) -> str:
    """What the model was trained on."""
    people, written = f"{result.people:,} human rows", f"{result.written:,} rows that a language model wrote"
    return {NULL.key: people, WRITTEN.key: written}.get(result.recommended, f"{people} and {written}")


def _card(result: Result, name: str, pairs: bool) -> dict[str, Any]:
    encoder = result.settings["encoder"]
    return {
        "name": name,
        "result": result,
        "title": BY_KEY[result.recommended].title,
        "accuracy": accuracy_sentence(result.accuracy),
        "decision": decision(result),
        "how_sure": how_sure(result),
        "pairs": pairs,
        "base_model": hub_name(encoder),
        "training": _training(result),
        "used": _used(result),
    }
