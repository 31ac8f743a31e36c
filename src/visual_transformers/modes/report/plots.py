"""Pictures of many runs: curves with bands over seeds, scores against costs, and what classes gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visual_transformers.modes.report import published
from visual_transformers.modes.report.classes import Comparison
from visual_transformers.modes.report.groups import Group
from visual_transformers.modes.report.records import Series
from visual_transformers.modes.report.run import Run
from visual_transformers.plotting.figure import picture, save

MOST_CURVES = 10
"""Groups, at most, that a picture of curves can show: as many as there are colours."""
MOST_CLASSES = 40
"""Classes, at most, in a picture of differences: half of them those that gain most, half those that lose most."""
CLASS_INCHES = 0.2
CHARACTERS_PER_INCH, MOST_COLUMNS = 15, 4
"""Of a legend."""
LOG_FROM = 10
"""How many times the least cost the largest must be for a logarithmic axis."""
MARKERS = {"paper": "D", "paper v4": "d", "reference implementation": "s"}


@picture
def curves(path: Path, title: str, metric: str, groups: list[Group]) -> None:
    """Loss and metric over epochs: the mean over the seeds of each group, and from the lowest to the highest of them.

    Thin lines are runs that are not finished; dashed ones are of the training split.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    panels: tuple[Axes, Axes] = figure.subplots(1, 2)
    for i, group in enumerate(groups):
        _band(panels[0], group, lambda run: run.records["train/loss"], colour=f"C{i}", style="--")
        _band(panels[0], group, lambda run: run.records.validation("loss"), colour=f"C{i}")
        _band(panels[1], group, lambda run: 100 * run.records.validation(metric), colour=f"C{i}", label=group.label)
    for axes, what in zip(panels, ("loss (dashed: training)", f"validation {metric}, %"), strict=True):
        axes.set(xlabel="epoch", ylabel=what)
        axes.grid(alpha=0.3)
    _legend(figure, panels[1])
    save(figure, path)


def _band(
    axes: Axes, group: Group, series: Callable[[Run], Series], *, colour: str, style: str = "-", label: str = ""
) -> None:
    if band := group.band(series):
        axes.plot(band.epoch, band.mean, style, color=colour, label=label, linewidth=1.5)
        axes.fill_between(band.epoch, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
        label = ""
    for run in group.runs:
        if run.state != "finished" and len(run.records.epoch):
            axes.plot(run.records.epoch, series(run), style, color=colour, label=label, linewidth=0.6)
            label = ""


@picture
def cost(path: Path, title: str, groups: list[Group], figures: list[published.Figure]) -> None:
    """Scores against multiply-adds: means with their standard deviation, and what others published, hollow."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    models = dict.fromkeys([*(group.model for group in groups), *(theirs.model for theirs in figures)])
    for i, model in enumerate(models):
        _ours(axes, f"C{i % 10}", [group for group in groups if group.model == model])
        _theirs(axes, f"C{i % 10}", [theirs for theirs in figures if theirs.model == model])
    axes.set(xlabel="GMACs of one image", ylabel=f"{groups[0].subject.metric}, %", title=title)
    least, most = axes.dataLim.intervalx
    if most > LOG_FROM * least > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    save(figure, path)


def _ours(axes: Axes, colour: str, groups: list[Group]) -> None:
    """The groups of a model that have a score and a cost."""
    points = [
        (macs / 1e9, 100 * group.score.mean, 100 * (group.score.std or 0))
        for group in groups
        if group.score and (macs := group.fact("macs"))
    ]
    if points:
        gmacs, means, stds = np.array(points).T
        axes.errorbar(gmacs, means, stds, fmt="o", color=colour, capsize=4, label=groups[0].model)


def _theirs(axes: Axes, colour: str, figures: list[published.Figure]) -> None:
    """Published figures of a model, a marker for each source."""
    for whose, source in {theirs.theirs: theirs.source for theirs in figures}.items():
        points = [(theirs.gmacs, theirs.percent) for theirs in figures if theirs.source == source]
        gmacs, percent = np.array(points).T
        marker, label = MARKERS.get(source, "^"), f"{figures[0].model}, {whose}"
        axes.plot(gmacs, percent, linestyle="", marker=marker, fillstyle="none", color=colour, label=label)


@picture
def class_differences(path: Path, title: str, comparison: Comparison) -> None:
    """What each class gains with the second model, points; whiskers are standard deviations over seeds."""
    classes, half = comparison.classes, MOST_CLASSES // 2
    shown = classes if len(classes) <= MOST_CLASSES else [*classes[:half], *classes[-half:]]
    figure = Figure(figsize=(8, 1.4 + CLASS_INCHES * len(shown)), layout="constrained")
    axes = figure.subplots()
    gains = np.array([100 * difference.gain for difference in shown])
    spreads = [np.nan if difference.std is None else 100 * difference.std for difference in shown]
    colours = np.where(gains < 0, "C3", "C0").tolist()
    axes.barh(range(len(shown)), gains, color=colours, xerr=spreads, error_kw={"elinewidth": 0.8, "ecolor": "0.4"})
    if len(shown) < len(classes):
        axes.axhline(half - 0.5, color="0.4", linestyle=":")
    axes.set_yticks(range(len(shown)), [difference.name for difference in shown], fontsize=8)
    axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel=f"gain in {comparison.score}, points")
    axes.set_title(title, fontsize=10)
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    save(figure, path)


def _legend(figure: Figure, axes: Axes) -> None:
    """What the lines and markers are, below the panels."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        fitting = int(CHARACTERS_PER_INCH * figure.get_figwidth()) // (max(map(len, labels)) + 6)
        columns = min(max(fitting, 1), MOST_COLUMNS)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)


def can_show_costs(groups: Iterable[Group]) -> bool:
    """Whether any of them has a point to draw."""
    return any(group.score and group.fact("macs") for group in groups)
