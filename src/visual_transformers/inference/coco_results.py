"""COCO-Stuff's result format: a list of run-length encoded masks, as COCO's own API writes and reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.mask import decode, encode

from visual_transformers import atomic, json_text
from visual_transformers.data.io.files import read_mask
from visual_transformers.data.segmentation.coco.labels import OTHER, THINGS
from visual_transformers.data.segmentation.pairing import image_id
from visual_transformers.errors import DataError, RunError


def image_ids(paths: list[Path]) -> dict[Path, int | str]:
    """The id of each image: the number that COCO's file names are made of, for any other name its stem.

    Raises:
        DataError: if two images have the same id, for one result file cannot hold both.
    """
    ids = {path: image_id(path) for path in paths}
    first: dict[int | str, Path] = {}
    for path, number in ids.items():
        if number in first:
            raise DataError(
                f"input: {first[number]} and {path} are both image {number} in COCO's result format; predict them in "
                "two commands, each with a name=NAME of its own, or rename one"
            )
        first[number] = path
    return ids


def with_things_merged(category_ids: list[int]) -> list[int]:
    """Official ids with all things as 183, as COCO-Stuff's evaluator counts them."""
    return [OTHER if number in THINGS else number for number in category_ids]


def entries(mask: NDArray[np.uint8], image: int | str, category_ids: list[int]) -> list[dict[str, Any]]:
    """One result for each category that occurs in a mask (H, W) of class indices.

    Args:
        mask: class indices.
        image: the image's id.
        category_ids: the classes' official ids; classes of one id are one region.
    """
    official, found = np.array(category_ids)[mask], []
    for number in np.unique(official).tolist():
        encoded = encode(np.asfortranarray(official == number, dtype=np.uint8))
        segmentation = {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
        found.append({"image_id": image, "category_id": number, "segmentation": segmentation})
    return found


def write(path: Path, results: list[dict[str, Any]], masks: dict[int | str, Path], category_ids: list[int]) -> None:
    """Write the results, read them back, and compare what they decode to with the mask files of the images.

    Raises:
        RunError: if a decoded mask differs from its file.
    """
    atomic.write_text(path, json_text.dumps(results) + "\n")
    by_image: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for result in json.loads(path.read_text(encoding="utf-8")):
        by_image[result["image_id"]].append(result)
    different = [file for image, file in masks.items() if not _agree(by_image.pop(image, []), file, category_ids)]
    if different or by_image:
        raise RunError(
            f"{path}: read back, the results of {len(different)} images differ from their masks, and {len(by_image)} "
            f"images have none ({', '.join(map(str, [*different, *by_image][:3]))}); do not use this file"
        )


def _agree(results: list[dict[str, Any]], file: Path, category_ids: list[int]) -> bool:
    """Whether the results of one image cover every pixel of its mask once, with the right class."""
    official = np.array(category_ids)[read_mask(file)]
    covered = np.zeros(official.shape, np.int64)
    for result in results:
        if result["segmentation"]["size"] != list(official.shape):
            return False
        region = decode(result["segmentation"]).astype(bool)
        covered += region
        if (official[region] != result["category_id"]).any():
            return False
    return bool((covered == 1).all())
