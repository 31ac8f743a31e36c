"""Rows of tables: exact for CSV, rounded with units for readers."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from visual_transformers.modes.report.groups import Group
from visual_transformers.modes.report.published import PublishedScore
from visual_transformers.modes.report.run import Run
from visual_transformers.tables import format_number

Row = dict[str, Any]


def make_group_row(group: Group, published: list[PublishedScore]) -> Row:
    """Return a row of report.csv: scores as fractions, MACs of one image, parameters as a count; None if unknown.

    Scores, best epoch and throughput are means over the finished runs; the throughput over all if none has finished.
    """
    subject, score = group.subject, group.score
    best_epoch = group.estimate(lambda run: run.best.epoch if run.best else None)
    test = group.estimate(lambda run: run.test_score)
    read_speed = attrgetter("images_per_second")
    speed = group.estimate(read_speed) or group.estimate(read_speed, only_finished=False)
    states = ", ".join(f"{count} {state}" for state, count in group.states.items())
    if not group.score and group.best_score >= 0:
        states += f" (best so far {100 * group.best_score:.2f})"
    return {
        "task": subject.task,
        "data": subject.data,
        "classes": subject.classes,
        "model": group.model,
        "recipe": group.recipe,
        "settings": group.settings,
        "metric": subject.metric,
        "mean": score and score.mean,
        "std": score and score.std,
        "seeds": len([run for run in group.finished if run.best]),
        "theirs_percent": "; ".join(dict.fromkeys(other.format_beside(group) for other in published)),
        "test_mean": test and test.mean,
        "test_std": test and test.std,
        "best_epoch": best_epoch and best_epoch.mean,
        "epochs": group.runs[0].epochs,
        "parameters": group.get_number("parameters"),
        "macs": group.get_number("macs"),
        "images_per_second": speed and speed.mean,
        "state": states,
    }


def format_groups(groups: list[Group], published: list[list[PublishedScore]]) -> list[dict[str, str]]:
    """Format the main table of the report, without empty columns."""
    rows = [make_group_row(group, scores) for group, scores in zip(groups, published, strict=True)]
    return drop_empty_columns(
        {
            "data": row["data"],
            "classes": format_number(row["classes"], 1),
            **{name: row[name] for name in ("model", "recipe", "settings", "metric")},
            "validation, %": format_percent(row["mean"], row["std"]),
            "seeds": str(row["seeds"]),
            "theirs, %": row["theirs_percent"],
            "test, %": format_percent(row["test_mean"], row["test_std"]),
            "best epoch": format_epoch(row["best_epoch"], row["epochs"]),
            "parameters, M": format_number(row["parameters"], 1e-6),
            "GMACs": format_number(row["macs"], 1e-9),
            "images/s": format_number(row["images_per_second"], 1),
            "state": row["state"],
        }
        for row in rows
    )


def format_runs(runs: Iterable[Run]) -> list[dict[str, str]]:
    """Format a table with a row per run, without empty columns."""
    return drop_empty_columns(
        {
            "run": str(run.folder),
            "model": run.get_text("model"),
            "data": run.get_text("data"),
            "recipe": run.get_text("recipe"),
            "seed": format_number(run.get_number("seed"), 1),
            "state": run.state,
            "metric": run.metric,
            "validation, %": format_percent(run.best.score if run.best else None, None),
            "epoch": format_epoch(run.best.epoch if run.best else None, run.epochs),
            "images/s": format_number(run.images_per_second, 1),
            "on": " ".join(filter(None, (run.get_text("device"), run.get_text("precision")))),
            "since": run.at[:19].replace("T", " "),
        }
        for run in runs
    )


def drop_empty_columns(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Drop the columns that are empty in all rows."""
    rows = list(rows)
    used = {name for row in rows for name, text in row.items() if text}
    return [{name: text for name, text in row.items() if name in used} for row in rows]


def format_percent(mean: float | None, std: float | None) -> str:
    """Format a fraction and its standard deviation, if any, in percent."""
    return "" if mean is None else f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def format_epoch(epoch: float | None, epochs: float | None) -> str:
    """Format an epoch and the planned number of epochs."""
    return "" if epoch is None else f"{epoch:.4g}" + ("" if epochs is None else f" of {epochs:.4g}")
