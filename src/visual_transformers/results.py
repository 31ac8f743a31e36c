"""What a model scored on a data set: as a table to read, as files, and as pictures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from visual_transformers import atomic, plots
from visual_transformers.data.transforms import denormalise
from visual_transformers.metrics import ClassTable

MAX_CLASSES_PRINTED = 30


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print rows of text below the names of their columns."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True, highlight=False).print(table)


@dataclass
class Picture:
    """One image (3, H, W), as the model sees it, with its target and prediction: class indices or masks of them."""

    image: Tensor
    target: Tensor
    prediction: Tensor


@dataclass
class Results:
    """Scores of a whole data set, of its classes, and some pictures."""

    scores: dict[str, float]
    classes: ClassTable
    pictures: list[Picture]

    def write(self, directory: Path, about: dict[str, Any]) -> None:
        """Leave summary.json (`about` and the scores), classes.csv and samples.png."""
        summary = json.dumps(about | {"scores": self.scores}, indent=2)
        atomic.write_text(directory / "summary.json", summary + "\n")
        rows = [{"class": name, **row} for name, row in self.classes.items()]
        atomic.write_text(directory / "classes.csv", csv_text(rows))
        if self.pictures:
            self._draw(directory / "samples.png")

    def print(self, title: str, directory: Path) -> None:
        """Print the scores, those of each class where they fit a screen, and where everything was left."""
        console = Console(soft_wrap=True, highlight=False)
        table = Table("score", "value", title=title, title_justify="left")
        for name, value in self.scores.items():
            table.add_row(name, f"{value:.4f}")
        console.print(table)
        if len(self.classes) <= MAX_CLASSES_PRINTED:
            table = Table("class", *self._columns)
            for name, row in self.classes.items():
                table.add_row(name, *(f"{value:.4f}" for value in row.values()))
            console.print(table)
        console.print(
            f"left in {directory}: {', '.join(sorted(p.name for p in directory.iterdir() if p.name[0] != '.'))}"
        )

    @property
    def _columns(self) -> list[str]:
        return list(next(iter(self.classes.values())))

    def _draw(self, path: Path) -> None:
        images = [denormalise(p.image).permute(1, 2, 0).numpy() for p in self.pictures]
        targets, predictions = ([getattr(p, name).numpy() for p in self.pictures] for name in ("target", "prediction"))
        draw = plots.classified if targets[0].ndim == 0 else plots.segmented
        draw(path, images, targets, predictions, list(self.classes))


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
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in columns))
    Console(soft_wrap=True, highlight=False).print(table)


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
