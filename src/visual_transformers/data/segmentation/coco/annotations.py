"""COCO's annotation files: reading one, and finding the images that it lists.

The file is the list of a split's images: those that it does not name are left out, whatever the folder holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.files import IMAGE_SUFFIXES
from visual_transformers.data.segmentation.pairing import image_id, numbered
from visual_transformers.errors import DataError

IMAGE_KEYS = {"id", "file_name", "height", "width"}


@dataclass(frozen=True)
class Kind:
    """What sets one kind of annotation files apart.

    Args:
        encoding: the value of `data.encoding` that reads them.
        example: the name of one.
        keys: what every annotation holds.
        categories: the official ids that may occur.
    """

    encoding: str
    example: str
    keys: frozenset[str]
    categories: frozenset[int]


@dataclass(frozen=True)
class CocoJson:
    """The content of an annotation file: its images by their ids, sorted by their files, and its annotations."""

    path: Path
    kind: Kind
    images: dict[int, dict[str, Any]]
    annotations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path, kind: Kind, layout: str) -> CocoJson:
        """Read a file of a kind.

        Args:
            path: the file.
            kind: what it should be.
            layout: what the data set should look like, for messages.

        Raises:
            DataError: if there is no such file, or it is of another kind.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected the layout\n{layout}")
        needed = f"data.encoding={kind.encoding} needs a file as {kind.example}"
        try:
            content = json.loads(path.read_bytes())
            images, annotations = content["images"], content["annotations"]
            for entries, keys in ((images, IMAGE_KEYS), (annotations, kind.keys)):
                if lacking := {key for entry in entries for key in keys - entry.keys()}:
                    raise DataError(f"{path}: has entries without {', '.join(sorted(lacking))}; {needed}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: is no annotation file of COCO ({error!r}); {needed}") from error
        if not images:
            raise DataError(f"{path}: lists no images; {needed}")
        by_name = sorted(images, key=lambda image: image["file_name"])
        return cls(path, kind, {image["id"]: image for image in by_name}, annotations)

    def check_categories(self, categories: Collection[int]) -> None:
        """Refuse categories that this kind of files does not have.

        Raises:
            DataError: naming them.
        """
        if unknown := sorted(set(categories) - self.kind.categories):
            raise DataError(
                f"{self.path}: has the categories {unknown[:10]}; data.encoding={self.kind.encoding} needs a file as "
                f"{self.kind.example}, whose categories lie from {min(self.kind.categories)} to "
                f"{max(self.kind.categories)}"
            )

    def files(self, folder: Path, layout: str) -> FileIndex:
        """The images' files, found by their numbers in a folder, however nested; in the order of `images`.

        Raises:
            DataError: if one of them is not there.
        """
        present = numbered(folder, IMAGE_SUFFIXES, layout)
        names = [image["file_name"] for image in self.images.values()]
        numbers = [image_id(PurePath(name)) for name in names]
        if missing := [name for name, number in zip(names, numbers, strict=True) if number not in present]:
            raise DataError(
                f"{len(missing)} of the {len(names)} images that {self.path} lists are not in {folder}; the first is "
                f"{missing[0]}; add them, or name their folder with data.train_images or data.val_images"
            )
        return FileIndex(folder, [present[number] for number in numbers])
