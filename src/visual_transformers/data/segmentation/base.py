"""Bases of the data sets with one mask per image, and the meaning of the values in mask files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.data.datamodule import FileData, spread_indices
from visual_transformers.data.dataset import MaskedImages, MaskedTransform, Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_names import match_disk_spelling
from visual_transformers.data.io.files import join_first, read_mask, require_folder
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.errors import BadFileError, DataError

INVALID = -1
"""Entry of a label table for values that a mask must not hold."""


@dataclass
class LabelTable:
    """Class index, `IGNORE_INDEX` or `INVALID` for each of the 256 values of a mask file.

    `remedy` names the setting to change if a file holds an invalid value.
    """

    entries: NDArray[np.int64]
    remedy: str

    @classmethod
    def from_labels(cls, labels: Mapping[int, int], ignored: Sequence[int], remedy: str) -> LabelTable:
        """Map mask values to class indices by `labels`, and `ignored` ones to the ignore index."""
        entries = np.full(256, INVALID)
        entries[list(labels)] = list(labels.values())
        entries[list(ignored)] = IGNORE_INDEX
        return cls(entries, remedy)

    def translate(self, mask: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Translate a mask file's values into class indices (H, W).

        Raises:
            BadFileError: if values are invalid.
        """
        labels = self.entries[mask]
        if (labels == INVALID).any():
            values = np.unique(mask[labels == INVALID]).tolist()
            raise BadFileError(path, f"labels {values} are out of range; {self.remedy}")
        return labels.astype(np.uint8)


class MaskFiles:
    """Masks in files, one for each image, and the meaning of their values."""

    def __init__(self, files: FileIndex, table: LabelTable):
        self.files, self.table = files, table

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Read class indices (H, W).

        Raises:
            BadFileError: if the file cannot be read or holds invalid values.
        """
        path = self.files[index]
        return self.table.translate(read_mask(path), path)

    def origin(self, index: int) -> str:
        """Return the mask file."""
        return str(self.files[index])

    def subset(self, indices: NDArray[np.int64]) -> MaskFiles:
        """Select masks by their indices."""
        return MaskFiles(self.files.subset(indices), self.table)


@dataclass(kw_only=True)
class MaskData(FileData):
    """Base of the data sets with one mask per image."""

    task: ClassVar[str] = "segmentation"

    augmentation: ScaleCropFlip = field(default_factory=ScaleCropFlip)

    @abstractmethod
    def find_pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Find the images and masks of `train`, `val` or `test`, including excluded ones.

        Raises:
            DataError: if the folders are not as expected.
        """

    def train_set(self) -> MaskedImages:
        """Random scales, crops and flips of the training images."""
        return self._build_set("train", self.augmentation.build_transform(self.mirrored_labels))

    def val_set(self) -> MaskedImages:
        """Whole validation images in their own size."""
        return self._build_set("val", decode_whole_image)

    def test_set(self) -> MaskedImages:
        """Whole test images in their own size."""
        return self._build_set("test", decode_whole_image)

    def load_val_images(self, count: int) -> list[tuple[str, Image]]:
        """Read validation images, named by file."""
        images = self.val_set().images
        return [(images[i].stem, read_image(images[i], self.reading)[0]) for i in spread_indices(len(images), count)]

    def check_targets(self, counts: NDArray[np.int64], samples: int) -> None:
        """Print which classes have no pixel and how many pixels are ignored, as 255 may be meant to be a class."""
        *class_counts, ignored = counts.tolist()
        missing = [name for name, count in zip(self.classes, class_counts, strict=True) if not count]
        share = f"{100 * ignored / max(1, sum(counts)):.0f} % of their pixels are ignored"
        remedy = (
            "If ignored values are a class, e.g. 255 of two, use data=mask_folder data.label_map={0:0,255:1} "
            "data.ignore_labels=[]."
        )
        if len(missing) == len(class_counts):
            raise DataError(f"in the {samples} masks checked, no class has pixels: {share}. {remedy}")
        if missing:
            print(
                f"note: {len(missing)} of {len(class_counts)} classes have no pixel in the {samples} masks checked "
                f"({join_first(missing)}); {share}. {remedy if ignored else ''}".rstrip()
            )

    def _build_set(self, split: str, transform: MaskedTransform) -> MaskedImages:
        images, masks = self.find_pairs(split)
        kept = self.kept_indices(images, [masks.origin(i) for i in range(len(images))] if self.excluded else images)
        if len(kept) < len(images):
            images, masks = images.subset(kept), masks.subset(kept)
        return MaskedImages(images, masks, transform, self.reading)


def decode_whole_image(image: EncodedImage, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Decode an image for evaluation in its own size; the mask stays as it is."""
    return image.whole(), mask.as_subclass(Tensor)


@dataclass(kw_only=True)
class SplitFolders(MaskData):
    """Base of the data sets that have a folder of images and a folder or file of masks for each split."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_folder(Path(self.root), self.layout())

    @abstractmethod
    def candidate_paths(self, split: str) -> tuple[list[str], list[str]]:
        """Paths below the root where a split's images and masks may be; the first that exists is used."""

    @abstractmethod
    def example_pair(self, images: str, masks: str) -> str:
        """Example of an image and its mask below these paths, for messages."""

    def find_split(self, split: str) -> tuple[Path, Path]:
        """Find the images and the masks of `train`, `val` or `test`.

        Raises:
            DataError: if one of them is missing; shows the expected layout.
        """
        images, masks = self.candidate_paths(split)
        return self._find_first(images), self._find_first(masks)

    def layout(self) -> str:
        """Expected folders and files, for messages."""
        splits = map(self.candidate_paths, ("train", "val"))
        return "\n".join(f"  {self.example_pair(images[0], masks[0])}" for images, masks in splits)

    def _find_first(self, candidates: list[str]) -> Path:
        paths = [Path(self.root) / candidate for candidate in candidates]
        for path in map(match_disk_spelling, paths):
            if path.exists():
                return path
        raise DataError(f"{paths[0]}: no such folder or file; expected the layout\n{self.layout()}")
