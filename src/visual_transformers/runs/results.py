"""What a model scored on a data set: as a table to read, as files, and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from visual_transformers import atomic, json_text
from visual_transformers.plotting import run_plots
from visual_transformers.tasks.metrics import ClassTable
from visual_transformers.tables import csv_text, print_table

MAX_CLASSES_PRINTED = 30
MOST_CONFUSED = 100
"""Pairs of classes, at most, in a logger's table of those that are confused most often."""


@dataclass
class Picture:
    """One uint8 image (3, H, W), as the model sees it, with target and prediction: class indices or masks."""

    image: Tensor
    target: Tensor
    prediction: Tensor


@dataclass
class Results:
    """Scores of a whole data set, of its classes, and some pictures."""

    scores: dict[str, float]
    classes: ClassTable
    confusion: Tensor
    """How often each class (rows) was taken for each (columns): (classes, classes)."""
    pictures: list[Picture]
    skipped: int = 0
    """Samples that could not be read."""

    def write(self, directory: Path, about: dict[str, Any]) -> None:
        """Leave summary.json (`about` and the scores), classes.csv and samples.png."""
        summary = json_text.dumps(about | {"scores": self.scores, "skipped_samples": self.skipped}, indent=2)
        atomic.write_text(directory / "summary.json", summary + "\n")
        rows = [{"class": name, **row} for name, row in self.classes.items()]
        atomic.write_text(directory / "classes.csv", csv_text(rows))
        if self.pictures:
            self._draw(directory / "samples.png")

    def most_confused(self, limit: int) -> list[dict[str, Any]]:
        """Rows of a class, another that it was taken for, how often, and in what share; the most frequent first.

        Args:
            limit: rows, at most: of a thousand classes there are a million pairs.
        """
        names, totals = list(self.classes), self.confusion.sum(dim=1).tolist()
        mistakes = self.confusion.clone().fill_diagonal_(0).flatten()
        counts, places = mistakes.topk(min(limit, len(mistakes)))
        pairs = [divmod(place, len(names)) for place in places.tolist()]
        return [
            {"truth": names[i], "prediction": names[j], "count": int(count), "share": count / totals[i]}
            for count, (i, j) in zip(counts.tolist(), pairs, strict=True)
            if count
        ]

    def print(self, title: str, directory: Path) -> None:
        """Print the scores, those of each class where they fit a screen, and where everything was left."""
        print_table(title, [{"score": name, "value": f"{value:.4f}"} for name, value in self.scores.items()])
        if len(self.classes) <= MAX_CLASSES_PRINTED:
            rows = [
                {"class": name, **{score: f"{value:.4f}" for score, value in row.items()}}
                for name, row in self.classes.items()
            ]
            print_table("", rows)
        print(f"left in {directory}: {', '.join(sorted(p.name for p in directory.iterdir() if p.name[0] != '.'))}")

    def _draw(self, path: Path) -> None:
        images = [p.image.permute(1, 2, 0).numpy() for p in self.pictures]
        targets, predictions = ([getattr(p, name).numpy() for p in self.pictures] for name in ("target", "prediction"))
        draw = run_plots.classified if targets[0].ndim == 0 else run_plots.segmented
        draw(path, images, targets, predictions, list(self.classes))


def attention_sheets(folder: Path, limit: int) -> list[Path]:
    """The first sheets in a run's folder that show where visual tokens look; see `evaluation.draw_attention`."""
    return sorted((folder / "attention").glob("*.png"), key=lambda path: int(path.stem))[:limit]
