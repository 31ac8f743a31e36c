"""Base of the published data sets whose splits are text files with the names of images: LIP, VOC."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from visual_transformers.data.dataset import Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.files import folder
from visual_transformers.data.normalization import IGNORE
from visual_transformers.data.segmentation.base import LabelTable, MaskData, MaskFiles
from visual_transformers.data.segmentation.pairing import pair_listed


class ListedSplit(NamedTuple):
    """Where a split is: a text file with names, the folder of NAME.jpg, the folder of NAME.png."""

    names: Path
    images: Path
    masks: Path


@dataclass(kw_only=True)
class ListedMasks(MaskData):
    """A data set of fixed layout and classes; 255 in a mask counts nowhere.

    Raises:
        DataError: if the folder is missing.
    """

    NAMES: ClassVar[tuple[str, ...]]
    """The classes, in the order of their labels in the masks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fetch()
        folder(self.home(), self.layout())

    def fetch(self) -> None:
        """Download what is not there, for a data set that can be, if that is asked for."""

    @abstractmethod
    def split(self, name: str) -> ListedSplit:
        """The files of `train` or `val`."""

    def home(self) -> Path:
        """The folder that must be there."""
        return Path(self.root)

    @classmethod
    def known_classes(cls, settings: dict[str, Any]) -> list[str]:
        """The same whatever the settings."""
        return list(cls.NAMES)

    @property
    def classes(self) -> list[str]:
        """The names of the labels."""
        return list(self.NAMES)

    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Images and masks of `train` or `val`; `test` is `val`, for the masks of test images are not published."""
        files, mask_files = pair_listed(
            *self.split("train" if split == "train" else "val"), self.layout(), self.excluded
        )
        return files, MaskFiles(mask_files, self.table())

    def table(self) -> LabelTable:
        """Labels stand for themselves."""
        return LabelTable.plain(
            len(self.NAMES),
            [IGNORE],
            f"this data set's are 0 to {len(self.NAMES) - 1}, or {IGNORE} for none; data=mask_folder reads any others",
        )

    def layout(self) -> str:
        """What the folder should look like, for messages."""
        return "\n".join(
            f"  {names} with names, {images}/NAME.jpg and {masks}/NAME.png"
            for names, images, masks in map(self.split, ("train", "val"))
        )
