"""Base of the published data sets whose splits are text files with names of images: LIP and VOC."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.data.segmentation.base import LabelTable, MaskData, MaskFiles
from visual_transformers.data.segmentation.pairing import pair_listed


@dataclass(kw_only=True)
class ListedMasks(MaskData):
    """Data set of fixed layout and classes, with 255 in masks for ignored pixels."""

    NAMES: ClassVar[tuple[str, ...]]
    """Class names in the order of their labels in the masks."""

    @abstractmethod
    def split_paths(self, split: str) -> tuple[Path, Path, Path]:
        """Paths of `train` or `val`: the list of names, the folder of NAME.jpg and the folder of NAME.png."""

    @classmethod
    def classes_from_settings(cls, settings: dict[str, Any]) -> list[str]:
        """Class names, whatever the settings."""
        return list(cls.NAMES)

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.NAMES)

    def find_pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Find images and masks; `test` is `val`, because masks of test images are not published."""
        paths = self.split_paths("train" if split == "train" else "val")
        images, masks = pair_listed(*paths, self.layout(), self.excluded)
        count = len(self.NAMES)
        remedy = (
            f"this data set's are 0 to {count - 1}, or {IGNORE_INDEX} for none. Use data=mask_folder to read others."
        )
        return images, MaskFiles(masks, LabelTable.from_labels({i: i for i in range(count)}, [IGNORE_INDEX], remedy))

    def layout(self) -> str:
        """Expected folders and files, for messages."""
        return "\n".join(
            f"  {names} with names, {images}/NAME.jpg and {masks}/NAME.png"
            for names, images, masks in map(self.split_paths, ("train", "val"))
        )
