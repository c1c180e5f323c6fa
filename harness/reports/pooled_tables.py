"""Tables over all benchmarks of an experiment."""

from __future__ import annotations

from harness.metrics import PRIMARY
from harness.reports import formatting
from harness.reports.pooling import epoch_choices, pooled
from harness.reports.results import Results
from harness.reports.tables import NAMES, ROWS_UNKNOWN, Table, interval_text, names, table


def pooled_gains(results: Results) -> Table:
    """Gain of every method over CE on all benchmarks together, by source."""
    comparisons = pooled(results)
    rows = []
    for row in comparisons:
        gain, smallest = row.gain, formatting.p_value(row.smallest_p, 4)
        probability, interval = row.improvement
        rows.append(
            [
                *names(row.key),
                str(len(row.benchmarks)),
                formatting.percent(row.mean),
                formatting.number(row.rank),
                str(row.pairs) if row.pairs else formatting.NONE,
                formatting.points(gain.mean),
                interval_text(gain.interval, row.rows_known),
                formatting.number(probability),
                formatting.number_interval(interval),
                formatting.p_value(row.p),
                smallest,
                formatting.points(gain.detectable).removeprefix("+"),
            ]
        )
    columns = [
        "benchmarks", f"mean {PRIMARY.title}", "average rank", "pairs", "mean gain", "95 % (seeds and rows)",
        "P(better than CE)", "95 % (bootstrap)", "p (Holm)", "smallest p", "detectable",
    ]  # fmt: skip
    note = (
        f"Test {PRIMARY.title} over the benchmarks on which CE and all listed methods are complete; benchmarks count "
        "alike. Gains are in percentage points, paired by seed. Average rank: 1 is the best of the listed methods. "
        "P(better than CE): the probability that a trial of the method beats one of CE on the same benchmark, ties "
        "half; its bootstrap interval resamples seeds within each benchmark, and test rows, and is too narrow with "
        "three seeds. p: permutation test over seeds, on these test rows (the sign of every paired difference is "
        "random if the method has no effect), corrected over this whole table. Smallest p: the lowest that the test "
        "could give with these pairs, before correction. In a single cell it would be 0.25 for three pairs and 0.063 "
        "for five, so cells have the p of a t test. The interval takes the benchmarks as given, the test does not: "
        "where a method gains on one benchmark and loses on another, p is large although the mean is well known. "
        "Detectable: the true gain that these seeds and test rows would detect with 80 % power. With several shares of "
        "real rows, the largest is used."
    ) + ROWS_UNKNOWN * any(not row.rows_known for row in comparisons)
    return table("Pooled over benchmarks", [*NAMES, *columns], rows, len(NAMES), note)


def epoch_choice(results: Results) -> Table:
    """Test scores at the last evaluation and at the one with the best validation accuracy."""
    rows = [
        [
            *names(choice.key),
            str(choice.n),
            formatting.percent(choice.last),
            formatting.percent(choice.best),
            formatting.points(choice.gain.mean),
            formatting.point_interval(choice.gain.interval),
        ]
        for choice in epoch_choices(results)
    ]
    columns = ["n", "last %", "best on validation %", "gain", "95 % (t)"]
    note = (
        f"Mean test {PRIMARY.title} at the last evaluation and at the one with the best validation accuracy (the first "
        "of equals), and the paired difference in percentage points, over all benchmarks and seeds; benchmarks count "
        "alike. The interval is over seeds. A dash: fewer than two seeds on a benchmark, or the same evaluation in all "
        "trials."
    )
    return table("Choice of epoch", [*NAMES, *columns], rows, len(NAMES), note)
