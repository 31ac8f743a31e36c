"""Figures of `mode=profile`: multiply-adds and latencies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_transformers.modes.profile.latency import Latency
from visual_transformers.plotting.figure import nonfatal, save_figure


@nonfatal
def draw_part_costs(path: Path, title: str, macs: dict[str, dict[str, int]], times: dict[str, Latency]) -> None:
    """Plot the multiply-adds of each part, stacked in a bar for each form of the model, beside the latencies if any."""
    figure = Figure(figsize=(10 if times else 6, 5), layout="constrained")
    figure.suptitle(title, fontsize=9, wrap=True)
    axes = figure.subplots(1, 2 if times else 1, squeeze=False).ravel().tolist()
    bottom = np.zeros(len(macs))
    for part in dict.fromkeys(part for counts in macs.values() for part in counts):
        heights = np.array([counts.get(part, 0) / 1e9 for counts in macs.values()])
        axes[0].bar(list(macs), heights, bottom=bottom, label=part, width=0.6)
        bottom += heights
    axes[0].set(ylabel="GMACs of one image")
    axes[0].legend(reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    if times:
        axes[1].barh(list(times), [1e3 * t.median for t in times.values()], xerr=_quartiles(*times.values()), capsize=4)
        axes[1].invert_yaxis()
        axes[1].set(xlabel="ms a batch: median and quartiles")
    save_figure(figure, path)


@nonfatal
def draw_model_costs(path: Path, costs: dict[str, tuple[int, Latency | None]]) -> None:
    """Plot multiply-adds against the latency of a forward pass; bars of multiply-adds if a latency is missing."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    timed = {label: (macs, time) for label, (macs, time) in costs.items() if time}
    if len(timed) < len(costs):
        axes.barh(list(costs), [macs / 1e9 for macs, _ in costs.values()])
        axes.invert_yaxis()
        axes.set(xlabel="GMACs of one image")
    else:
        for i, (label, (macs, time)) in enumerate(timed.items()):
            marker = f"C{i % 10}{'osD^v'[i // 10 % 5]}"
            axes.errorbar(macs / 1e9, 1e3 * time.median, yerr=_quartiles(time), fmt=marker, capsize=4, label=label)
        axes.set(xlabel="GMACs of one image", ylabel="forward pass, ms a batch: median and quartiles")
        axes.update_datalim([(0, 0)])  # both axes start at 0, so that lengths can be compared
        axes.autoscale_view()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)


def _quartiles(*times: Latency) -> NDArray[np.float64]:
    """Return the distances of the quartiles below and above the medians: (2, N), milliseconds."""
    return 1e3 * np.array([[t.median - t.lower for t in times], [t.upper - t.median for t in times]])
