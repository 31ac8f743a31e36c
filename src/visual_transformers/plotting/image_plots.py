"""Figures of single images: classes, masks, and attention of visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_transformers.plotting.figure import nonfatal, save_figure
from visual_transformers.plotting.run_plots import add_legend, make_grid, make_palette, overlay_mask

OVERLAY_INCHES = 8.0
"""Longer side of an overlay; the shorter side is at least a quarter of it."""
PANEL_INCHES = 1.4
TITLE_INCHES = 7.5
"""Minimum width of a sheet, so that its title fits."""
MAX_TOKENS = 32
"""Maximum number of tokens in a row of a sheet."""
MAX_PIXELS = 400
"""Approximate longer side of the image behind a heat map."""
MIN_RANGE = 2.0
"""Minimum range of a heat map's colours, in units of the value of a uniform map."""


@dataclass
class HeatMapRow:
    """Row of a sheet: for each token a map (H, W) that sums to 1, and a caption."""

    name: str
    maps: list[NDArray[np.float64]]
    captions: list[str]


@nonfatal
def plot_captioned(path: Path, images: list[NDArray[np.uint8]], captions: list[str]) -> None:
    """Draw a sheet of images (H, W, 3) with captions."""
    figure, panels = make_grid(len(images), columns=min(len(images), 8))
    for axes, image, caption in zip(panels, images, captions, strict=False):
        axes.imshow(image)
        axes.set_title(caption, fontsize=8, wrap=True)
    save_figure(figure, path)


@nonfatal
def plot_mask(path: Path, image: NDArray[np.uint8], mask: NDArray[np.uint8], classes: list[str]) -> None:
    """Draw the mask (H, W) over an image (H, W, 3), with a legend of the largest classes."""
    height, width = mask.shape
    sides = (max(side / max(height, width), 0.25) * OVERLAY_INCHES for side in (width, height))
    figure = Figure(figsize=tuple(sides), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(overlay_mask(image, mask.astype(np.int64), make_palette(len(classes))))
    add_legend(figure, mask, classes, columns=4)
    save_figure(figure, path)


@nonfatal
def plot_token_sheet(path: Path, image: NDArray[np.uint8], title: str, rows: list[HeatMapRow]) -> None:
    """Draw heat maps over an image (H, W, 3): a column for the image and for each token, a row for each of `rows`.

    Each map has its own colour range, see `get_colour_range`.
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
    background, extent = image[::step, ::step], (0, width, height, 0)
    for panel_row, row in zip(panels, rows, strict=True):
        for axes in panel_row:
            axes.set_axis_off()
        panel_row[0].imshow(background, extent=extent)
        panel_row[0].set_title(row.name, fontsize=7)
        for axes, heat, caption in zip(panel_row[1:], row.maps, row.captions, strict=False):
            axes.imshow(background.mean(axis=2), extent=extent, cmap="gray", vmin=0, vmax=255)
            low, high = get_colour_range(heat)
            axes.imshow(heat, extent=extent, cmap="jet", alpha=0.55, interpolation="bilinear", vmin=low, vmax=high)
            axes.set_title(caption, fontsize=7)
    save_figure(figure, path)


def get_colour_range(heat: NDArray[np.float64]) -> tuple[float, float]:
    """Return the values of a map that are drawn in blue and red.

    They are its minimum and maximum, widened to `MIN_RANGE` around the same middle, because stretching a nearly uniform
    map over all colours would show patterns in rounding errors.
    """
    low, high = float(heat.min()), float(heat.max())
    margin = max(0.0, MIN_RANGE * float(heat.mean()) - (high - low)) / 2
    return low - margin, high + margin
