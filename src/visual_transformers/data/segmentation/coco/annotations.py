"""COCO's annotation files, which list the images of a split: images that they do not name are left out."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.files import IMAGE_SUFFIXES
from visual_transformers.data.segmentation.pairing import index_by_id, parse_image_id
from visual_transformers.errors import DataError

IMAGE_KEYS = {"id", "file_name", "height", "width"}


@dataclass(frozen=True)
class AnnotationFormat:
    """One of COCO's formats of annotation files."""

    encoding: str  # value of data.encoding
    example: str  # name of a file
    keys: frozenset[str]  # keys of every annotation
    categories: frozenset[int]  # official ids that may occur


@dataclass(frozen=True)
class CocoJson:
    """Content of an annotation file: images by id, sorted by file name, and annotations."""

    path: Path
    format: AnnotationFormat
    images: dict[int, dict[str, Any]]
    annotations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path, expected: AnnotationFormat, layout: str) -> CocoJson:
        """Read an annotation file; `layout` is the expected layout, for messages.

        Raises:
            DataError: if the file is missing or of another format.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected the layout\n{layout}")
        remedy = f"data.encoding={expected.encoding} needs a file like {expected.example}."
        try:
            content = json.loads(path.read_bytes())
            images, annotations = content["images"], content["annotations"]
            for entries, keys in ((images, IMAGE_KEYS), (annotations, expected.keys)):
                if missing := {key for entry in entries for key in keys - entry.keys()}:
                    raise DataError(f"{path}: has entries without {', '.join(sorted(missing))}. {remedy}")
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: is no annotation file of COCO ({error!r}). {remedy}") from error
        if not images:
            raise DataError(f"{path}: lists no images. {remedy}")
        by_name = sorted(images, key=lambda image: image["file_name"])
        return cls(path, expected, {image["id"]: image for image in by_name}, annotations)

    def check_categories(self, categories: Collection[int]) -> None:
        """Check that a file of this format may have these categories.

        Raises:
            DataError: if it may not.
        """
        if unknown := sorted(set(categories) - self.format.categories):
            raise DataError(
                f"{self.path}: has the categories {unknown[:10]}. data.encoding={self.format.encoding} needs a file "
                f"like {self.format.example}, whose categories lie from {min(self.format.categories)} to "
                f"{max(self.format.categories)}."
            )

    def find_images(self, folder: Path, layout: str) -> FileIndex:
        """Find the images by their ids in a folder and its subfolders, in the order of `images`.

        Raises:
            DataError: if one of them is missing.
        """
        present = index_by_id(folder, IMAGE_SUFFIXES, layout)
        names = [image["file_name"] for image in self.images.values()]
        numbers = [parse_image_id(PurePath(name)) for name in names]
        if missing := [name for name, number in zip(names, numbers, strict=True) if number not in present]:
            raise DataError(
                f"{len(missing)} of the {len(names)} images that {self.path} lists are not in {folder}; the first is "
                f"{missing[0]}. Add them, or set their folder with data.train_images or data.val_images."
            )
        return FileIndex(folder, [present[number] for number in numbers])
