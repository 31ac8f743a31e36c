"""Figures that others published: the paper's and the reference implementation's, from `experiments/published/`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from visual_transformers.config.schema import Node
from visual_transformers.modes.report.groups import Group, Subject


@dataclass(frozen=True)
class Figure:
    """One published score and what belongs to it; None where its source says nothing of that.

    `settings` are those of the model that must be so for the figure to be of it; `percent` is the score, `gmacs` are
    those of an image, and `table` tells where in the source it stands.
    """

    source: str
    table: str
    subject: Subject
    model: str
    recipe: str
    settings: tuple[tuple[str, str], ...]
    epochs: float | None
    split: str
    percent: float
    gmacs: float | None
    million_parameters: float | None
    note: str

    @property
    def theirs(self) -> str:
        """Whose it is, as it is marked wherever it stands."""
        return f"theirs ({self.source})"

    def is_of(self, group: Group) -> bool:
        """Whether it is of the model, the data and the recipe of these runs; those without a recipe fit with any."""
        return (
            self.split == "val"
            and (self.subject, self.model) == (group.subject, group.model)
            and group.recipe in ("", self.recipe)
            and all(holds(group.runs[0].config, key, value) for key, value in self.settings)
        )

    def beside(self, group: Group) -> str:
        """The score as it stands beside runs that it is of, with what it has not in common with them."""
        differs = [] if group.recipe else [self.recipe]
        if self.epochs and self.epochs != group.runs[0].epochs:
            differs.append(f"{self.epochs:g} epochs")
        return f"{self.percent:.2f} ({', '.join([self.source, *differs])})"


def holds(config: Node, key: str, value: str) -> bool:
    """Whether a setting has a value, which is given as on a command line."""
    return key in config and config[key] == yaml.safe_load(value)


@cache
def figures() -> tuple[Figure, ...]:
    """All published figures, source by source."""
    folder = resources.files("visual_transformers.experiments") / "published"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name)
    rows = [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
    return tuple(map(_figure, rows))


def _figure(row: dict[str, str]) -> Figure:
    settings = tuple(tuple(setting.split("=", 1)) for setting in row["settings"].split())
    words = {name: row[name] for name in ("source", "table", "model", "recipe", "split", "note")}
    numbers = {name: float(row[name]) if row[name] else None for name in ("epochs", "gmacs", "million_parameters")}
    subject = Subject(row["task"], row["data"], float(row["classes"]), row["metric"])
    return Figure(**words, **numbers, subject=subject, settings=settings, percent=float(row["percent"]))  # type: ignore[arg-type]


def matched(groups: Iterable[Group]) -> list[list[Figure]]:
    """The figures that are of each group."""
    return [[figure for figure in figures() if figure.is_of(group)] for group in groups]


def rows(published: Iterable[Figure]) -> list[dict[str, str]]:
    """Figures as a table."""
    return [
        {
            "whose": figure.theirs,
            "where": figure.table,
            "data": figure.subject.data,
            "classes": _said(figure.subject.classes),
            "model": figure.model,
            "settings": _changed(figure),
            "split": {"val": "validation", "train": "training"}[figure.split],
            "metric": figure.subject.metric,
            "theirs, %": f"{figure.percent:.2f}",
            "epochs": _said(figure.epochs),
            "GMACs": _said(figure.gmacs),
            "parameters, M": _said(figure.million_parameters),
            "note": figure.note,
        }
        for figure in published
    ]


def _changed(figure: Figure) -> str:
    """The settings in which it differs from the first figure of its model and recipe."""
    first = next(f for f in figures() if (f.model, f.recipe) == (figure.model, figure.recipe))
    return " ".join(f"{key}={value}" for key, value in figure.settings if (key, value) not in first.settings)


def _said(number: float | None) -> str:
    return "" if number is None else f"{number:g}"
