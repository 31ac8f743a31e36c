"""Masks from COCO's panoptic annotations: PNGs of segments, and a JSON file with the category of each segment."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_transformers.data.io.file_index import FileIndex, Packed
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.files import read_segments
from visual_transformers.data.normalization import IGNORE
from visual_transformers.data.segmentation.coco.annotations import CocoJson, Kind
from visual_transformers.data.segmentation.coco.labels import THINGS, merged_ids
from visual_transformers.data.segmentation.pairing import refuse_unmasked
from visual_transformers.errors import BadFileError, DataError

KIND = Kind(
    encoding="panoptic",
    example="panoptic_train2017.json",
    keys=frozenset({"image_id", "file_name", "segments_info"}),
    categories=frozenset({*THINGS, *merged_ids().values()} - {0}),
)


def read(
    path: Path, images: Path, classes: NDArray[np.int64], layout: str, excluded: Set[str] = frozenset()
) -> tuple[FileIndex, SegmentMasks]:
    """The images that an annotation file lists, and their masks.

    Args:
        path: the annotation file; its PNGs lie in a folder of the same name without .json, beside it or one above.
        images: the folder of the images.
        classes: the class index of every official id.
        layout: what the data set should look like, for messages.
        excluded: absolute paths of images that need no PNG.

    Raises:
        MissingMasksError: if others have none.
        DataError: if the file is of another kind, or an image is not there.
    """
    content = CocoJson.read(path, KIND, layout)
    by_image = {entry["image_id"]: entry for entry in content.annotations}
    if missing := [number for number in content.images if number not in by_image]:
        raise DataError(f"{path}: {len(missing)} of its images have no annotation; the first has the id {missing[0]}")
    entries = [by_image[number] for number in content.images]
    segments = [_segments(entry, path) for entry in entries]
    content.check_categories({category for parts in segments for _, category in parts})
    rows = Packed([np.array(parts, np.uint32).tobytes() for parts in segments])
    pngs = FileIndex(_folder(path, layout), [entry["file_name"] for entry in entries])
    files = content.files(images, layout)
    present = set(files_below(pngs.root, (".png",)))
    alone = [(files[place], pngs[place]) for place, name in enumerate(pngs.names()) if name not in present]
    refuse_unmasked(alone, excluded, len(files))
    return files, SegmentMasks(pngs, rows, classes)


class SegmentMasks:
    """Masks whose files hold ids of segments.

    Args:
        files: one panoptic PNG for each image.
        rows: for each image the ids of its segments in order, each with its category: uint32 (segments, 2).
        classes: the class index of every official id.
    """

    def __init__(self, files: FileIndex, rows: Packed, classes: NDArray[np.int64]):
        self.files, self.rows, self.classes = files, rows, classes

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W); what belongs to no segment (id 0) counts nowhere.

        Raises:
            BadFileError: if the file cannot be read, or holds a segment that the JSON file does not name.
        """
        ids, categories = np.frombuffer(self.rows[index], np.uint32).reshape(-1, 2).T
        known = np.concatenate([np.zeros(1, np.uint32), ids])
        labels = np.concatenate([[IGNORE], self.classes[categories]]).astype(np.uint8)
        segments = read_segments(self.files[index])
        places = np.searchsorted(known, segments).clip(max=len(known) - 1)
        if (unknown := known[places] != segments).any():
            raise BadFileError(
                self.files[index],
                f"segments {np.unique(segments[unknown])[:10].tolist()} are not in the JSON file; both must be of one "
                "release of the annotations",
            )
        return labels[places]

    def origin(self, index: int) -> str:
        """The PNG."""
        return str(self.files[index])

    def subset(self, places: NDArray[np.int64]) -> SegmentMasks:
        """The masks at some places."""
        return SegmentMasks(self.files.subset(places), self.rows.subset(places), self.classes)


def _segments(entry: dict[str, Any], path: Path) -> list[tuple[int, int]]:
    """The ids of an image's segments in order, each with its category."""
    try:
        return sorted((segment["id"], segment["category_id"]) for segment in entry["segments_info"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: segments_info of image {entry['image_id']} is no list of segments with an id and a category_id "
            f"({error!r}); mend the file, or fetch it again"
        ) from error


def _folder(path: Path, layout: str) -> Path:
    """Beside the JSON file, where COCO's archives put the PNGs, or one above, where Detectron2 wants them."""
    choices = path.with_suffix(""), path.parent.parent / path.stem
    for choice in choices:
        if choice.is_dir():
            return choice
    raise DataError(f"{choices[0]}: no such folder, with the PNGs of {path.name}; expected the layout\n{layout}")
