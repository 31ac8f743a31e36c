"""Pictures of a run: curves of its scores, samples with their truth and prediction, what its model costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visual_transformers.drawing import picture, save

if TYPE_CHECKING:
    from visual_transformers.cost import Latency  # which needs torch, for which a report need not wait

COLUMNS = 4
MAX_LEGEND = 24
IMAGE_INCHES = 2.2
CLASS_INCHES = 0.17
MAX_NAMED = 200
"""Classes, at most, with their names beside them."""
LOG_FROM = 30
"""How many times the least share the largest must be for a logarithmic axis."""


@picture
def curves(path: Path, records: list[dict[str, Any]], metric: str, title: str) -> None:
    """Loss and metric over epochs, training and validation, from a run's records."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axes, score in zip(figure.subplots(1, 2), ("loss", metric), strict=True):
        steps = [r for r in records if r["kind"] == "step" and f"train/{score}" in r]
        axes.plot([r["epoch"] for r in steps], [r[f"train/{score}"] for r in steps], alpha=0.3, color="C0")
        for split, colour in (("train", "C0"), ("val", "C1")):
            epochs = [r for r in records if r["kind"] == "epoch" and f"{split}/{score}" in r]
            label = {"train": "training", "val": "validation"}[split]
            axes.plot([r["epoch"] for r in epochs], [r[f"{split}/{score}"] for r in epochs], f"{colour}.-", label=label)
        axes.set(xlabel="epoch", ylabel=score)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)


@picture
def classified(
    path: Path, images: list[NDArray[np.uint8]], truths: list[int], predictions: list[int], classes: list[str]
) -> None:
    """Images (H, W, 3) with their true and predicted class, wrong ones in red."""
    figure, panels = grid(len(images), columns=2 * COLUMNS)
    for axes, image, truth, prediction in zip(panels, images, truths, predictions, strict=False):
        axes.imshow(image)
        right = truth == prediction
        caption = classes[prediction] if right else f"{classes[prediction]}, not {classes[truth]}"
        axes.set_title(caption, fontsize=8, color="black" if right else "red")
    save(figure, path)


@picture
def segmented(
    path: Path,
    images: list[NDArray[np.uint8]],
    truths: list[NDArray[np.int64]],
    predictions: list[NDArray[np.int64]],
    classes: list[str],
) -> None:
    """Images (H, W, 3), each with overlays of its true and predicted masks (H, W), and a legend of what occurs."""
    figure, panels = grid(3 * len(images), columns=6)
    colours = palette(len(classes))
    for i, (image, truth, prediction) in enumerate(zip(images, truths, predictions, strict=True)):
        pictures = (image / 255, overlay(image, truth, colours), overlay(image, prediction, colours))
        captions = ("image", "truth", "prediction")
        for axes, caption, pixels in zip(panels[3 * i : 3 * i + 3], captions, pictures, strict=True):
            axes.imshow(pixels)
            axes.set_title(caption, fontsize=8)
    labelled = np.concatenate([mask[mask < len(classes)] for mask in (*truths, *predictions)])
    legend(figure, labelled, classes, columns=8)
    save(figure, path)


def legend(figure: Figure, labels: NDArray[np.integer[Any]], classes: list[str], *, columns: int) -> None:
    """Name, below a figure, the colours of the classes that most of the `labels`, class indices, have."""
    pixels, colours = np.bincount(labels.ravel(), minlength=len(classes)), palette(len(classes))
    shown = sorted(i for i in np.argsort(-pixels)[:MAX_LEGEND] if pixels[i])
    patches = [Patch(color=colours[i], label=classes[i]) for i in shown]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8)


@picture
def cost_by_part(path: Path, title: str, macs: dict[str, dict[str, int]], times: dict[str, Latency]) -> None:
    """Multiply-adds of each part, stacked, one bar a form of the model; and bars of the latencies, if any."""
    figure = Figure(figsize=(10 if times else 6, 5), layout="constrained")
    figure.suptitle(title, fontsize=9, wrap=True)
    axes = figure.subplots(1, 2 if times else 1, squeeze=False).ravel().tolist()
    parts = list(dict.fromkeys(part for counts in macs.values() for part in counts))
    bottom = np.zeros(len(macs))
    for part in parts:
        heights = np.array([counts.get(part, 0) / 1e9 for counts in macs.values()])
        axes[0].bar(list(macs), heights, bottom=bottom, label=part, width=0.6)
        bottom += heights
    axes[0].set(ylabel="GMACs of one image")
    axes[0].legend(reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    if times:
        axes[1].barh(list(times), [1e3 * t.median for t in times.values()], xerr=_quartiles(*times.values()), capsize=4)
        axes[1].invert_yaxis()
        axes[1].set(xlabel="ms a batch: median and quartiles")
    save(figure, path)


@picture
def cost_of_models(path: Path, costs: dict[str, tuple[int, Latency | None]]) -> None:
    """Multiply-adds of an image against the latency of a batch's forward pass; bars where a latency is missing."""
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
        axes.update_datalim([(0, 0)])  # the axes begin at 0, and lengths can be compared
        axes.autoscale_view()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(figure, path)


@picture
def class_balance(path: Path, classes: list[str], counts: dict[str, NDArray[np.int64]], unit: str) -> None:
    """Each class's share of a split's images or pixels, the most frequent of the first split on top.

    Classes that no split has are left out, and where there are very many, their names are.
    """
    shares = {split: 100 * found / max(1, found.sum()) for split, found in counts.items()}
    order = [i for i in np.argsort(-next(iter(shares.values())), kind="stable") if any(s[i] for s in shares.values())]
    named = len(order) <= MAX_NAMED
    figure = Figure(figsize=(8, 1.5 + CLASS_INCHES * min(len(order), MAX_NAMED)), layout="constrained")
    axes = figure.subplots()
    for i, (split, share) in enumerate(shares.items()):
        places = np.flatnonzero(share[order])
        axes.plot(share[order][places], places, f"C{i}{'osD'[i % 3]}", markersize=4, alpha=0.8, label=split)
    present = np.concatenate([share[share > 0] for share in shares.values()])
    if wide := len(present) > 0 and present.max() > LOG_FROM * present.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(left=0)
    axes.set(xlabel=f"% of the {unit}{', logarithmic' if wide else ''}", ylim=(max(len(order), 1) - 0.5, -0.5))
    axes.set_yticks(range(len(order)) if named else [], [classes[i] for i in order] if named else [], fontsize=7)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(shares), fontsize=8)
    save(figure, path)


def overlay(image: NDArray[np.uint8], mask: NDArray[np.int64], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """An image in 0 to 1 under the colours of its mask; pixels of no class stay as they are."""
    picture = image / 255.0
    labelled = mask < len(colours)
    picture[labelled] = 0.4 * picture[labelled] + 0.6 * colours[mask[labelled]]
    return picture


def palette(count: int) -> NDArray[np.float64]:
    """Colours (count, 3) that stay apart: hues by the golden ratio, in three strengths."""
    index = np.arange(count)
    return hsv_to_rgb(np.stack([index * 0.618 % 1, 1 - 0.25 * (index % 3), 1 - 0.2 * (index // 3 % 3)], axis=1))


def _quartiles(*times: Latency) -> NDArray[np.float64]:
    """How far the quartiles lie below and above the medians: (2, N), milliseconds."""
    return 1e3 * np.array([[t.median - t.lower for t in times], [t.upper - t.median for t in times]])


def grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of at least `count` panels without axes, in rows of `columns`."""
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * IMAGE_INCHES * 0.8, rows * IMAGE_INCHES), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.set_axis_off()
    return figure, panels
