"""Which classes one model does better than another: differences of their scores, as means over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from itertools import combinations
from typing import NamedTuple

import numpy as np

from visual_transformers.errors import ConfigError, suggestion
from visual_transformers.modes.report.groups import Estimate, Group, Subject, by_subject
from visual_transformers.modes.report.run import Run

FILE = "classes.csv"
SCORES = ("IoU", "recall")
"""Of a class, in that file: that of a segmenter, and that of a classifier."""


class Difference(NamedTuple):
    """A class's score with one model and with another, fractions."""

    name: str
    first: Estimate
    second: Estimate

    @property
    def gain(self) -> float:
        """By how much the second is better."""
        return self.second.mean - self.first.mean

    @property
    def std(self) -> float | None:
        """The standard deviation of the gain, if both have several seeds."""
        first, second = self.first.std, self.second.std
        return None if first is None or second is None else float(np.hypot(first, second))


class Comparison(NamedTuple):
    """Two groups of one subject, and their classes, the largest gain of the second first."""

    subject: Subject
    first: Group
    second: Group
    score: str
    classes: list[Difference]


def compared(groups: list[Group], models: list[str] | None) -> list[Comparison]:
    """One comparison for each subject that has both models; null takes the two with most finished seeds.

    Raises:
        ConfigError: if one of the models that were named is of no run, or nothing of theirs can be compared.
    """
    known = {group.model for group in groups}
    for model in models or ():
        if model not in known:
            raise ConfigError(f"report.compare: no run is of {model}{suggestion(model, sorted(known))}")
    found = []
    for subject, alike in by_subject(groups).items():
        scored = [group for group in alike if any((run.folder / FILE).is_file() for run in group.finished)]
        pair = _pair(scored, models)
        if pair and (comparison := _compare(subject, *pair)):
            found.append(comparison)
    if models and not found:
        raise ConfigError(
            f"report.compare: {' and '.join(models)} have no classes in common; finish a run of both on the same data"
        )
    return found


def _pair(groups: list[Group], models: list[str] | None) -> tuple[Group, Group] | None:
    """The groups to compare, of two models: where a model has several, that with most seeds, then the best one.

    Of two that nobody named a VT model comes second, for its gain over the other is asked for.
    """
    of_model: dict[str, Group] = {}
    for group in sorted(groups, key=lambda group: (-len(group.finished), -group.rank)):
        of_model.setdefault(group.model, group)
    if models:
        pairs = [tuple(models)]
    else:
        pairs = list(combinations(sorted(list(of_model)[:2], key=lambda model: ("vt_" in model, model)), 2))
    for first, second in pairs:
        if first in of_model and second in of_model:
            return of_model[first], of_model[second]
    return None


def _compare(subject: Subject, first: Group, second: Group) -> Comparison | None:
    """None if their tables have no class or no score in common."""
    tables = [[table for run in group.finished if (table := _table(run))] for group in (first, second)]
    for score in SCORES:
        found = [_over_seeds(of_group, score) for of_group in tables]
        names = [name for name in found[0] if name in found[1]]
        if names:
            classes = [Difference(name, found[0][name], found[1][name]) for name in names]
            ordered = sorted(classes, key=lambda difference: -difference.gain)
            return Comparison(subject, first, second, score, ordered)
    return None


def _table(run: Run) -> dict[str, dict[str, str]]:
    """A run's classes.csv by the names of the classes; empty if it is not there or something else."""
    try:
        text = (run.folder / FILE).read_text(encoding="utf-8")
        return {row["class"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _over_seeds(tables: Collection[dict[str, dict[str, str]]], score: str) -> dict[str, Estimate]:
    """The mean of each class over the tables in which it has that score: a class without pixels has none."""
    values: dict[str, list[float]] = {}
    for table in tables:
        for name, row in table.items():
            try:
                value = float(row.get(score) or "nan")
            except ValueError:
                continue
            if np.isfinite(value):
                values.setdefault(name, []).append(value)
    return {name: Estimate.of(found) for name, found in values.items()}
