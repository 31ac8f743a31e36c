"""Tables of text or numbers: printed, as CSV, as Markdown, or for LaTeX. A row may lack columns that others have."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

MAX_LINE_WIDTH = 10_000
"""Maximum characters in a line that is printed to a file."""
_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?( ?[±(].*| of .*)?")
"""A number with an optional spread, source or total, e.g. 71.5 ± 0.2, 72.0 (paper), 12 of 15."""
_LATEX_ESCAPES = {character: rf"\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # directly after a line break, [ would begin an optional argument of it
    "*": "{*}",
    "±": r"$\pm$",
}


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Format rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: list[dict[str, str]]) -> str:
    """Format rows as a Markdown table."""
    header, *body = _cells(rows)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(map(_escape_markdown, line))} |\n" for line in lines)


def _escape_markdown(text: str) -> str:
    return " ".join(text.replace("|", r"\|").replace("<", "&lt;").split())


def to_latex(rows: list[dict[str, str]]) -> str:
    """Format rows as a LaTeX tabular, which needs the package booktabs; columns of numbers are right-aligned."""
    header, *body = (" & ".join(map(_escape_latex, line)) + r" \\" for line in _cells(rows))
    alignment = "".join("r" if _is_numeric(rows, name) else "l" for name in _columns(rows))
    top, bottom = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"], [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([*top, header, r"\midrule", *body, *bottom])


def _is_numeric(rows: list[dict[str, str]], name: str) -> bool:
    return all(_NUMBER.fullmatch(text) for row in rows if (text := row.get(name, "")))


def _escape_latex(text: str) -> str:
    return " ".join("".join(_LATEX_ESCAPES.get(character, character) for character in text).split())


def format_number(number: float | None, scale: float) -> str:
    """Format `number * scale` with four significant digits; return "" for None."""
    value = None if number is None else number * scale
    return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def print_table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows as a table."""
    header, *body = _cells(rows)
    table = Table(*(Column(name, overflow="fold") for name in header), title=title or None, title_justify="left")
    for line in body:
        table.add_row(*line)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:  # a file has no width, so take the one that the table needs
        widest = console.options.update(width=MAX_LINE_WIDTH)
        console.width = max(console.width, Measurement.get(console, widest, table).maximum)
    console.print(table)


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cells(rows: list[dict[str, str]]) -> list[list[str]]:
    """The header and the lines of a table, with "" for missing cells."""
    columns = _columns(rows)
    return [columns, *([row.get(name, "") for name in columns] for row in rows)]
