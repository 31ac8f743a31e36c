"""Runs as rows of tables: exact for CSV, and rounded with units for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from visual_transformers.modes.report.groups import Group
from visual_transformers.modes.report.published import Figure
from visual_transformers.modes.report.run import Run
from visual_transformers.tables import scaled

Row = dict[str, Any]


def of_group(group: Group, theirs: list[Figure]) -> Row:
    """One row of report.csv: scores as fractions, MACs of one image, parameters as counts; None where nothing is known.

    The best epoch, the pace and the scores are means over the finished runs; the pace is over all where none is.
    """
    subject, score = group.subject, group.score
    best_epoch = group.over_seeds(lambda run: run.best.epoch if run.best else None)
    test = group.over_seeds(lambda run: run.test_score)
    pace = group.over_seeds(_pace) or group.over_seeds(_pace, finished=False)
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
        "theirs_percent": "; ".join(dict.fromkeys(figure.beside(group) for figure in theirs)),
        "test_mean": test and test.mean,
        "test_std": test and test.std,
        "best_epoch": best_epoch and best_epoch.mean,
        "epochs": group.runs[0].epochs,
        "parameters": group.fact("parameters"),
        "macs": group.fact("macs"),
        "images_per_second": pace and pace.mean,
        "state": states(group),
    }


def _pace(run: Run) -> float | None:
    return run.images_per_second


def states(group: Group) -> str:
    """How many of its runs are in which state; of a run that is not finished the best so far."""
    counts = ", ".join(f"{count} {state}" for state, count in group.states.items())
    return counts if group.score or group.rank < 0 else f"{counts} (best so far {100 * group.rank:.2f})"


def shown(groups: list[Group], theirs: list[list[Figure]]) -> list[dict[str, str]]:
    """The table of the report; columns that would be empty are left out."""
    return with_something([_shown(group, figures) for group, figures in zip(groups, theirs, strict=True)])


def _shown(group: Group, figures: list[Figure]) -> dict[str, str]:
    row = of_group(group, figures)
    return {
        "data": row["data"],
        "classes": scaled(row["classes"], 1),
        **{name: row[name] for name in ("model", "recipe", "settings", "metric")},
        "validation, %": percent(row["mean"], row["std"]),
        "seeds": str(row["seeds"]),
        "theirs, %": row["theirs_percent"],
        "test, %": percent(row["test_mean"], row["test_std"]),
        "best epoch": of_many(row["best_epoch"], row["epochs"]),
        "parameters, M": scaled(row["parameters"], 1e-6),
        "GMACs": scaled(row["macs"], 1e-9),
        "images/s": scaled(row["images_per_second"], 1),
        "state": row["state"],
    }


def of_runs(runs: Iterable[Run]) -> list[dict[str, str]]:
    """Every run, one a row."""
    return with_something(
        [
            {
                "run": str(run.folder),
                "model": run.text("model"),
                "data": run.text("data"),
                "recipe": run.text("recipe"),
                "seed": scaled(run.number("seed"), 1),
                "state": run.state,
                "metric": run.metric,
                "validation, %": percent(run.best.score if run.best else None, None),
                "epoch": of_many(run.best.epoch if run.best else None, run.epochs),
                "images/s": scaled(_pace(run), 1),
                "on": " ".join(filter(None, (run.text("device"), run.text("precision")))),
                "since": run.at[:19].replace("T", " "),
            }
            for run in runs
        ]
    )


def with_something(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows without the columns in which none has anything."""
    used = {name for row in rows for name, text in row.items() if text}
    return [{name: text for name, text in row.items() if name in used} for row in rows]


def percent(mean: float | None, std: float | None) -> str:
    """A fraction, and its spread if there is one."""
    return "" if mean is None else f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def of_many(epoch: float | None, epochs: float | None) -> str:
    """An epoch, and how many there are to be."""
    return "" if epoch is None else f"{epoch:.4g}" + ("" if epochs is None else f" of {epochs:.4g}")
