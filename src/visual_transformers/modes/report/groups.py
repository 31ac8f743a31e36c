"""Runs that differ in nothing but their seed, as one row of a report: their mean and spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from visual_transformers.modes.report.records import Series
from visual_transformers.modes.report.run import Run, State


class Estimate(NamedTuple):
    """The mean of a few numbers, and their sample standard deviation; None of a single one."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """That of one number or more."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


class Band(NamedTuple):
    """A score over epochs: the mean over seeds, the lowest and the highest."""

    epoch: Series
    mean: Series
    low: Series
    high: Series


class Subject(NamedTuple):
    """What runs have in common whose scores can be compared."""

    task: str
    data: str
    classes: float | None
    metric: str

    def __str__(self) -> str:
        classes = f", {self.classes:g} classes" if self.classes else ""
        return f"{self.data}{classes}"


@dataclass
class Group:
    """Runs of the same settings, at least one.

    `settings` tells it apart from others of the same model, data and recipe. Of finished runs with one seed the last
    counts; the others are `duplicates`.
    """

    runs: list[Run]
    settings: str = ""
    finished: list[Run] = field(init=False)
    duplicates: list[Run] = field(init=False)

    def __post_init__(self) -> None:
        latest: dict[object, Run] = {}
        ended = sorted((run for run in self.runs if run.state == "finished"), key=lambda run: run.at)
        for run in ended:
            latest[run.about.get("seed") if run.number("seed") is not None else id(run)] = run
        self.finished = list(latest.values())
        self.duplicates = [run for run in ended if run not in self.finished]

    @property
    def model(self) -> str:
        """The option of its model."""
        return self.runs[0].text("model")

    @cached_property
    def recipe(self) -> str:
        """The recipe that any of its runs names: the same settings can also be given one by one."""
        return next((recipe for run in self.runs if (recipe := run.text("recipe"))), "")

    @cached_property
    def subject(self) -> Subject:
        """With what other groups it can be compared."""
        run = self.runs[0]
        return Subject(run.text("task"), run.text("data"), run.number("classes"), run.metric)

    @property
    def label(self) -> str:
        """What it is called in a picture, beside others of its subject."""
        return " ".join(filter(None, (self.model, f"({self.recipe})" if self.recipe else "", self.settings)))

    @property
    def states(self) -> dict[State, int]:
        """How many of its runs are in each state."""
        return dict(Counter(run.state for run in self.runs))

    @cached_property
    def score(self) -> Estimate | None:
        """The best validation score, over its finished seeds."""
        return self.over_seeds(lambda run: run.best.score if run.best else None)

    @property
    def rank(self) -> float:
        """Its score or, as long as none of its runs is finished, the best so far; below all others without either."""
        return self.score.mean if self.score else max((r.best.score for r in self.runs if r.best), default=-np.inf)

    def over_seeds(self, quantity: Callable[[Run], float | None], *, finished: bool = True) -> Estimate | None:
        """Mean and spread of a quantity over the finished runs, or over all, that have it."""
        values = [v for run in (self.finished if finished else self.runs) if (v := quantity(run)) is not None]
        return Estimate.of(values) if values else None

    def fact(self, name: str) -> float | None:
        """A number that all its runs share, from the first that knows it."""
        return next((value for run in self.runs if (value := run.number(name)) is not None), None)

    def band(self, series: Callable[[Run], Series]) -> Band | None:
        """A score over the epochs of the finished runs; None if none has it."""
        epochs = np.unique(np.concatenate([np.empty(0), *(run.records.epoch for run in self.finished)]))
        scores = np.full((len(self.finished), len(epochs)), np.nan)
        for row, run in zip(scores, self.finished, strict=True):
            row[np.searchsorted(epochs, run.records.epoch)] = series(run)
        known = np.isfinite(scores).any(axis=0)
        if not known.any():
            return None
        epochs, scores = epochs[known], scores[:, known]
        return Band(epochs, np.nanmean(scores, axis=0), np.nanmin(scores, axis=0), np.nanmax(scores, axis=0))


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Runs whose settings and metric are known, in rows by subject, the best first.

    Where data is placed is free to change; if other classes or images are there, it is another row.
    """
    found: dict[object, list[Run]] = {}
    for run in runs:
        if settings := run.text("settings"):
            found.setdefault(
                (settings, run.text("data_set"), run.number("training_samples"), run.metric, _known(run)), []
            ).append(run)
    groups = [Group(alike) for alike in found.values()]
    return sorted(groups, key=lambda group: (str(group.subject), group.subject.metric, -group.rank, group.model))


def _known(run: Run) -> tuple[str, str, float | None]:
    return run.text("task"), run.text("data"), run.number("classes")


def by_subject(groups: Iterable[Group]) -> dict[Subject, list[Group]]:
    """Groups whose scores can be compared, the best first."""
    found: dict[Subject, list[Group]] = {}
    for group in groups:
        found.setdefault(group.subject, []).append(group)
    return found
