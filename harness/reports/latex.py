"""The tables of a report in LaTeX: booktabs, one ``table`` environment each."""

from __future__ import annotations

from collections.abc import Iterable

from harness.reports.tables import Cell, Table

#: Columns whose longest text has more characters than this are set as paragraphs.
LONG = 50
PREAMBLE = r"""% Needs \usepackage{booktabs,graphicx}. Texts of data rows may hold any character: compile with
% lualatex or xelatex and a font that has them.
"""
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$", "|": r"\textbar{}",
    # after the \\ of a row, a star or a bracket would be read as its argument
    "[": "{[}", "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--", "—": "---", "…": r"\dots{}", "≥": r"$\geq$", "≤": r"$\leq$",
    "≈": r"$\approx$", "→": r"$\to$", "·": r"$\cdot$", "Σ": r"$\Sigma$", "²": "$^2$", "‖": r"$\|$", "′": "$'$",
    "α": r"$\alpha$", "γ": r"$\gamma$", "θ": r"$\theta$", "°": r"$^\circ$",
}  # fmt: skip


def document(name: str, sections: Iterable[tuple[str, Iterable[Table]]]) -> str:
    """All tables, to be read with LaTeX's input command.

    Args:
        name: of the experiment; labels are ``tab:<name>-<title>``.
        sections: title and tables of every section of the report.
    """
    parts = [PREAMBLE]
    labels: set[str] = set()
    for title, tables in sections:
        for table in tables:
            caption = title if table.title == title else f"{title}: {table.title}"
            slug = first = f"{_slug(name)}-{_slug(caption)}"
            number = 1
            while slug in labels:
                number += 1
                slug = f"{first}-{number}"
            labels.add(slug)
            parts.append(environment(table, caption, f"tab:{slug}"))
    return "\n".join(parts)


def environment(table: Table, caption: str, label: str) -> str:
    """A table as a ``table`` environment, scaled down to the width of the line if it is wider."""
    note = f" {escape(table.note)}" if table.note else ""
    rows = [" & ".join(map(_cell, row)) + r" \\" for row in table.rows]
    tabular = [
        rf"\begin{{tabular}}{{{''.join(_alignment(table, i) for i in range(len(table.columns)))}}}",
        r"\toprule",
        " & ".join(map(escape, table.columns)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}%",
    ]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape(caption)}.{note}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *tabular,
        "}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, with every special character escaped and mathematical ones as math."""
    line = " ".join(text.split())
    return "".join(_SPECIAL.get(character, character) for character in line if character.isprintable())


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text)


def _alignment(table: Table, column: int) -> str:
    if any(len(row[column].text) > LONG for row in table.rows):
        return r"p{0.5\linewidth}"
    return "l" if column < table.words else "r"


def _slug(text: str) -> str:
    words = "".join(c.lower() if c.isascii() and c.isalnum() else " " for c in text).split()
    return "-".join(words) or "table"
