"""Scores that others published, of the paper and the reference implementation, from `experiments/published/`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from visual_transformers.modes.report.groups import Group, Subject


@dataclass(frozen=True)
class PublishedScore:
    """A published score and its conditions; None if the source does not give them.

    Args:
        table: place of the score in the source.
        settings: settings of the model that the score is of.
        percent: the score.
        gmacs: multiply-adds of one image.
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
        """Source, marked as not ours."""
        return f"theirs ({self.source})"

    def matches(self, group: Group) -> bool:
        """Return True if model, data and recipe are those of the group; a group without a recipe matches any."""
        config = group.runs[0].config
        return (
            self.split == "val"
            and (self.subject, self.model) == (group.subject, group.model)
            and group.recipe in ("", self.recipe)
            and all(key in config and config[key] == yaml.safe_load(value) for key, value in self.settings)
        )

    def format_beside(self, group: Group) -> str:
        """Format the score for the row of a group, with the conditions that differ."""
        differing = [] if group.recipe else [self.recipe]
        if self.epochs and self.epochs != group.runs[0].epochs:
            differing.append(f"{self.epochs:g} epochs")
        return f"{self.percent:.2f} ({', '.join([self.source, *differing])})"


@cache
def read_all() -> tuple[PublishedScore, ...]:
    """Read all published scores, source by source."""
    folder = resources.files("visual_transformers.experiments") / "published"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name)
    rows = [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
    return tuple(map(_parse, rows))


def _parse(row: dict[str, str]) -> PublishedScore:
    settings = tuple(tuple(setting.split("=", 1)) for setting in row["settings"].split())
    texts = {name: row[name] for name in ("source", "table", "model", "recipe", "split", "note")}
    numbers = {name: float(row[name]) if row[name] else None for name in ("epochs", "gmacs", "million_parameters")}
    subject = Subject(row["task"], row["data"], float(row["classes"]), row["metric"])
    return PublishedScore(**texts, **numbers, subject=subject, settings=settings, percent=float(row["percent"]))  # type: ignore[arg-type]


def match_groups(groups: Iterable[Group]) -> list[list[PublishedScore]]:
    """Return the published scores that match each group."""
    return [[score for score in read_all() if score.matches(group)] for group in groups]


def format_rows(scores: Iterable[PublishedScore]) -> list[dict[str, str]]:
    """Format scores as a table; settings are those in which a score differs from the first of its model and recipe."""
    first: dict[tuple[str, str], PublishedScore] = {}
    for score in read_all():
        first.setdefault((score.model, score.recipe), score)
    return [
        {
            "whose": score.theirs,
            "where": score.table,
            "data": score.subject.data,
            "classes": _format(score.subject.classes),
            "model": score.model,
            "settings": " ".join(
                f"{key}={value}"
                for key, value in score.settings
                if (key, value) not in first[score.model, score.recipe].settings
            ),
            "split": {"val": "validation", "train": "training"}[score.split],
            "metric": score.subject.metric,
            "theirs, %": f"{score.percent:.2f}",
            "epochs": _format(score.epochs),
            "GMACs": _format(score.gmacs),
            "parameters, M": _format(score.million_parameters),
            "note": score.note,
        }
        for score in scores
    ]


def _format(number: float | None) -> str:
    return "" if number is None else f"{number:g}"
