"""Figures of a run: score curves, and samples with targets and predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visual_transformers.plotting.figure import nonfatal, save_figure

COLUMNS = 4
MAX_LEGEND = 24
IMAGE_INCHES = 2.2


@nonfatal
def plot_curves(path: Path, records: list[dict[str, Any]], metric: str, title: str) -> None:
    """Plot loss and metric over epochs, for training and validation, from a run's records."""
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
    save_figure(figure, path)


@nonfatal
def plot_classification(
    path: Path, images: list[NDArray[np.uint8]], truths: list[int], predictions: list[int], classes: list[str]
) -> None:
    """Draw images (H, W, 3) with their predicted class, errors in red with the true class."""
    figure, panels = make_grid(len(images), columns=2 * COLUMNS)
    for axes, image, truth, prediction in zip(panels, images, truths, predictions, strict=False):
        axes.imshow(image)
        correct = truth == prediction
        caption = classes[prediction] if correct else f"{classes[prediction]}, not {classes[truth]}"
        axes.set_title(caption, fontsize=8, color="black" if correct else "red")
    save_figure(figure, path)


@nonfatal
def plot_segmentation(
    path: Path,
    images: list[NDArray[np.uint8]],
    truths: list[NDArray[np.int64]],
    predictions: list[NDArray[np.int64]],
    classes: list[str],
) -> None:
    """Draw images (H, W, 3) beside overlays of their true and predicted masks (H, W), with a legend."""
    figure, panels = make_grid(3 * len(images), columns=6)
    colours = make_palette(len(classes))
    for i, (image, truth, prediction) in enumerate(zip(images, truths, predictions, strict=True)):
        pictures = (image / 255, overlay_mask(image, truth, colours), overlay_mask(image, prediction, colours))
        captions = ("image", "truth", "prediction")
        for axes, caption, pixels in zip(panels[3 * i : 3 * i + 3], captions, pictures, strict=True):
            axes.imshow(pixels)
            axes.set_title(caption, fontsize=8)
    labelled = np.concatenate([mask[mask < len(classes)] for mask in (*truths, *predictions)])
    add_legend(figure, labelled, classes, columns=8)
    save_figure(figure, path)


def add_legend(figure: Figure, labels: NDArray[np.integer[Any]], classes: list[str], *, columns: int) -> None:
    """Add a legend of the most frequent classes among `labels` (class indices) below a figure."""
    pixels, colours = np.bincount(labels.ravel(), minlength=len(classes)), make_palette(len(classes))
    frequent = sorted(i for i in np.argsort(-pixels)[:MAX_LEGEND] if pixels[i])
    patches = [Patch(color=colours[i], label=classes[i]) for i in frequent]
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8)


def overlay_mask(
    image: NDArray[np.uint8], mask: NDArray[np.int64], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Blend an image with the colours of its mask, both in 0 to 1; ignored pixels keep their colour."""
    blended = image / 255.0
    labelled = mask < len(colours)
    blended[labelled] = 0.4 * blended[labelled] + 0.6 * colours[mask[labelled]]
    return blended


def make_palette(count: int) -> NDArray[np.float64]:
    """Return distinct colours (count, 3): hues by the golden ratio, in three saturations and values."""
    index = np.arange(count)
    return hsv_to_rgb(np.stack([index * 0.618 % 1, 1 - 0.25 * (index % 3), 1 - 0.2 * (index // 3 % 3)], axis=1))


def make_grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Create a figure of at least `count` panels in rows of `columns`, with hidden axes."""
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * IMAGE_INCHES * 0.8, rows * IMAGE_INCHES), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.set_axis_off()
    return figure, panels
