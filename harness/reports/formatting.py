"""Formats numbers and cells as text: percent, points, seconds, and the state of a cell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from harness.reports.grid import Key, by_seed
from harness.reports.statistics import Interval, Summary, summarize

NONE = "–"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, without the sign: 0.812 as "81.2"."""
    return NONE if math.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float, digits: int = 2) -> str:
    """A difference of shares in percentage points, with its sign: "+1.25", "−0.40", "0.00"."""
    return NONE if math.isnan(difference) else _signed(100 * difference, digits)


def point_interval(interval: Interval, digits: int = 2) -> str:
    """An interval of differences in percentage points."""
    low, high = interval
    return NONE if math.isnan(low) else f"{points(low, digits)} to {points(high, digits)}"


def number(value: float, digits: int = 2) -> str:
    """A plain number, or a dash."""
    return NONE if math.isnan(value) else f"{value:,.{digits}f}"


def seconds(value: float) -> str:
    """Seconds, with one decimal below 100."""
    return number(value, 1 if abs(value) < 100 else 0)


def duration(value: float) -> str:
    """Seconds in readable units: "42 s", "3 min 20 s", "2 h 05 min"."""
    if math.isnan(value):
        return NONE
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def ratio(value: float) -> str:
    """A ratio: "1.40×"."""
    return NONE if math.isnan(value) else f"{value:.2f}×"


def number_interval(interval: Interval, digits: int = 2) -> str:
    """An interval of plain numbers."""
    low, high = interval
    return NONE if math.isnan(low) else f"{number(low, digits)} to {number(high, digits)}"


def p_value(p: float, digits: int = 3) -> str:
    """A p value, or that it is below the last decimal."""
    if math.isnan(p):
        return NONE
    return f"<{10**-digits:.{digits}f}" if p < 10**-digits else f"{p:.{digits}f}"


def spread(summary: Summary) -> str:
    """ "mean ± sd" in percent; the sd of one value is a dash."""
    return f"{percent(summary.mean)} ± {percent(summary.sd)}"


def score(rows: pd.DataFrame, metric: str) -> str:
    """A cell's mean, standard deviation and n, or the reason why there is none."""
    summary = summarize(by_seed(rows, metric).to_numpy())
    if summary.n == len(rows):
        return f"{spread(summary)} ({summary.n})"
    if summary.n == 0:
        return unfinished(rows)
    return f"{spread(summary)} (n={summary.n} of {len(rows)}; {unfinished(rows)})"


def unfinished(rows: pd.DataFrame) -> str:
    """States of the trials of a cell that did not finish: "missing", or "1 failed, 2 missing"."""
    counts = rows.loc[rows["status"] != "finished", "status"].value_counts().sort_index()
    if len(counts) == 1 and counts.iloc[0] == len(rows):
        return f"{counts.index[0]} (0 of {len(rows)})"
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no value"


def fraction(value: float | None) -> str:
    """The share of the real rows that a cell uses, in percent."""
    return NONE if value is None else f"{100 * value:g} %"


def name(key: Key, with_fraction: bool = False) -> str:
    """A method's name, with the fraction of real rows if it has one and ``with_fraction`` is set."""
    return f"{key.method}, {fraction(key.fraction)}" if with_fraction and key.fraction is not None else key.method


def markdown(text: str) -> str:
    """``text`` escaped for Markdown, on one line, also valid inside a table."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)


def clip(text: str, length: int = 280) -> str:
    """``text`` on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _signed(value: float, digits: int) -> str:
    rounded = float(np.round(value, digits)) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def numbers(values: Iterable[int]) -> str:
    """Whole numbers in ascending order; more than five in a row are shortened: ``0 to 99, 200``."""
    rows: list[list[int]] = []
    for value in sorted(values):
        if rows and value == rows[-1][-1] + 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    parts = (f"{row[0]} to {row[-1]}" if len(row) > 5 else ", ".join(map(str, row)) for row in rows)
    return ", ".join(parts) or NONE
