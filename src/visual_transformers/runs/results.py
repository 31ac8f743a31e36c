"""Results of scoring a data set: a table on the console, files and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from visual_transformers import atomic, json_text
from visual_transformers.plotting import run_plots
from visual_transformers.runs.run_dir import print_contents
from visual_transformers.tables import print_table, to_csv
from visual_transformers.tasks.metrics import ClassTable

MAX_CLASSES_PRINTED = 30
MAX_CONFUSIONS = 100
"""Most rows in a logger's table of confused classes."""


@dataclass
class Picture:
    """One uint8 image (3, H, W) as the model sees it, with target and prediction: class indices or masks."""

    image: Tensor
    target: Tensor
    prediction: Tensor


@dataclass
class Results:
    """Scores of a data set and of its classes, with some pictures."""

    scores: dict[str, float]
    classes: ClassTable
    confusion: Tensor
    """Confusion matrix (classes, classes): targets in rows, predictions in columns."""
    pictures: list[Picture]
    skipped: int = 0
    """Number of unreadable samples."""

    def write(self, directory: Path, metadata: dict[str, Any]) -> None:
        """Write summary.json (`metadata` and the scores), classes.csv and samples.png."""
        summary = json_text.dumps(metadata | {"scores": self.scores, "skipped_samples": self.skipped}, indent=2)
        atomic.write_text(directory / "summary.json", summary + "\n")
        rows = [{"class": name, **row} for name, row in self.classes.items()]
        atomic.write_text(directory / "classes.csv", to_csv(rows))
        if self.pictures:
            self._draw(directory / "samples.png")

    def rank_confusions(self, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` pairs of confused classes, the most frequent first, with count and share of the target.

        A limit is needed because 1000 classes make a million pairs.
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

    def format_class_rows(self) -> list[dict[str, str]]:
        """Return a table row of text for each class."""
        return [
            {"class": name, **{score: f"{value:.4f}" for score, value in row.items()}}
            for name, row in self.classes.items()
        ]

    def print(self, title: str, directory: Path) -> None:
        """Print the scores, those of each class if they fit on a screen, and the files in `directory`."""
        print_table(title, [{"score": name, "value": f"{value:.4f}"} for name, value in self.scores.items()])
        if len(self.classes) <= MAX_CLASSES_PRINTED:
            print_table("", self.format_class_rows())
        print_contents(directory)

    def _draw(self, path: Path) -> None:
        images = [p.image.permute(1, 2, 0).numpy() for p in self.pictures]
        targets, predictions = ([getattr(p, name).numpy() for p in self.pictures] for name in ("target", "prediction"))
        draw = run_plots.plot_classification if targets[0].ndim == 0 else run_plots.plot_segmentation
        draw(path, images, targets, predictions, list(self.classes))


def find_attention_sheets(folder: Path, limit: int) -> list[Path]:
    """Return the first token-attention sheets in a run's folder, by the number of their picture."""
    return sorted((folder / "attention").glob("*.png"), key=lambda path: int(path.stem))[:limit]
