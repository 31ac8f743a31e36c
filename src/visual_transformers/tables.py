"""Rows of text or numbers as a table: printed, as CSV, or as Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any

from rich.console import Console
from rich.table import Table


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
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def print_table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows as a table; a row may lack columns that others have."""
    columns = _columns(rows)
    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in columns))
    Console(soft_wrap=True, highlight=False).print(table)


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
