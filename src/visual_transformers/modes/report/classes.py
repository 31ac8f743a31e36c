"""Class-by-class comparison of two models: differences of mean scores over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from visual_transformers.errors import ConfigError, suggest
from visual_transformers.modes.report.groups import Estimate, Group, Subject, split_by_subject
from visual_transformers.modes.report.run import Run

FILE = "classes.csv"
SCORES = ("IoU", "recall")
"""Columns of the score of a class in that file: of a segmenter, and of a classifier."""


class Difference(NamedTuple):
    """Scores of a class with two models, as fractions."""

    name: str
    first: Estimate
    second: Estimate

    @property
    def gain(self) -> float:
        """Score of the second model minus that of the first."""
        return self.second.mean - self.first.mean

    @property
    def std(self) -> float | None:
        """Standard deviation of the gain; None unless both models have several seeds."""
        first, second = self.first.std, self.second.std
        return None if first is None or second is None else float(np.hypot(first, second))


class Comparison(NamedTuple):
    """Two groups of the same subject, and the differences of their classes, the largest gain first."""

    subject: Subject
    first: Group
    second: Group
    score: str
    classes: list[Difference]


def compare_classes(groups: list[Group], models: list[str] | None) -> list[Comparison]:
    """Compare two models on each subject that has both; None takes the two with the most finished seeds.

    Raises:
        ConfigError: if a named model has no run, or the named models have no classes in common.
    """
    known = {group.model for group in groups}
    for model in models or ():
        if model not in known:
            raise ConfigError(f"report.compare: no run is of {model}{suggest(model, sorted(known))}")
    comparisons = []
    for subject, members in split_by_subject(groups).items():
        scored = [group for group in members if any((run.folder / FILE).is_file() for run in group.finished)]
        pair = _choose_pair(scored, models)
        if pair and (comparison := _compare(subject, *pair)):
            comparisons.append(comparison)
    if models and not comparisons:
        raise ConfigError(
            f"report.compare: {' and '.join(models)} have no classes in common; finish a run of both on the same data"
        )
    return comparisons


def _choose_pair(groups: list[Group], models: list[str] | None) -> tuple[Group, Group] | None:
    """Choose a group per model: the one with the most seeds, then the best one.

    If the user names no models, a VT model is the second, because its gain is of interest.
    """
    of_model: dict[str, Group] = {}
    for group in sorted(groups, key=lambda group: (-len(group.finished), -group.best_score)):
        of_model.setdefault(group.model, group)
    names = models or sorted(list(of_model)[:2], key=lambda model: ("vt_" in model, model))
    pair = [of_model[name] for name in names if name in of_model]
    return (pair[0], pair[1]) if len(pair) == 2 else None


def _compare(subject: Subject, first: Group, second: Group) -> Comparison | None:
    """Compare two groups; None if their tables have no class and score in common."""
    tables = [[table for run in group.finished if (table := _read_table(run))] for group in (first, second)]
    for score in SCORES:
        scores, others = (_average(of_group, score) for of_group in tables)
        classes = [Difference(name, scores[name], others[name]) for name in scores if name in others]
        if classes:
            return Comparison(subject, first, second, score, sorted(classes, key=lambda one: -one.gain))
    return None


def _read_table(run: Run) -> dict[str, dict[str, str]]:
    """Read a run's classes.csv by class name; empty if it is missing or damaged."""
    try:
        text = (run.folder / FILE).read_text(encoding="utf-8")
        return {row["class"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _average(tables: Collection[dict[str, dict[str, str]]], score: str) -> dict[str, Estimate]:
    """Average a score of each class over the tables that have it; a class without pixels has none."""
    values: dict[str, list[float]] = {}
    for table in tables:
        for name, row in table.items():
            try:
                value = float(row.get(score) or "nan")
            except ValueError:
                continue
            if np.isfinite(value):
                values.setdefault(name, []).append(value)
    return {name: Estimate.from_values(found) for name, found in values.items()}
