"""Masks from COCO-Stuff's JSON annotations: each a category and a region, run-length encoded or a polygon."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as regions

from visual_transformers.data.coco_json import CocoJson, Kind
from visual_transformers.data.coco_labels import OTHER, STUFF
from visual_transformers.data.index import FileIndex, Packed
from visual_transformers.data.transforms import IGNORE
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
    """Masks whose regions are decoded when they are asked for.

    Args:
        path: the annotation file.
        rows: for each image its id, height and width, and then in turn a category and the runs of its region, with
            spaces between all of them: COCO's compressed runs are letters and digits.
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
        try:
            planes = decoded(entries[1::2], int(height), int(width))
        except ValueError as error:
            raise BadFileError(
                self.origin(index), f"its annotations cannot be used ({error}); mend them, or leave the image out"
            ) from error
        labels = np.full((int(width), int(height)), IGNORE, np.uint8)
        for category, plane in zip(entries[::2], planes, strict=True):
            labels[plane] = self.classes[int(category)]
        return np.ascontiguousarray(labels.T)

    def origin(self, index: int) -> str:
        """The annotation file, with the image's id behind a #."""
        return f"{self.path}#{self.rows[index].split(maxsplit=1)[0].decode()}"

    def subset(self, places: NDArray[np.int64]) -> RegionMasks:
        """The masks at some places."""
        return RegionMasks(self.path, self.rows.subset(places), self.classes)


def decoded(runs: list[bytes], height: int, width: int) -> NDArray[np.bool_]:
    """The regions of compressed runs, column by column as those go: (regions, W, H).

    Raises:
        ValueError: if runs are damaged or do not fill the size, or regions overlap: a pixel would have two classes.
    """
    if any(pixels(lengths) != height * width for lengths in runs):
        raise ValueError(f"run lengths do not add up to {width} x {height} pixels")
    if not runs:  # pycocotools would make an array of any size
        return np.zeros((0, width, height), bool)
    planes = regions.decode([{"size": [height, width], "counts": lengths} for lengths in runs]).T
    if planes.sum(axis=0, dtype=np.uint8).max() > 1:
        raise ValueError("regions overlap")
    return planes.view(bool)


def pixels(runs: bytes) -> int:
    """How many pixels compressed runs cover; where they are too short, pycocotools leaves what was in memory before.

    Each number has 5 bits in a character, the lowest first, and the bit behind them says whether it goes on. From the
    fourth on it is the difference from the number two places before.
    """
    characters = np.frombuffer(runs, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(characters & 32 == 0)
    if not len(last) or last[-1] != len(characters) - 1:
        return 0  # cut off within a number
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    place = np.arange(len(characters)) - np.repeat(first, length)
    numbers = np.add.reduceat((characters & 31) << 5 * place, first)
    numbers -= np.where(characters[last] & 16, 1 << 5 * length, 0)  # negative ones
    return int(numbers[0] + numbers[1::2].cumsum().sum() + numbers[2::2].cumsum().sum())


def _runs(entry: dict[str, Any], content: CocoJson) -> bytes:
    """The compressed runs of an annotation's region, whichever of COCO's three notations it has.

    Raises:
        DataError: naming the annotation, if it is none of them or does not fit its image.
    """
    region = entry["segmentation"]
    try:
        image = content.images[entry["image_id"]]
        size = [image["height"], image["width"]]
        if isinstance(region, list):
            region = regions.merge(regions.frPyObjects(region, *size))
        elif isinstance(region["counts"], list):
            region = regions.frPyObjects(region, *size)
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
