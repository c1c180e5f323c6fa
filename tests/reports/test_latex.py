"""LaTeX of tables: escaping, bold cells, balanced environments. Nothing is compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.reports import latex
from harness.reports.page import write
from harness.reports.tables import Cell, Table, table

from .conftest import Build

TOY = Table(
    "Toy_1", ("method", "a %", "gain"),
    ((Cell("ce"), Cell("81.2 ± 0.4 (3)"), Cell("–")), (Cell("imp"), Cell("83.0 ± – (1)", bold=True), Cell("−1.50"))),
    1, "Means & spreads.",
)  # fmt: skip


def test_a_table_word_by_word() -> None:
    assert latex.environment(TOY, "Accuracy", "tab:toy") == "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            r"\caption{Accuracy. Means \& spreads.}",
            r"\label{tab:toy}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"method & a \% & gain \\",
            r"\midrule",
            r"ce & 81.2 $\pm$ 0.4 (3) & -- \\",
            r"imp & \textbf{83.0 $\pm$ -- (1)} & $-$1.50 \\",
            r"\bottomrule",
            r"\end{tabular}%",
            "}",
            r"\end{table}",
            "",
        ]
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & 50 % of {x} #1", r"a\_b \& 50 \% of \{x\} \#1"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("$x^2$ ~", r"\$x\textasciicircum{}2\$ \textasciitilde{}"),
        ("[2pt] *", "{[}2pt{]} {*}"),  # otherwise arguments of the \\ before them
        ("<0.001 1.40× −0.4", r"$<$0.001 1.40$\times$ $-$0.4"),
        ("two\nlines\tand\x07 a bell", "two lines and a bell"),
        ("größe 日本", "größe 日本"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert latex.escape(text) == escaped


def test_labels_are_unique_and_captions_name_the_section() -> None:
    tex = latex.document("my exp", [("Accuracy", [TOY, TOY]), ("Toy_1", [TOY])])
    assert re.findall(r"\\label\{(.*)\}", tex) == [
        "tab:my-exp-accuracy-toy-1", "tab:my-exp-accuracy-toy-1-2", "tab:my-exp-toy-1",
    ]  # fmt: skip
    captions = [line for line in tex.splitlines() if line.startswith(r"\caption")]
    assert captions[0] == r"\caption{Accuracy: Toy\_1. Means \& spreads.}"
    assert captions[2] == r"\caption{Toy\_1. Means \& spreads.}"


def test_long_texts_are_paragraphs() -> None:
    tex = latex.environment(table("T", ["text", "n"], [["word " * 30, "1"]], 1), "T", "tab:t")
    assert r"\begin{tabular}{p{0.5\linewidth}r}" in tex


def unescaped(pattern: str, line: str) -> int:
    return len(re.findall(rf"(?<!\\){pattern}", line))


def test_the_tables_of_a_report_are_balanced(build: Build, tmp_path: Path) -> None:
    """Environments, braces and math are closed; every row has as many cells as the header says."""
    results = build(seeds=(0, 1), rows=30)
    evil = results.weights.assign(text=r"100 % & \evil{ $ # _ [x] " * 5)
    write(type(results)(results.trials, results.epochs, evil, results.meta), tmp_path)
    tex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    blocks = tex.split(r"\begin{table}")[1:]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert len(blocks) == len(re.findall(r"^\| -{3}", report, re.MULTILINE)) > 5, "a table for each of the report"
    for block in blocks:
        for name in ("tabular", "table"):
            assert block.count(rf"\end{{{name}}}") == 1
        assert block.count(r"\begin{tabular}") == block.count(r"\caption{") == block.count(r"\label{") == 1
        assert unescaped(r"\{", block) == unescaped(r"\}", block)
        alignment = re.search(r"\\begin\{tabular\}\{(.*)\}$", block, re.MULTILINE)
        assert alignment
        columns = len(re.sub(r"p\{[^}]*\}", "p", alignment[1]))
        rows = [line for line in block.splitlines() if line.endswith(r" \\")]
        assert len(rows) >= 2
        for row in rows:
            assert unescaped("&", row) == columns - 1
            assert unescaped(r"\$", row) % 2 == 0
            assert unescaped("[#_]", row) == 0
