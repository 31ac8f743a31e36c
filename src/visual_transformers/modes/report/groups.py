"""Groups of runs that differ only in their seed: a row of a report, with mean and spread."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from visual_transformers.config.diff import FREE_TO_CHANGE
from visual_transformers.modes.report.records import Series
from visual_transformers.modes.report.run import Run, State

TARGET = "._target_"
IRRELEVANT = {*FREE_TO_CHANGE, "seed"} - {"weights", "data.root"}
"""Settings that do not label a group; the origin of weights and data does."""


class Estimate(NamedTuple):
    """Mean of some numbers, and their sample standard deviation; None for a single number."""

    mean: float
    std: float | None

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Estimate:
        """Compute the estimate of one number or more."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


class Band(NamedTuple):
    """Score over epochs: mean, minimum and maximum over seeds."""

    epoch: Series
    mean: Series
    low: Series
    high: Series


class Subject(NamedTuple):
    """Task, data and metric of runs whose scores can be compared."""

    task: str
    data: str
    classes: float | None
    metric: str

    @classmethod
    def from_run(cls, run: Run) -> Subject:
        """Return the subject of a run."""
        return cls(run.get_text("task"), run.get_text("data"), run.get_number("classes"), run.metric)

    def __str__(self) -> str:
        return self.data + (f", {self.classes:g} classes" if self.classes else "")


@dataclass
class Group:
    """Runs with the same settings, at least one.

    `settings` distinguishes groups of the same model, data and recipe. Of finished runs with the same seed only the
    last counts; the others are `duplicates`.
    """

    runs: list[Run]
    settings: str = ""
    finished: list[Run] = field(init=False)
    duplicates: list[Run] = field(init=False)

    def __post_init__(self) -> None:
        latest: dict[object, Run] = {}
        ended = sorted((run for run in self.runs if run.state == "finished"), key=lambda run: run.at)
        for run in ended:
            latest[run.metadata.get("seed") if run.get_number("seed") is not None else id(run)] = run
        self.finished = list(latest.values())
        self.duplicates = [run for run in ended if run not in self.finished]

    @property
    def model(self) -> str:
        """Option of the group `model`."""
        return self.runs[0].get_text("model")

    @cached_property
    def recipe(self) -> str:
        """Recipe of the first run that names one: the same settings can also be given one by one."""
        return next((recipe for run in self.runs if (recipe := run.get_text("recipe"))), "")

    @cached_property
    def subject(self) -> Subject:
        """Subject of the runs."""
        return Subject.from_run(self.runs[0])

    @property
    def label(self) -> str:
        """Label in a figure of the subject."""
        return " ".join(filter(None, (self.model, f"({self.recipe})" if self.recipe else "", self.settings)))

    @property
    def states(self) -> dict[State, int]:
        """Number of runs by state."""
        return dict(Counter(run.state for run in self.runs))

    @cached_property
    def score(self) -> Estimate | None:
        """Best validation score over the finished seeds."""
        return self.estimate(lambda run: run.best.score if run.best else None)

    @property
    def best_score(self) -> float:
        """Mean score; the best so far if no run has finished; minus infinity without either."""
        return self.score.mean if self.score else max((r.best.score for r in self.runs if r.best), default=-np.inf)

    def estimate(self, quantity: Callable[[Run], float | None], *, only_finished: bool = True) -> Estimate | None:
        """Estimate a quantity over the finished runs, or over all runs, that have it."""
        values = [v for run in (self.finished if only_finished else self.runs) if (v := quantity(run)) is not None]
        return Estimate.from_values(values) if values else None

    def get_number(self, key: str) -> float | None:
        """Return a number of the metadata that all runs share, from the first run that has it."""
        return next((value for run in self.runs if (value := run.get_number(key)) is not None), None)

    def compute_band(self, series: Callable[[Run], Series]) -> Band | None:
        """Return the band of a score over the epochs of the finished runs; None if no run has the score."""
        epochs = np.unique(np.concatenate([np.empty(0), *(run.records.epoch for run in self.finished)]))
        scores = np.full((len(self.finished), len(epochs)), np.nan)
        for row, run in zip(scores, self.finished, strict=True):
            row[np.searchsorted(epochs, run.records.epoch)] = series(run)
        known = np.isfinite(scores).any(axis=0)
        if not known.any():
            return None
        epochs, scores = epochs[known], scores[:, known]
        return Band(epochs, np.nanmean(scores, axis=0), np.nanmin(scores, axis=0), np.nanmax(scores, axis=0))


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Group the runs of known settings, sort the groups by subject and score, and label them.

    The location of the data does not separate groups; other classes or numbers of images do.
    """
    members: dict[object, list[Run]] = {}
    for run in runs:
        if settings := run.get_text("settings"):
            key = (settings, run.get_text("data_set"), run.get_number("training_samples"), Subject.from_run(run))
            members.setdefault(key, []).append(run)
    groups = [Group(alike) for alike in members.values()]
    groups.sort(key=lambda group: (str(group.subject), group.subject.metric, -group.best_score, group.model))
    namesakes: dict[object, list[Group]] = {}
    for group in groups:
        namesakes.setdefault((group.subject, group.model, group.recipe), []).append(group)
    for alike in namesakes.values():
        if len(alike) > 1:
            _label(alike)
    return groups


def split_by_subject(groups: Iterable[Group]) -> dict[Subject, list[Group]]:
    """Return the groups of each subject in the same order."""
    found: dict[Subject, list[Group]] = {}
    for group in groups:
        found.setdefault(group.subject, []).append(group)
    return found


def _label(groups: list[Group]) -> None:
    """Label groups with the settings that differ; only this reads their configurations."""
    configs = [group.runs[0].config for group in groups]
    keys = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if not _is_within(key, IRRELEVANT) and len({repr(config.get(key)) for config in configs}) > 1
    ]
    classes = {key.removesuffix(TARGET) for key in keys if key.endswith(TARGET)}
    shown = [k for k in keys if all(k in config for config in configs) or not _is_within(k.rpartition(".")[0], classes)]
    for group, config in zip(groups, configs, strict=True):
        group.settings = " ".join(_format_setting(key, config[key]) for key in shown if key in config)
    texts = [group.settings for group in groups]
    for group in groups:
        if texts.count(group.settings) > 1:
            images = group.get_number("training_samples")
            remark = f"({images:g} images)" if images else f"({group.runs[0].get_text('settings')})"
            group.settings = f"{group.settings} {remark}".lstrip()


def _is_within(key: str, sections: Iterable[str]) -> bool:
    """Return True if a key is one of the sections or below one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _format_setting(key: str, value: object) -> str:
    """Format a setting as on the command line; a `_target_` as the name of its class."""
    if key.endswith(TARGET):
        return f"{key.removesuffix(TARGET)}={str(value).rpartition('.')[2]}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"{key}={text}".replace(" ", "")
