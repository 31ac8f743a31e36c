"""COCO-Stuff's result format: a list of run-length encoded masks, read and written with COCO's own API."""

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
from visual_transformers.data.segmentation.pairing import parse_image_id
from visual_transformers.errors import DataError, RunError


def assign_image_ids(paths: list[Path]) -> dict[Path, int | str]:
    """Return the id of each image: the number in a COCO file name, or else the stem.

    Raises:
        DataError: if two images have the same id, because one result file cannot hold both.
    """
    ids = {path: parse_image_id(path) for path in paths}
    first: dict[int | str, Path] = {}
    for path, number in ids.items():
        if number in first:
            raise DataError(
                f"input: {first[number]} and {path} are both image {number} in COCO's result format; predict them in "
                "two commands with different name=NAME, or rename one"
            )
        first[number] = path
    return ids


def merge_things(category_ids: list[int]) -> list[int]:
    """Replace the ids of all things by 183, as COCO-Stuff's evaluator does."""
    return [OTHER if number in THINGS else number for number in category_ids]


def encode_mask(mask: NDArray[np.uint8], image: int | str, category_ids: list[int]) -> list[dict[str, Any]]:
    """Encode one result per category that occurs in a mask (H, W) of class indices.

    Args:
        mask: class indices.
        image: id of the image.
        category_ids: official id of each class; classes with the same id form one region.
    """
    official, results = np.array(category_ids)[mask], []
    for number in np.unique(official).tolist():
        encoded = encode(np.asfortranarray(official == number, dtype=np.uint8))
        segmentation = {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
        results.append({"image_id": image, "category_id": number, "segmentation": segmentation})
    return results


def write_results(
    path: Path, results: list[dict[str, Any]], masks: dict[int | str, Path], category_ids: list[int]
) -> None:
    """Write the results, read them back, and compare the decoded masks with the mask files of the images.

    Raises:
        RunError: if a decoded mask differs from its file.
    """
    atomic.write_text(path, json_text.dumps(results) + "\n")
    by_image: dict[int | str, list[dict[str, Any]]] = defaultdict(list)
    for result in json.loads(path.read_text(encoding="utf-8")):
        by_image[result["image_id"]].append(result)
    different = [file for image, file in masks.items() if not _matches(by_image.pop(image, []), file, category_ids)]
    if different or by_image:
        raise RunError(
            f"{path}: when read back, the results of {len(different)} images differ from their masks, and "
            f"{len(by_image)} images have no mask ({', '.join(map(str, [*different, *by_image][:3]))}). Do not use "
            "this file"
        )


def _matches(results: list[dict[str, Any]], file: Path, category_ids: list[int]) -> bool:
    """Return True if the results cover every pixel of a mask file once, with the right class."""
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
