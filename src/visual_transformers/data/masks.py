"""Images with a PNG mask each: pairing, reading, translating labels; and the generic `mask_folder` data set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.data.decoding import EncodedImage
from visual_transformers.data.exclusion import absolute
from visual_transformers.data.files import IMAGE_SUFFIXES, folder, read_image, read_mask
from visual_transformers.data.index import FileIndex
from visual_transformers.data.listing import files_below
from visual_transformers.data.module import FileData, Preparation, spread
from visual_transformers.data.samples import MaskedImages, MaskedView, Masks
from visual_transformers.data.transforms import IGNORE, whole_image
from visual_transformers.errors import BadFileError, DataError, MissingMasksError

INVALID = -1
"""Entry of a label table for values that a mask must not hold."""


@dataclass
class LabelTable:
    """What each of the 256 values of a mask file means: a class index, `IGNORE` or `INVALID`.

    `remedy` names the setting to change when a file holds an invalid value.
    """

    entries: NDArray[np.int64]
    remedy: Callable[[list[int]], str]

    def translate(self, mask: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Class indices (H, W) of a mask file's values.

        Raises:
            BadFileError: naming the file, the values and the setting that would mend it.
        """
        labels = self.entries[mask]
        if (labels == INVALID).any():
            values = np.unique(mask[labels == INVALID]).tolist()
            raise BadFileError(path, f"labels {values} are out of range; {self.remedy(values)}")
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


def pair(
    images: Path, masks: Path, layout: str, mask_suffix: str = ".png", excluded: Set[str] = frozenset()
) -> tuple[FileIndex, FileIndex]:
    """The images of a folder, and beside each the mask of the same name; those `excluded` may be without one.

    Raises:
        MissingMasksError: if others are.
        DataError: if a folder is missing, or there are no images.
    """
    folder(images, layout)
    folder(masks, layout)
    names = [n for n in files_below(images, IMAGE_SUFFIXES) if images != masks or not n.endswith(mask_suffix)]
    if not names:
        raise DataError(f"{images}: holds no images; expected the layout\n{layout}")
    needed = [f"{name.rsplit('.', 1)[0]}{mask_suffix}" for name in names]
    present = set(files_below(masks, (mask_suffix.lower(),)))
    alone = [(images / name, masks / mask) for name, mask in zip(names, needed, strict=True) if mask not in present]
    if missing := [files for files in alone if not excluded & set(map(absolute, files))]:
        raise MissingMasksError(missing, len(names))
    return FileIndex(images, names), FileIndex(masks, needed)


@dataclass(kw_only=True)
class MaskData(FileData):
    """Base of the data sets with one mask an image.

    Args:
        augmentation: what training images and their masks go through.
    """

    task: ClassVar[str] = "segmentation"
    mirrored_labels: ClassVar[tuple[tuple[int, int], ...]] = ()
    """Pairs of class indices that a mirrored image swaps, as left and right arm."""

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
        return [(images[i].stem, read_image(images[i])) for i in spread(len(images), count)]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The whole image at its own size."""
        return whole_image()

    def _set(self, split: str, view: MaskedView) -> MaskedImages:
        images, masks = self.pairs(split)
        places = self.places_kept(images, [masks.origin(i) for i in range(len(images))] if self.excluded else images)
        if len(places) < len(images):
            images, masks = images.subset(places), masks.subset(places)
        return MaskedImages(images, masks, view)


def whole(image: EncodedImage, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluation of segmentation: the whole image at its own size, the mask untouched."""
    return image.whole(), mask.as_subclass(Tensor)


@dataclass(kw_only=True)
class MaskFolder(MaskData):
    """Any data set with a folder of images and a folder of 8-bit masks for each split.

    Args:
        root: the data set's folder.
        train_images, train_masks, val_images, val_masks: folders below it.
        test_images, test_masks: folders that `mode=test` scores; null for the validation ones.
        mask_suffix: what follows an image's stem in its mask's name.
        class_names: names of the classes; a pixel of a mask holds an index into them.
        ignore_labels: values of a mask whose pixels count nowhere.
    """

    root: str
    train_images: str = "train/images"
    train_masks: str = "train/masks"
    val_images: str = "val/images"
    val_masks: str = "val/masks"
    test_images: str | None = None
    test_masks: str | None = None
    mask_suffix: str = ".png"
    class_names: list[str] = field(default_factory=list)
    ignore_labels: list[int] = field(default_factory=lambda: [IGNORE])

    def __post_init__(self) -> None:
        folder(Path(self.root), self._layout())
        super().__post_init__()
        if not 1 <= len(self.class_names) <= IGNORE:
            raise DataError(
                f"data.class_names has {len(self.class_names)} names; list 1 to {IGNORE} classes in the order of their "
                "labels in the masks"
            )
        if wrong := [label for label in self.ignore_labels if not 0 <= label <= 255]:
            raise DataError(f"data.ignore_labels: {wrong} cannot occur in 8-bit masks; use values from 0 to 255")
        if (self.test_images is None) != (self.test_masks is None):
            raise DataError("data.test_images and data.test_masks go together; set both or neither")

    @property
    def classes(self) -> list[str]:
        """The configured names."""
        return list(self.class_names)

    def pairs(self, split: str) -> tuple[FileIndex, Masks]:
        """Image and mask files of a split; the test split is the validation one where none is configured."""
        folders = {
            "train": (self.train_images, self.train_masks),
            "val": (self.val_images, self.val_masks),
            "test": (self.test_images or self.val_images, self.test_masks or self.val_masks),
        }
        images, masks = folders[split]
        root = Path(self.root)
        files, mask_files = pair(root / images, root / masks, self._layout(), self.mask_suffix, self.excluded)
        return files, MaskFiles(mask_files, self.table())

    def table(self) -> LabelTable:
        """Labels stand for themselves."""
        entries = np.full(256, INVALID)
        entries[: len(self.class_names)] = np.arange(len(self.class_names))
        entries[self.ignore_labels] = IGNORE
        return LabelTable(
            entries,
            lambda values: (
                f"with {len(self.class_names)} classes they may be 0 to {len(self.class_names) - 1}, or one of "
                f"data.ignore_labels={self.ignore_labels}; add them to data.ignore_labels, or name their classes "
                "in data.class_names"
            ),
        )

    def _layout(self) -> str:
        return "\n".join(
            f"  {self.root}/{images}/NAME.jpg with {self.root}/{masks}/NAME{self.mask_suffix}"
            for images, masks in ((self.train_images, self.train_masks), (self.val_images, self.val_masks))
        )
