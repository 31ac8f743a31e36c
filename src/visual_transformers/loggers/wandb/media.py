"""The results of a run as W&B shows them: pictures, tables, a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from visual_transformers.runs.results import MOST_CONFUSED, Results, attention_sheets

MATRIX_CLASSES = 50
"""Classes, at most, of a confusion matrix that is shown whole."""


def pictures(folder: Path, attention: int) -> dict[str, Any]:
    """Those in a run's folder by name, of attention not more than so many."""
    found: dict[str, Any] = {}
    if (samples := folder / "samples.png").is_file():
        found["results/samples"] = wandb.Image(str(samples))
    if sheets := attention_sheets(folder, attention):
        found["results/attention"] = [wandb.Image(str(path), caption=f"picture {path.stem}") for path in sheets]
    return found


def tables(results: Results) -> dict[str, Any]:
    """Scores of each class, what classes are taken for, and a matrix of that where it is not too large."""
    found: dict[str, Any] = {"results/classes": _table([{"class": c, **row} for c, row in results.classes.items()])}
    if confused := results.most_confused(MOST_CONFUSED):
        found["results/most_confused"] = _table(confused)
    if len(results.classes) <= MATRIX_CLASSES:
        found["results/confusion_matrix"] = _matrix(results)
    return found


def _table(rows: list[dict[str, Any]]) -> wandb.Table:
    return wandb.Table(columns=[*rows[0]], data=[list(row.values()) for row in rows])


def _matrix(results: Results) -> Any:
    """W&B's chart of a confusion matrix, whose table has a row for each pair of classes."""
    names, counts = list(results.classes), results.confusion.tolist()
    rows = [
        {"Actual": truth, "Predicted": prediction, "nPredictions": counts[i][j]}
        for i, truth in enumerate(names)
        for j, prediction in enumerate(names)
    ]
    return wandb.plot_table("wandb/confusion_matrix/v1", _table(rows), {column: column for column in rows[0]})
