"""Results of a run in W&B's formats: pictures, tables and a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from visual_transformers.runs.results import MAX_CONFUSIONS, Results, find_attention_sheets

MATRIX_CLASSES = 50
"""Most classes for which the whole confusion matrix is logged."""


def collect_pictures(folder: Path, attention: int) -> dict[str, Any]:
    """Collect the pictures in a run's folder, with up to `attention` sheets of token attention."""
    pictures: dict[str, Any] = {}
    if (samples := folder / "samples.png").is_file():
        pictures["results/samples"] = wandb.Image(str(samples))
    if sheets := find_attention_sheets(folder, attention):
        pictures["results/attention"] = [wandb.Image(str(path), caption=f"picture {path.stem}") for path in sheets]
    return pictures


def collect_tables(results: Results) -> dict[str, Any]:
    """Collect the scores of each class, the most confused classes, and the confusion matrix if it is not too large."""
    classes = _make_table([{"class": name, **row} for name, row in results.classes.items()])
    tables: dict[str, Any] = {"results/classes": classes}
    if confused := results.rank_confusions(MAX_CONFUSIONS):
        tables["results/most_confused"] = _make_table(confused)
    if len(results.classes) <= MATRIX_CLASSES:
        names, counts = list(results.classes), results.confusion.tolist()
        rows = [
            {"Actual": truth, "Predicted": prediction, "nPredictions": counts[i][j]}
            for i, truth in enumerate(names)
            for j, prediction in enumerate(names)
        ]
        tables["results/confusion_matrix"] = wandb.plot_table(
            "wandb/confusion_matrix/v1", _make_table(rows), {column: column for column in rows[0]}
        )
    return tables


def _make_table(rows: list[dict[str, Any]]) -> wandb.Table:
    return wandb.Table(columns=[*rows[0]], data=[list(row.values()) for row in rows])
