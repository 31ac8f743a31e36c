"""Pictures of single images: their classes, their masks, and where visual tokens look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_transformers.plotting.figure import picture, save
from visual_transformers.plotting.run_plots import grid, legend, overlay, palette

OVERLAY_INCHES = 8.0
"""Longer side of an overlay; the shorter one has at least a quarter of it."""
PANEL_INCHES = 1.4
TITLE_INCHES = 7.5
"""Least width of a sheet, so that its title fits."""
MAX_TOKENS = 32
"""Tokens drawn in a row of a sheet."""
MAX_PIXELS = 400
"""Longer side, about, of the image behind a heat map."""
LEAST_RANGE = 2.0
"""Least range of a heat map's colours, in units of the value that all its pixels would have if they were alike."""


@dataclass
class Heat:
    """One row of a sheet: a map (H, W) that sums to 1 for each token, in a caption's company."""

    name: str
    maps: list[NDArray[np.float64]]
    captions: list[str]


@picture
def labelled(path: Path, images: list[NDArray[np.uint8]], captions: list[str]) -> None:
    """A sheet of images (H, W, 3), each under its caption."""
    figure, panels = grid(len(images), columns=min(len(images), 8))
    for axes, image, caption in zip(panels, images, captions, strict=False):
        axes.imshow(image)
        axes.set_title(caption, fontsize=8, wrap=True)
    save(figure, path)


@picture
def masked(path: Path, image: NDArray[np.uint8], mask: NDArray[np.uint8], classes: list[str]) -> None:
    """An image (H, W, 3) under its mask (H, W), with a legend of the classes that cover most."""
    height, width = mask.shape
    long = max(height, width)
    sides = (max(side / long, 0.25) * OVERLAY_INCHES for side in (width, height))
    figure = Figure(figsize=tuple(sides), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(overlay(image, mask.astype(np.int64), palette(len(classes))))
    legend(figure, mask, classes, columns=4)
    save(figure, path)


@picture
def token_sheet(path: Path, image: NDArray[np.uint8], title: str, rows: list[Heat]) -> None:
    """Heat maps over an image (H, W, 3): the image first, then a column for each token, a row for each of `rows`.

    Each map has a range of colours of its own, see `colour_range`.
    """
    height, width = image.shape[:2]
    columns = 1 + min(MAX_TOKENS, max(len(row.maps) for row in rows))
    panel = PANEL_INCHES * min(max(width / height, 0.5), 2.0)
    figure = Figure(figsize=(max(columns * panel, TITLE_INCHES), len(rows) * (PANEL_INCHES + 0.35) + 0.75))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(
        left=0.005, right=0.995, bottom=0.01, top=1 - 0.95 / figure.get_figheight(), wspace=0.04, hspace=0.32
    )
    figure.suptitle(title, fontsize=8, x=0.005, y=1 - 0.08 / figure.get_figheight(), ha="left", va="top")
    step = -(-max(height, width) // MAX_PIXELS)
    behind, extent = image[::step, ::step], (0, width, height, 0)
    for line, row in zip(panels, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].imshow(behind, extent=extent)
        line[0].set_title(row.name, fontsize=7)
        for axes, heat, caption in zip(line[1:], row.maps, row.captions, strict=False):
            axes.imshow(behind.mean(axis=2), extent=extent, cmap="gray", vmin=0, vmax=255)
            low, high = colour_range(heat)
            axes.imshow(heat, extent=extent, cmap="jet", alpha=0.55, interpolation="bilinear", vmin=low, vmax=high)
            axes.set_title(caption, fontsize=7)
    save(figure, path)


def colour_range(heat: NDArray[np.float64]) -> tuple[float, float]:
    """The values of a map that are blue and red: its lowest and highest, unless they are close to each other.

    Then those two are `LEAST_RANGE` apart, around the same middle: what hardly varies is drawn in colours that hardly
    vary, for the full range would show patterns in rounding errors.
    """
    low, high = float(heat.min()), float(heat.max())
    short = max(0.0, LEAST_RANGE * float(heat.mean()) - (high - low)) / 2
    return low - short, high + short
