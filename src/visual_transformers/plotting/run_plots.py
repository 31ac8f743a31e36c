"""Figures of a run: curves of its scores, samples with their truth and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from visual_transformers.plotting.figure import picture, save

COLUMNS = 4
MAX_LEGEND = 24
IMAGE_INCHES = 2.2


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


def grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of at least `count` panels without axes, in rows of `columns`."""
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * IMAGE_INCHES * 0.8, rows * IMAGE_INCHES), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.set_axis_off()
    return figure, panels
