"""The figures of the page of ``harness weigh``."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import NullFormatter, NullLocator

from harness.reports.figures.style import COLORS, GREY, INK, Drawing, panels, style
from harness.weigh.candidates import BY_KEY, NULL
from harness.weigh.result import Result
from harness.weigh.suspicion import SUSPICIOUS

BLUE, ORANGE = COLORS[0], COLORS[1]


def draw(result: Result, rows: pd.DataFrame) -> list[Drawing]:
    """Learning curves, candidates, and the two views of every written row."""
    with style():
        return [_curves(result), _candidates(result), _views(rows)]


def _curves(result: Result) -> Drawing:
    figure, (ax,) = panels(1, 5.6, 3.6)
    people = list(result.curves)
    for index, (label, color, marker) in enumerate(
        ((f"with {result.written:,} written rows", ORANGE, "s"), ("human rows alone", BLUE, "o"))
    ):
        values = [100 * pair[1 - index] for pair in result.curves.values()]
        ax.plot(people, values, color=color, marker=marker, label=label)
    ax.set_xscale("log")
    ax.set_xticks(people, [str(count) for count in people])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="human rows that were trained on (log scale)", ylabel="accuracy, %")
    ax.grid(axis="y")
    ax.legend(loc="best")
    caption = (
        f"Accuracy against the number of human rows, with the written rows ({BY_KEY[result.best].title}) and without: "
        f"mean over the {result.judged} human rows that judge. The horizontal distance between the lines "
        "is how many human rows the written ones replace. The vertical axis does not start at zero."
    )
    return Drawing("curves", "Learning curves", caption, figure)


def _candidates(result: Result) -> Drawing:
    standings = sorted(result.standings, key=lambda standing: -standing.log_loss)
    figure, (ax,) = panels(1, 8.2, 0.9 + 0.3 * len(standings))
    null = next(standing for standing in standings if standing.candidate == NULL.key)
    ax.axvline(null.log_loss, color=GREY, linestyle="--", linewidth=1)
    for y, standing in enumerate(standings):
        color = GREY if standing is null else ORANGE if standing.finalist else BLUE
        ax.plot(standing.log_loss, y, "o", color=color, markersize=7)
        ax.text(
            1.02, y, f"{100 * standing.accuracy:.1f} %", transform=ax.get_yaxis_transform(), va="center", color=GREY
        )
    ax.set_yticks(range(len(standings)), [BY_KEY[standing.candidate].title for standing in standings])
    ax.set_xlabel("log loss of the true labels, smaller is better")
    ax.text(1.02, len(standings) - 0.3, "accuracy", transform=ax.get_yaxis_transform(), color=GREY, fontsize="small")
    ax.grid(axis="x")
    caption = (
        "The first round, on the two folds that choose the finalists, by the log loss at the best temperature of each. "
        "Orange: the two that went on; the dashed line is human rows alone. These two look better here than they are."
    )
    return Drawing("candidates", "Ways to train", caption, figure)


def _views(rows: pd.DataFrame) -> Drawing:
    figure, (ax,) = panels(1, 5.6, 4.2)
    rows = rows[rows["q_label"].notna()]  # copies of human rows have no views
    suspicious = rows["p_wrong"] > SUSPICIOUS
    for part, color, label, size in ((~suspicious, BLUE, "others", 9), (suspicious, ORANGE, "suspicious", 14)):
        ax.scatter(
            rows.loc[part, "q_label"], rows.loc[part, "p_label"], s=size, color=color, alpha=0.55, linewidths=0,
            label=f"{label} ({int(part.sum())})",
        )  # fmt: skip
    ax.set(xlabel="probability of its label, by models of the other written rows", xlim=(-0.02, 1.02))
    ax.set(ylabel="the same, by models of human rows", ylim=(-0.02, 1.02))
    ax.grid(color=INK, alpha=0.1)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption = (
        "Every written row by two views that have not seen it: models of human rows, and models of the other written "
        "rows. "
        + (
            "Where both doubt the label (bottom left), it is probably wrong."
            if rows["p_wrong"].notna().any()
            else "They do not predict these labels well enough to doubt any."
        )
    )
    return Drawing("rows", "Two views of every written row", caption, figure)
