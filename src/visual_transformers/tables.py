"""Rows of text or numbers as a table: printed, as CSV, as Markdown, or for LaTeX."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV with a header; a row may lack columns that others have."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_table(rows: list[dict[str, str]]) -> str:
    """Rows as a Markdown table; a row may lack columns that others have."""
    columns = _columns(rows)
    lines = [columns, ["---"] * len(columns), *([row.get(name, "") for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(map(_in_markdown, line))} |\n" for line in lines)


def _in_markdown(text: str) -> str:
    """A cell's text, in one line and without what would end the cell or begin HTML."""
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())


def latex_table(rows: list[dict[str, str]]) -> str:
    """Rows as a LaTeX tabular, which needs the package booktabs; a row may lack columns that others have."""
    columns = _columns(rows)
    aligned = "".join("r" if _is_numeric(rows, name) else "l" for name in columns)
    lines = [columns, *([row.get(name, "") for name in columns] for row in rows)]
    head, *body = (" & ".join(map(_in_latex, line)) + r" \\" for line in lines)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _is_numeric(rows: list[dict[str, str]], name: str) -> bool:
    return all(NUMBER.fullmatch(text) for row in rows if (text := row.get(name, "")))


NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?( ?[±(].*| of .*)?")
"""A number, with its spread, its source or its range, as in 71.5 ± 0.2, 72.0 (paper), 12 of 15."""


def _in_latex(text: str) -> str:
    """A cell's text with whatever TeX would read as a command escaped."""
    return " ".join("".join(LATEX.get(character, character) for character in text).split())


LATEX = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # which would be an argument of the line break before it
    "*": "{*}",
    "±": r"$\pm$",
}


def scaled(number: float | None, scale: float) -> str:
    """A number in its heading's unit, to four digits; nothing of None."""
    value = None if number is None else number * scale
    return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def print_table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows as a table; a row may lack columns that others have."""
    columns = _columns(rows)
    headings = (Column(name, overflow="fold") for name in columns)
    table = Table(*headings, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in columns))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:  # which has no width
        console.width = max(
            console.width, Measurement.get(console, console.options.update(width=WIDEST), table).maximum
        )
    console.print(table)


WIDEST = 10_000
"""Characters in a line, at most, of what is printed to a file."""


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
