"""Images with a mask each: what the values of mask files mean, and the bases of the data sets that have them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.data.datamodule import FileData, Preparation, spread
from visual_transformers.data.dataset import MaskedImages, MaskedView, Masks
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_names import as_on_disk
from visual_transformers.data.io.files import first, folder, read_mask
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.normalization import IGNORE, whole_image
from visual_transformers.errors import BadFileError, DataError

INVALID = -1
"""Entry of a label table for values that a mask must not hold."""


@dataclass
class LabelTable:
    """What each of the 256 values of a mask file means: a class index, `IGNORE` or `INVALID`.

    `remedy` names the setting to change when a file holds an invalid value.
    """

    entries: NDArray[np.int64]
    remedy: str

    @classmethod
    def plain(cls, classes: int, ignored: Sequence[int], remedy: str) -> LabelTable:
        """Labels 0 to `classes` - 1 stand for themselves, the `ignored` ones count nowhere, all others are invalid."""
        return cls.of({i: i for i in range(classes)}, ignored, remedy)

    @classmethod
    def of(cls, labels: Mapping[int, int], ignored: Sequence[int], remedy: str) -> LabelTable:
        """Map pixel values to class indices by `labels`; `ignored` values count nowhere, others are invalid."""
        entries = np.full(256, INVALID)
        entries[list(labels)] = list(labels.values())
        entries[list(ignored)] = IGNORE
        return cls(entries, remedy)

    def translate(self, mask: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Class indices (H, W) of a mask file's values.

        Raises:
            BadFileError: naming the file, the values and the setting that would mend it.
        """
        labels = self.entries[mask]
        if (labels == INVALID).any():
            values = np.unique(mask[labels == INVALID]).tolist()
            raise BadFileError(path, f"labels {values} are out of range; {self.remedy}")
        return labels.astype(np.uint8)


class MaskFiles:
    """Masks that are files.

    Args:
        files: one for each image.
        table: what their values mean.
    """

    def __init__(self, files: FileIndex, table: LabelTable):
        self.files, self.table = files, table

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W).

        Raises:
            BadFileError: if the file cannot be read or holds a label that is out of range.
        """
        path = self.files[index]
        return self.table.translate(read_mask(path), path)

    def origin(self, index: int) -> str:
        """The file."""
        return str(self.files[index])

    def subset(self, places: NDArray[np.int64]) -> MaskFiles:
        """The masks at some places."""
        return MaskFiles(self.files.subset(places), self.table)


@dataclass(kw_only=True)
class MaskData(FileData):
    """Base of the data sets with one mask an image.

    Args:
        augmentation: what training images and their masks go through.
    """

    task: ClassVar[str] = "segmentation"

    augmentation: ScaleCropFlip = field(default_factory=ScaleCropFlip)

    @abstractmethod
    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Images and masks of `train`, `val` or `test`.

        Raises:
            DataError: if the folders are not as expected.
        """

    def train_set(self) -> MaskedImages:
        """Random scales, crops and flips of the training images."""
        return self._set("train", self.augmentation.view(self.mirrored_labels))

    def val_set(self) -> MaskedImages:
        """Whole validation images at their own size."""
        return self._set("val", whole)

    def test_set(self) -> MaskedImages:
        """Whole test images at their own size."""
        return self._set("test", whole)

    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """Images of the validation split."""
        images = self.val_set().images
        return [(images[i].stem, read_image(images[i], self.reading)[0]) for i in spread(len(images), count)]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The whole image at its own size."""
        return whole_image()

    def check_targets(self, counts: NDArray[np.int64], samples: int) -> None:
        """Say which classes have no pixel, beside how many are ignored: 255 may be meant to be one of them."""
        *of_classes, ignored = counts.tolist()
        missing = [name for name, count in zip(self.classes, of_classes, strict=True) if not count]
        share = f"{100 * ignored / max(1, sum(counts)):.0f} % of their pixels are ignored"
        remedy = (
            "If ignored values are a class, e.g. 255 of two, use data=mask_folder data.label_map={0:0,255:1} "
            "data.ignore_labels=[]."
        )
        if len(missing) == len(of_classes):
            raise DataError(f"in the {samples} masks checked, no class has pixels: {share}. {remedy}")
        if missing:
            print(
                f"note: {len(missing)} of {len(of_classes)} classes have no pixel in the {samples} masks checked "
                f"({first(missing)}); {share}. {remedy if ignored else ''}".rstrip()
            )

    def _set(self, split: str, view: MaskedView) -> MaskedImages:
        images, masks = self.pairs(split)
        places = self.places_kept(images, [masks.origin(i) for i in range(len(images))] if self.excluded else images)
        if len(places) < len(images):
            images, masks = images.subset(places), masks.subset(places)
        return MaskedImages(images, masks, view, self.reading)


def whole(image: EncodedImage, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluation of segmentation: the whole image at its own size, the mask untouched."""
    return image.whole(), mask.as_subclass(Tensor)


@dataclass(kw_only=True)
class SplitFolders(MaskData):
    """Base of the data sets that have a place of images and a place of masks for each split.

    Args:
        train_images, train_masks, val_images, val_masks: places below it; null for the usual ones.
    """

    train_images: str | None = None
    train_masks: str | None = None
    val_images: str | None = None
    val_masks: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        folder(Path(self.root), self.layout())

    def usual(self, split: str) -> tuple[list[str], list[str]]:
        """Where they are looked for if no key says so; the first place that is there counts."""
        return [], []

    def choices(self, split: str) -> tuple[list[str], list[str]]:
        """Where the images and the masks of a split may be: where the keys say, or else in one of the usual places."""
        train = split == "train"
        images, masks = (self.train_images, self.train_masks) if train else (self.val_images, self.val_masks)
        usual_images, usual_masks = self.usual(split)
        return usual_images if images is None else [images], usual_masks if masks is None else [masks]

    @abstractmethod
    def examples(self, images: str, masks: str) -> str:
        """An image with its mask, at places below the root, as the expected layout shows them."""

    def places(self, split: str) -> tuple[Path, Path]:
        """Where the images and the masks of `train`, `val` or `test` are; the last is `val` here.

        Raises:
            DataError: if one of them is nowhere, with the layout that is expected.
        """
        images, masks = self.choices(split)
        return self._first(images), self._first(masks)

    def layout(self) -> str:
        """What the folder should look like, for messages."""
        splits = map(self.choices, ("train", "val"))
        return "\n".join(f"  {self.examples(images[0], masks[0])}" for images, masks in splits)

    def _first(self, choices: list[str]) -> Path:
        paths = [Path(self.root) / choice for choice in choices]
        for path in map(as_on_disk, paths):
            if path.exists():
                return path
        raise DataError(f"{paths[0]}: no such folder or file; expected the layout\n{self.layout()}")
