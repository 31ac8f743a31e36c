"""Masks from COCO-Stuff's JSON annotations: each a category and a region, run-length encoded or a polygon."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from visual_transformers.data.io.file_index import FileIndex, Packed
from visual_transformers.data.segmentation.coco.annotations import CocoJson, Kind
from visual_transformers.data.segmentation.coco.labels import OTHER, STUFF
from visual_transformers.data.segmentation.coco.run_lengths import drawn
from visual_transformers.errors import BadFileError, DataError

KIND = Kind(
    encoding="stuff_json",
    example="stuff_train2017.json",
    keys=frozenset({"image_id", "category_id", "segmentation"}),
    categories=frozenset({*STUFF, OTHER}),
)


def read(path: Path, images: Path, classes: NDArray[np.int64], layout: str) -> tuple[FileIndex, RegionMasks]:
    """The images that an annotation file lists, and their masks.

    Args:
        path: the annotation file.
        images: the folder of the images.
        classes: the class index of every official id.
        layout: what the data set should look like, for messages.

    Raises:
        DataError: if the file is of another kind or has a faulty annotation, or an image is not there.
    """
    content = CocoJson.read(path, KIND, layout)
    content.check_categories({entry["category_id"] for entry in content.annotations})
    found: dict[int, list[bytes]] = defaultdict(list)
    for entry in content.annotations:
        found[entry["image_id"]] += [b"%d" % entry["category_id"], _runs(entry, content)]
    rows = [
        b" ".join([b"%d %d %d" % (number, image["height"], image["width"]), *found[number]])
        for number, image in content.images.items()
    ]
    return content.files(images, layout), RegionMasks(path, Packed(rows), classes)


class RegionMasks:
    """Masks whose regions are drawn when they are asked for.

    Args:
        path: the annotation file.
        rows: for each image its id, height and width, and then in turn a category and the runs of its region, with
            spaces between all of them: compressed runs have none of their own.
        classes: the class index of every official id.
    """

    def __init__(self, path: Path, rows: Packed, classes: NDArray[np.int64]):
        self.path, self.rows, self.classes = path, rows, classes

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W); what no region covers counts nowhere.

        Raises:
            BadFileError: if the runs of a region are damaged, or regions overlap.
        """
        _, height, width, *entries = self.rows[index].split()
        values = [int(self.classes[int(category)]) for category in entries[::2]]
        try:
            return drawn(entries[1::2], values, int(height), int(width))
        except ValueError as error:
            raise BadFileError(
                self.origin(index), f"its annotations cannot be used ({error}); mend them, or leave the image out"
            ) from error

    def origin(self, index: int) -> str:
        """The annotation file, with the image's id behind a #."""
        return f"{self.path}#{self.rows[index].split(maxsplit=1)[0].decode()}"

    def subset(self, places: NDArray[np.int64]) -> RegionMasks:
        """The masks at some places."""
        return RegionMasks(self.path, self.rows.subset(places), self.classes)


def _runs(entry: dict[str, Any], content: CocoJson) -> bytes:
    """The compressed runs of an annotation's region, whichever of COCO's three notations it has.

    Raises:
        DataError: naming the annotation, if it is none of them or does not fit its image.
    """
    region = entry["segmentation"]
    try:
        image = content.images[entry["image_id"]]
        size = [image["height"], image["width"]]
        _check_numbers(region, *size)
        if isinstance(region, list):
            region = rle.merge(rle.frPyObjects(region, *size))
        elif isinstance(region["counts"], list):
            region = rle.frPyObjects(region, *size)
        runs = region["counts"].encode("ascii") if isinstance(region["counts"], str) else region["counts"]
        if region["size"] != size or runs.split() != [runs]:
            raise ValueError(f"runs of {len(runs)} characters for {region['size']} pixels, in an image of {size}")
    except Exception as error:  # pycocotools raises Exception itself for what it does not know
        raise DataError(
            f"{content.path}: annotation {entry.get('id')} of image {entry['image_id']} is no region of its image "
            f"({type(error).__name__}: {error}); its segmentation must be run lengths or polygons; take the "
            "annotation out of the file"
        ) from error
    return bytes(runs)


def _check_numbers(region: Any, height: int, width: int) -> None:
    """See that polygons and runs are numbers that pycocotools can take: NaN or 1e9 would make it eat all memory.

    Raises:
        ValueError: if they are not.
    """
    if isinstance(region, list):
        for polygon in region:
            if not isinstance(polygon, list) or len(polygon) < LEAST_COORDINATES or len(polygon) % 2:
                raise ValueError(f"a polygon must be a list of x and y of three points or more, and is {polygon!r:.60}")
            if wrong := [value for value in polygon if not _is_near(value, max(height, width))]:
                raise ValueError(f"a polygon has the coordinate {wrong[0]!r}, in an image of {width} x {height} pixels")
        if not region:
            raise ValueError("there is no polygon")
    elif isinstance(counts := region["counts"], list):
        if wrong := [value for value in counts if not isinstance(value, int) or value < 0]:
            raise ValueError(f"a run has the length {wrong[0]!r}")
        if sum(counts) != height * width:
            raise ValueError(f"runs of {sum(counts)} pixels in all, in an image of {height * width}")


LEAST_COORDINATES = 6


def _is_near(value: Any, side: int) -> bool:
    """Return True for a number no farther from the image than that is long."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -side <= value <= 2 * side
