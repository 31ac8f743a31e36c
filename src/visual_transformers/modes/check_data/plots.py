"""Figures of `mode=check_data`: class balance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_transformers.plotting.figure import nonfatal, save_figure

CLASS_INCHES = 0.17
MAX_NAMED = 200
"""Maximum number of classes that are labelled with their names."""
LOG_FROM = 30
"""Ratio of the largest to the smallest share above which the axis is logarithmic."""


@nonfatal
def draw_class_balance(path: Path, classes: list[str], counts: dict[str, NDArray[np.int64]], unit: str) -> None:
    """Draw the share of each class in the images or pixels of each split, the most frequent of the first split on top.

    Classes without samples are left out.
    """
    shares = {split: 100 * found / max(1, found.sum()) for split, found in counts.items()}
    order = [i for i in np.argsort(-next(iter(shares.values())), kind="stable") if any(s[i] for s in shares.values())]
    named = len(order) <= MAX_NAMED
    figure = Figure(figsize=(8, 1.5 + CLASS_INCHES * min(len(order), MAX_NAMED)), layout="constrained")
    axes = figure.subplots()
    for i, (split, share) in enumerate(shares.items()):
        present = np.flatnonzero(share[order])
        axes.plot(share[order][present], present, f"C{i}{'osD'[i % 3]}", markersize=4, alpha=0.8, label=split)
    positive = np.concatenate([share[share > 0] for share in shares.values()])
    if logarithmic := len(positive) > 0 and positive.max() > LOG_FROM * positive.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    axes.set(xlabel=f"% of the {unit}{', logarithmic' if logarithmic else ''}", ylim=(max(len(order), 1) - 0.5, -0.5))
    axes.set_yticks(range(len(order)) if named else [], [classes[i] for i in order] if named else [], fontsize=7)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(shares), fontsize=8)
    save_figure(figure, path)
