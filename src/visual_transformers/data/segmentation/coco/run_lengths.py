"""Regions in COCO's compressed run lengths, drawn into one picture.

pycocotools draws a picture of its own for each region, which took several times as long, and from runs that are too
short it returns what was in memory before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.normalization import IGNORE


def drawn(regions: list[bytes], values: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """A picture (H, W) with a value in each region, given as compressed runs, and `IGNORE` elsewhere.

    Raises:
        ValueError: if runs are damaged or do not fill the picture, or regions overlap: a pixel would have two values.
    """
    ends = [run_lengths(region).cumsum() for region in regions]
    if any((np.diff(found, prepend=0) < 0).any() or found[-1] != height * width for found in ends):
        raise ValueError(f"run lengths do not add up to {width} x {height} pixels")
    start = np.concatenate([np.zeros(0, np.int64), *(found[:-1:2] for found in ends)])  # outside and inside take turns
    stop = np.concatenate([np.zeros(0, np.int64), *(found[1::2] for found in ends)])
    value = np.repeat(np.array(values, np.uint8), [len(found) // 2 for found in ends])
    order = np.argsort(start)
    order = order[start[order] < stop[order]]  # without the empty ones
    start, stop, value = start[order], stop[order], value[order]
    if (start[1:] < stop[:-1]).any():
        raise ValueError("regions overlap")
    lengths = np.diff(np.stack([start, stop], axis=1).ravel(), prepend=0, append=height * width)
    colours = np.append(np.stack([np.full_like(value, IGNORE), value], axis=1).ravel(), np.uint8(IGNORE))
    return np.ascontiguousarray(np.repeat(colours, lengths).reshape(width, height).T)  # runs go down the columns


def run_lengths(region: bytes) -> NDArray[np.int64]:
    """The lengths in compressed runs, first outside of the region, then inside, and so on.

    Each number has 5 bits in a character, the lowest first, and the bit behind them says whether it goes on. From the
    fourth on it is the difference from the length two places before.

    Raises:
        ValueError: if the last number is cut off.
    """
    characters = np.frombuffer(region, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(characters & 32 == 0)
    if not len(last) or last[-1] != len(characters) - 1:
        raise ValueError("run lengths are cut off")
    first = np.concatenate([[0], last[:-1] + 1])
    size = last - first + 1
    place = np.arange(len(characters)) - np.repeat(first, size)
    lengths = np.add.reduceat((characters & 31) << 5 * place, first)
    lengths -= np.where(characters[last] & 16, 1 << 5 * size, 0)  # negative ones
    for turn in (1, 2):
        lengths[turn::2] = lengths[turn::2].cumsum()
    return lengths
