"""Figures of many runs: curves with bands over seeds, scores against costs, and gains by class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visual_transformers.modes.report.classes import Comparison
from visual_transformers.modes.report.groups import Group
from visual_transformers.modes.report.published import PublishedScore
from visual_transformers.modes.report.records import Series
from visual_transformers.modes.report.run import Run
from visual_transformers.plotting.figure import nonfatal, save_figure

MAX_CURVES = 10
"""Maximum number of groups in a figure of curves: the number of colours."""
MAX_CLASSES = 40
"""Maximum number of classes in a figure of gains: the largest gains and the largest losses, half of each."""
CLASS_INCHES = 0.2
CHARACTERS_PER_INCH, MAX_COLUMNS = 15, 4
"""Text width and columns of a legend."""
LOG_FROM = 10
"""Ratio of the largest to the smallest cost above which the axis is logarithmic."""
MARKERS = {"paper": "D", "paper v4": "d", "reference implementation": "s"}


@nonfatal
def draw_curves(path: Path, title: str, metric: str, groups: list[Group]) -> None:
    """Draw loss and metric over epochs: the mean over the seeds of each group, and a band from minimum to maximum.

    Thin lines are unfinished runs; dashed lines are the training split.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    panels: tuple[Axes, Axes] = figure.subplots(1, 2)
    for i, group in enumerate(groups):
        _draw_band(panels[0], group, lambda run: run.records["train/loss"], f"C{i}", style="--")
        _draw_band(panels[0], group, lambda run: run.records.get_validation("loss"), f"C{i}")
        _draw_band(panels[1], group, lambda run: 100 * run.records.get_validation(metric), f"C{i}", label=group.label)
    for axes, quantity in zip(panels, ("loss (dashed: training)", f"validation {metric}, %"), strict=True):
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.grid(alpha=0.3)
    _draw_legend(figure, panels[1])
    save_figure(figure, path)


def _draw_band(
    axes: Axes, group: Group, series: Callable[[Run], Series], colour: str, *, style: str = "-", label: str = ""
) -> None:
    if band := group.compute_band(series):
        axes.plot(band.epoch, band.mean, style, color=colour, label=label, linewidth=1.5)
        axes.fill_between(band.epoch, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
        label = ""
    for run in group.runs:
        if run.state != "finished" and len(run.records.epoch):
            axes.plot(run.records.epoch, series(run), style, color=colour, label=label, linewidth=0.6)
            label = ""


@nonfatal
def draw_costs(path: Path, title: str, groups: list[Group], published: list[PublishedScore]) -> None:
    """Draw scores against multiply-adds: means with standard deviations, and hollow markers for published scores."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    models = dict.fromkeys([*(group.model for group in groups), *(score.model for score in published)])
    for i, model in enumerate(models):
        _draw_measured(axes, f"C{i % 10}", [group for group in groups if group.model == model])
        _draw_published(axes, f"C{i % 10}", [score for score in published if score.model == model])
    axes.set(xlabel="GMACs of one image", ylabel=f"{groups[0].subject.metric}, %", title=title)
    least, most = axes.dataLim.intervalx
    if most > LOG_FROM * least > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    _draw_legend(figure, axes)
    save_figure(figure, path)


def _draw_measured(axes: Axes, colour: str, groups: list[Group]) -> None:
    points = [
        (macs / 1e9, 100 * group.score.mean, 100 * (group.score.std or 0))
        for group in groups
        if group.score and (macs := group.get_number("macs"))
    ]
    if points:
        gmacs, means, stds = np.array(points).T
        axes.errorbar(gmacs, means, stds, fmt="o", color=colour, capsize=4, label=groups[0].model)


def _draw_published(axes: Axes, colour: str, scores: list[PublishedScore]) -> None:
    for theirs, source in {score.theirs: score.source for score in scores}.items():
        points = [(score.gmacs, score.percent) for score in scores if score.source == source]
        gmacs, percent = np.array(points).T
        marker, label = MARKERS.get(source, "^"), f"{scores[0].model}, {theirs}"
        axes.plot(gmacs, percent, linestyle="", marker=marker, fillstyle="none", color=colour, label=label)


@nonfatal
def draw_gains(path: Path, title: str, comparison: Comparison) -> None:
    """Draw the gain of each class with the second model; whiskers are standard deviations over seeds."""
    classes, half = comparison.classes, MAX_CLASSES // 2
    shown = classes if len(classes) <= MAX_CLASSES else [*classes[:half], *classes[-half:]]
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
    save_figure(figure, path)


def _draw_legend(figure: Figure, axes: Axes) -> None:
    """Draw a legend below the panels, with as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        fitting = int(CHARACTERS_PER_INCH * figure.get_figwidth()) // (max(map(len, labels)) + 6)
        columns = min(max(fitting, 1), MAX_COLUMNS)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)
