"""Masks from COCO's panoptic annotations: PNGs of segments, and a JSON file with the category of each segment."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.io.file_index import FileIndex, PackedBytes
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.files import read_segments
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.data.segmentation.coco.annotations import AnnotationFormat, CocoJson
from visual_transformers.data.segmentation.coco.labels import THINGS, merged_ids
from visual_transformers.data.segmentation.pairing import check_missing_masks
from visual_transformers.errors import BadFileError, DataError

FORMAT = AnnotationFormat(
    encoding="panoptic",
    example="panoptic_train2017.json",
    keys=frozenset({"image_id", "file_name", "segments_info"}),
    categories=frozenset({*THINGS, *merged_ids().values()} - {0}),
)


def read(
    path: Path, images: Path, classes: NDArray[np.int64], layout: str, excluded: Set[str] = frozenset()
) -> tuple[FileIndex, SegmentMasks]:
    """Read the images that an annotation file lists, and their masks.

    Args:
        path: the annotation file; its PNGs lie in a folder of the same name without .json, next to it or one above.
        images: folder of the images.
        classes: class index of every official id.
        layout: expected layout, for messages.
        excluded: absolute paths of images that need no PNG.

    Raises:
        MissingMasksError: if other images have no PNG.
        DataError: if the file is of another format, or an image is missing.
    """
    content = CocoJson.read(path, FORMAT, layout)
    by_image = {entry["image_id"]: entry for entry in content.annotations}
    if missing := [number for number in content.images if number not in by_image]:
        raise DataError(f"{path}: {len(missing)} of its images have no annotation; the first has the id {missing[0]}")
    entries = [by_image[number] for number in content.images]
    segments = [_list_segments(entry, path) for entry in entries]
    content.check_categories({category for rows in segments for _, category in rows})
    packed = PackedBytes([np.array(rows, np.uint32).tobytes() for rows in segments])
    pngs = FileIndex(_find_png_folder(path, layout), [entry["file_name"] for entry in entries])
    files = content.find_images(images, layout)
    present = set(list_files(pngs.root, (".png",)))
    unmasked = [(files[index], pngs[index]) for index, name in enumerate(pngs.names()) if name not in present]
    check_missing_masks(unmasked, excluded, len(files))
    return files, SegmentMasks(pngs, packed, classes)


class SegmentMasks:
    """Masks in files of segment ids.

    Args:
        files: one panoptic PNG for each image.
        rows: sorted segment ids of each image, each with its category: uint32 (segments, 2).
        classes: class index of every official id.
    """

    def __init__(self, files: FileIndex, rows: PackedBytes, classes: NDArray[np.int64]):
        self.files, self.rows, self.classes = files, rows, classes

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Read class indices (H, W), with the ignore index for pixels of no segment (id 0).

        Raises:
            BadFileError: if the file cannot be read, or holds a segment that the JSON file does not name.
        """
        ids, categories = np.frombuffer(self.rows[index], np.uint32).reshape(-1, 2).T
        known = np.concatenate([np.zeros(1, np.uint32), ids])
        labels = np.concatenate([[IGNORE_INDEX], self.classes[categories]]).astype(np.uint8)
        segments = read_segments(self.files[index])
        rows = np.searchsorted(known, segments).clip(max=len(known) - 1)
        if (unknown := known[rows] != segments).any():
            raise BadFileError(
                self.files[index],
                f"segments {np.unique(segments[unknown])[:10].tolist()} are not in the JSON file. Use PNGs and JSON "
                "file of the same release.",
            )
        return labels[rows]

    def origin(self, index: int) -> str:
        """Return the PNG."""
        return str(self.files[index])

    def subset(self, indices: NDArray[np.int64]) -> SegmentMasks:
        """Select masks by their indices."""
        return SegmentMasks(self.files.subset(indices), self.rows.subset(indices), self.classes)


def _list_segments(entry: dict[str, Any], path: Path) -> list[tuple[int, int]]:
    """List the segments of an image by id, each with its category."""
    try:
        return sorted((segment["id"], segment["category_id"]) for segment in entry["segments_info"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: segments_info of image {entry['image_id']} is no list of segments with an id and a category_id "
            f"({error!r}). Correct the file, or download it again."
        ) from error


def _find_png_folder(path: Path, layout: str) -> Path:
    """Find the PNGs next to the JSON file, as in COCO's archives, or one folder above, as in Detectron2."""
    candidates = path.with_suffix(""), path.parent.parent / path.stem
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(f"{candidates[0]}: no such folder, with the PNGs of {path.name}; expected the layout\n{layout}")
