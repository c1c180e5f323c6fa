"""The answer of ``harness weigh``: numbers, and the sentences that say them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.reports.formatting import points
from harness.weigh.candidates import BY_KEY, NULL, WRITTEN
from harness.weigh.decision import CONFIDENCE, Gain, Verdict, verdict
from harness.weigh.worth import Estimate, Worth

#: For how many further human rows a gain is predicted.
NEXT = 100
VERSION = 2


@dataclass(frozen=True)
class Standing:
    """How a candidate did in the first round.

    Attributes:
        candidate: its key.
        accuracy: on the folds that choose the finalists.
        log_loss: there, by which the finalists are chosen; see ``harness.weigh.decision.log_loss``.
        finalist: whether it went on.
    """

    candidate: str
    accuracy: float
    log_loss: float
    finalist: bool


@dataclass(frozen=True)
class Numbers:
    """What the trials say.

    Attributes:
        judged: number of human rows that the gain is reported from.
        best: the best candidate that uses written rows.
        gain: the gain in accuracy over human rows alone, as a share, of what other folds have chosen.
        score: the reduction of the Brier score, likewise, on all human rows; it decides.
        temperature: by which the logits of the recommended way are divided for calibrated probabilities.
        accuracy: expected accuracy of the recommended way.
        null_accuracy: of human rows alone.
        standings: of the first round, the null first.
        worth: beside each share of the human rows that was trained on, and beside all of them.
        next_rows: accuracy that ``NEXT`` further human rows add to the recommended way.
        curves: number of human rows -> accuracy without and with written rows.
    """

    judged: int
    best: str
    gain: Gain
    score: Gain
    temperature: float
    accuracy: Estimate
    null_accuracy: Estimate
    standings: tuple[Standing, ...]
    worth: tuple[Worth, ...]
    next_rows: Estimate
    curves: dict[int, tuple[float, float]]

    @property
    def verdict(self) -> Verdict:
        """Whether to use the written rows."""
        return verdict(self.score, self.gain)


@dataclass(frozen=True)
class Result(Numbers):
    """The answer.

    Attributes:
        people: number of human rows.
        written: number of written rows, without copies of human rows.
        suspicious: number of written rows that probably have a wrong label.
        wrong_share: estimated share of wrong labels.
        unlike: number of written rows that are unlike the human ones.
        copies: number of copies of human rows.
        repeated: number of written near-duplicates.
        notes: on the rows.
        seconds: how long it took, without interrupted runs.
        settings: labels, encoder, steps, seeds.
        reviewed: verdicts by kind.
    """

    people: int
    written: int
    suspicious: int
    wrong_share: float
    unlike: int
    copies: int
    repeated: int
    notes: tuple[str, ...]
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    reviewed: dict[str, int] | None = None

    @property
    def recommended(self) -> str:
        """The key of the candidate to train with."""
        return self.best if self.verdict == "use" else NULL.key

    def to_json(self) -> bytes:
        """For machines: every number; an infinite one is null."""
        raw = asdict(self) | {
            "version": VERSION,
            "verdict": self.verdict,
            "recommended": self.recommended,
            "confidence": CONFIDENCE,
            "gain": _gain(self.gain),
            "score": _gain(self.score),
            "curves": [
                {"people": people, "without": alone, "with": both} for people, (alone, both) in self.curves.items()
            ],
        }
        return (json.dumps(_finite(raw), indent=2, ensure_ascii=False) + "\n").encode()


def _gain(gain: Gain) -> dict[str, float]:
    low, high = gain.interval
    return {"mean": gain.mean, "low": low, "high": high, "error": gain.error, "sure": gain.sure}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Line:
    """A line of the answer: what it is about, and the sentence."""

    topic: str
    text: str


def lines(result: Result, model: str) -> list[Line]:
    """The six lines of the answer.

    Args:
        result: the numbers.
        model: where the model is.
    """
    return [
        Line("Decision", decision(result)),
        Line("How sure", how_sure(result)),
        Line("Worth", worth_sentence(result)),
        Line(f"Next {NEXT} human rows", next_sentence(result)),
        Line("Suspicious rows", suspicious_sentence(result)),
        Line("Model", f"{model} · {BY_KEY[result.recommended].title} · {accuracy_sentence(result.accuracy)}"),
    ]


def decision(result: Result) -> str:
    """Use them or not."""
    best = BY_KEY[result.best].title
    if result.verdict == "use":
        return f"Use the written rows: {best}."
    if result.verdict == "do not use":
        return f"Do not use the written rows: the best way ({best}) predicts worse than human rows alone."
    return f"These rows cannot tell whether written rows help ({best} was best): train on human rows alone for now."


def how_sure(result: Result) -> str:
    """The confidence, and the gain with its interval."""
    low, high = result.gain.interval
    return (
        f"{confidence(result.score.sure)} confidence that it predicts better than human rows alone, by the Brier score "
        f"of all {result.people} human rows ({percent(0.5 + CONFIDENCE / 2)} is needed to use it). Accuracy: "
        f"{points(result.gain.mean, 1)} points ({percent(CONFIDENCE)} interval {points(low, 1)} to {points(high, 1)}), "
        f"on {result.judged} human rows."
    )


def worth_sentence(result: Result) -> str:
    """How many human rows the written ones replace: measured, or extrapolated to all human rows."""
    clear = [worth for worth in result.worth if worth.clear]
    if not clear:
        return f"These rows cannot tell how many human rows the {result.written:,} written ones replace."
    worth = next((w for w in reversed(clear) if not w.extrapolated), clear[-1])
    low, high = round(worth.rows.low), round(worth.rows.high)
    how = "extrapolated, " if worth.extrapolated else ""
    interval = f"{how}{percent(CONFIDENCE)} interval"
    start = f"Beside {worth.people:.0f} human rows the {result.written:,} written ones"
    value = round(worth.rows.value)
    if high < 0:
        return f"{start} cost as much as losing {-value} of them ({interval} {-high} to {-low})."
    text = f"{start} are worth about {signed(value)} further human rows ({interval} {signed(low)} to {signed(high)})"
    return f"{text}: no clear effect." if low < 0 else f"{text}."


def next_sentence(result: Result) -> str:
    """What labeling more rows would bring."""
    if result.recommended == WRITTEN.key:
        return "Nothing, as long as no human rows are trained on; they would only judge better."
    rows = result.next_rows
    return (
        f"About {points(rows.value, 1)} points of accuracy ({percent(CONFIDENCE)} interval {points(rows.low, 1)} to "
        f"{points(rows.high, 1)}), by the slope of the learning curve."
    )


def suspicious_sentence(result: Result) -> str:
    """How many labels are probably wrong."""
    if math.isnan(result.wrong_share):
        return "These models do not predict the labels of the written rows, so they cannot tell which are wrong."
    return (
        f"{result.suspicious} of {result.written:,} written rows are worth reading: their labels may be wrong "
        f"(weights.csv). About {percent(result.wrong_share)} of all labels are; {result.unlike} rows are unlike the "
        "human ones."
    )


def accuracy_sentence(accuracy: Estimate) -> str:
    """The expected accuracy with its interval."""
    return (
        f"expected accuracy {100 * accuracy.value:.1f} % ({percent(CONFIDENCE)} interval {100 * accuracy.low:.1f} to "
        f"{100 * accuracy.high:.1f})"
    )


def percent(share: float) -> str:
    """A share in whole percent: "80 %"."""
    return f"{100 * share:.0f} %"


def confidence(share: float) -> str:
    """A confidence in whole percent, never 0 or 100, rounded toward 50 %, so that no threshold seems to be reached."""
    whole = math.floor(100 * share + 1e-9) if share > 0.5 else math.ceil(100 * share - 1e-9)
    return "more than 99 %" if share > 0.99 else "less than 1 %" if share < 0.01 else f"{whole} %"


def signed(rows: int) -> str:
    """A number of rows with a proper minus sign."""
    return f"{rows:,}".replace("-", "−")
