"""Masks from COCO-Stuff's JSON annotations: each a category and a region, run-length encoded or a polygon."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from visual_transformers.data.io.file_index import FileIndex, PackedBytes
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.data.segmentation.coco.annotations import AnnotationFormat, CocoJson
from visual_transformers.data.segmentation.coco.labels import OTHER, STUFF
from visual_transformers.errors import BadFileError, DataError

FORMAT = AnnotationFormat(
    encoding="stuff_json",
    example="stuff_train2017.json",
    keys=frozenset({"image_id", "category_id", "segmentation"}),
    categories=frozenset({*STUFF, OTHER}),
)


def read(path: Path, images: Path, classes: NDArray[np.int64], layout: str) -> tuple[FileIndex, RegionMasks]:
    """Read the images that an annotation file lists, and their masks.

    Args:
        path: the annotation file.
        images: folder of the images.
        classes: class index of every official id.
        layout: expected layout, for messages.

    Raises:
        DataError: if the file is of another format or has an invalid annotation, or an image is missing.
    """
    content = CocoJson.read(path, FORMAT, layout)
    content.check_categories({entry["category_id"] for entry in content.annotations})
    regions: dict[int, list[bytes]] = defaultdict(list)
    for entry in content.annotations:
        regions[entry["image_id"]] += [b"%d" % entry["category_id"], _encode_region(entry, content)]
    rows = [
        b" ".join([b"%d %d %d" % (number, image["height"], image["width"]), *regions[number]])
        for number, image in content.images.items()
    ]
    return content.find_images(images, layout), RegionMasks(path, PackedBytes(rows), classes)


class RegionMasks:
    """Masks that are drawn on access, from compressed run lengths.

    Args:
        path: the annotation file.
        rows: for each image its id, height and width, then a category and the run lengths of its region in turn, with
            spaces in between: run lengths contain none.
        classes: class index of every official id.
    """

    def __init__(self, path: Path, rows: PackedBytes, classes: NDArray[np.int64]):
        self.path, self.rows, self.classes = path, rows, classes

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Draw class indices (H, W), with the ignore index for pixels of no region.

        Raises:
            BadFileError: if the run lengths of a region are damaged, or regions overlap.
        """
        _, height, width, *entries = self.rows[index].split()
        values = [int(self.classes[int(category)]) for category in entries[::2]]
        try:
            return draw_regions(entries[1::2], values, int(height), int(width))
        except ValueError as error:
            raise BadFileError(
                self.origin(index), f"its annotations are invalid ({error}). Correct them, or exclude the image."
            ) from error

    def origin(self, index: int) -> str:
        """Return the annotation file and, after a #, the image's id."""
        return f"{self.path}#{self.rows[index].split(maxsplit=1)[0].decode()}"

    def subset(self, indices: NDArray[np.int64]) -> RegionMasks:
        """Select masks by their indices."""
        return RegionMasks(self.path, self.rows.subset(indices), self.classes)


def draw_regions(regions: list[bytes], values: list[int], height: int, width: int) -> NDArray[np.uint8]:
    """Draw compressed run lengths as a mask (H, W) with a value in each region and the ignore index elsewhere.

    pycocotools decodes each region into a mask of its own, which takes several times as long, and reads uninitialized
    memory if run lengths are too short.

    Raises:
        ValueError: if run lengths are damaged or do not fill the mask, or if regions overlap.
    """
    ends = [_decode_run_lengths(region).cumsum() for region in regions]
    if any((np.diff(end, prepend=0) < 0).any() or end[-1] != height * width for end in ends):
        raise ValueError(f"run lengths do not add up to {width} x {height} pixels")
    start = np.concatenate([np.zeros(0, np.int64), *(end[:-1:2] for end in ends)])  # runs alternate: outside, inside
    stop = np.concatenate([np.zeros(0, np.int64), *(end[1::2] for end in ends)])
    value = np.repeat(np.array(values, np.uint8), [len(end) // 2 for end in ends])
    order = np.argsort(start)
    order = order[start[order] < stop[order]]  # without empty runs
    start, stop, value = start[order], stop[order], value[order]
    if (start[1:] < stop[:-1]).any():
        raise ValueError("regions overlap")
    lengths = np.diff(np.stack([start, stop], axis=1).ravel(), prepend=0, append=height * width)
    filling = np.append(np.stack([np.full_like(value, IGNORE_INDEX), value], axis=1).ravel(), np.uint8(IGNORE_INDEX))
    return np.ascontiguousarray(np.repeat(filling, lengths).reshape(width, height).T)  # runs go down the columns


def _decode_run_lengths(region: bytes) -> NDArray[np.int64]:
    """Decode compressed run lengths, alternately outside and inside of the region.

    A character holds 5 bits of a number, lowest first, and a bit that is set if the number continues. From the fourth
    on, a number is the difference from the length two places before.
    """
    characters = np.frombuffer(region, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(characters & 32 == 0)
    if not len(last) or last[-1] != len(characters) - 1:
        raise ValueError("run lengths are cut off")
    first = np.concatenate([[0], last[:-1] + 1])
    size = last - first + 1
    place = np.arange(len(characters)) - np.repeat(first, size)
    lengths = np.add.reduceat((characters & 31) << 5 * place, first)
    lengths -= np.where(characters[last] & 16, 1 << 5 * size, 0)  # the sign
    for offset in (1, 2):
        lengths[offset::2] = lengths[offset::2].cumsum()
    return lengths


def _encode_region(entry: dict[str, Any], content: CocoJson) -> bytes:
    """Compress the region of an annotation: polygons, run lengths, or compressed run lengths."""
    region = entry["segmentation"]
    try:
        image = content.images[entry["image_id"]]
        size = [image["height"], image["width"]]
        if isinstance(region, list):
            _check_polygons(region, *size)
            region = rle.merge(rle.frPyObjects(region, *size))
        elif isinstance(region["counts"], list):
            _check_run_lengths(region["counts"], *size)
            region = rle.frPyObjects(region, *size)
        runs = region["counts"].encode("ascii") if isinstance(region["counts"], str) else region["counts"]
        if region["size"] != size or runs.split() != [runs]:
            raise ValueError(f"runs of {len(runs)} characters for {region['size']} pixels, in an image of {size}")
    except Exception as error:  # pycocotools raises Exception itself for unknown objects
        raise DataError(
            f"{content.path}: annotation {entry.get('id')} of image {entry['image_id']} is no region of its image "
            f"({type(error).__name__}: {error}). Its segmentation must be run lengths or polygons; remove the "
            "annotation from the file."
        ) from error
    return bytes(runs)


def _check_polygons(polygons: list[Any], height: int, width: int) -> None:
    """Check coordinates before pycocotools does: it allocates all memory for NaN or 1e9."""
    if not polygons:
        raise ValueError("there is no polygon")
    limit = max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon must be a list of x and y of three points or more, and is {polygon!r:.60}")
        for value in polygon:  # at most the image's longer side outside of it
            if not isinstance(value, int | float) or isinstance(value, bool) or not -limit <= value <= 2 * limit:
                raise ValueError(f"a polygon has the coordinate {value!r}, in an image of {width} x {height} pixels")


def _check_run_lengths(counts: list[Any], height: int, width: int) -> None:
    if wrong := [value for value in counts if not isinstance(value, int) or value < 0]:
        raise ValueError(f"a run has the length {wrong[0]!r}")
    if sum(counts) != height * width:
        raise ValueError(f"runs of {sum(counts)} pixels in all, in an image of {height * width}")
