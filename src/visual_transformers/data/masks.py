"""Images with a PNG mask each: pairing, reading, translating labels; and the generic `mask_folder` data set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.files import folder, images_in, read_image, read_mask
from visual_transformers.data.module import DataModule, Preparation, Samples, spread
from visual_transformers.data.transforms import IGNORE, ScaleCropFlip, whole_image
from visual_transformers.errors import DataError

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
            DataError: naming the file, the values and the setting that would mend it.
        """
        labels = self.entries[mask]
        if (labels == INVALID).any():
            values = np.unique(mask[labels == INVALID]).tolist()
            raise DataError(f"{path}: labels {values} are out of range; {self.remedy(values)}")
        return labels.astype(np.uint8)


class MaskedImages:
    """Images and their masks, both files; `transform` takes a tv_tensors Image and Mask."""

    def __init__(self, pairs: list[tuple[Path, Path]], table: LabelTable, transform: Callable[[Any, Any], Any]):
        self.pairs, self.table, self.transform = pairs, table, transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.transform(*self.read(index))
        return image, mask.to(torch.int64)

    def read(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """The image (3, H, W) uint8 and its translated mask (H, W) uint8, before any transform.

        Raises:
            DataError: if one cannot be read, their sizes differ, or a label is out of range.
        """
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path), read_mask(mask_path)
        if (image.height, image.width) != mask.shape:
            raise DataError(
                f"{mask_path}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels and its image {image_path} "
                f"{image.width} x {image.height}; they must be equal"
            )
        labels = self.table.translate(mask, mask_path)
        return tv_tensors.Image(v2.functional.pil_to_tensor(image)), tv_tensors.Mask(torch.from_numpy(labels))


def pair(images: Path, masks: Path, layout: str, mask_suffix: str = ".png") -> list[tuple[Path, Path]]:
    """Each image of a folder with the mask of the same name.

    Raises:
        DataError: if a folder or a mask is missing, or there are no images.
    """
    folder(images, layout)
    folder(masks, layout)
    files = [file for file in images_in(images) if images != masks or not file.name.endswith(mask_suffix)]
    if not files:
        raise DataError(f"{images}: holds no images; expected the layout\n{layout}")
    pairs = [(file, masks / file.relative_to(images).with_name(file.stem + mask_suffix)) for file in files]
    present = {path.relative_to(masks) for path in masks.rglob(f"*{mask_suffix}")}
    missing = [(image, mask) for image, mask in pairs if mask.relative_to(masks) not in present]
    if missing:
        image, mask = missing[0]
        raise DataError(f"{len(missing)} of {len(files)} images have no mask; the first is {image}, which needs {mask}")
    return pairs


@dataclass(kw_only=True)
class MaskData(DataModule):
    """Base of the data sets with one mask file an image.

    Args:
        crop: side of the square training crop, pixels.
        min_scale, max_scale: bounds of the random resize before the crop, relative to the image.
        flip: whether training images are flipped left and right half of the time.
        check_files: image and mask pairs of each split that are opened before training.
    """

    task: ClassVar[str] = "segmentation"

    crop: int = 512
    min_scale: float = 0.5
    max_scale: float = 2.0
    flip: bool = True
    check_files: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale:
            raise DataError(
                f"data.min_scale={self.min_scale} and data.max_scale={self.max_scale}: must be above 0 and in order"
            )

    @abstractmethod
    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Image and mask files of `train`, `val` or `test`."""

    @abstractmethod
    def table(self) -> LabelTable:
        """What the values of a mask file mean."""

    def train_set(self) -> Samples:
        """Random scales, crops and flips of the training images."""
        transform = ScaleCropFlip(crop=self.crop, min_scale=self.min_scale, max_scale=self.max_scale, flip=self.flip)
        return MaskedImages(self.pairs("train"), self.table(), transform)

    def val_set(self) -> Samples:
        """Whole validation images at their own size."""
        return MaskedImages(self.pairs("val"), self.table(), whole_image())

    def test_set(self) -> Samples:
        """Whole test images at their own size."""
        return MaskedImages(self.pairs("test"), self.table(), whole_image())

    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """Images of the validation split."""
        pairs = self.pairs("val")
        return [(pairs[i][0].stem, read_image(pairs[i][0])) for i in spread(len(pairs), count)]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The whole image at its own size."""
        return whole_image()

    def check(self, samples: Samples) -> None:
        """Open an even sample of the images and their masks."""
        super().check(samples)
        assert isinstance(samples, MaskedImages)
        for index in spread(len(samples), self.check_files):
            samples.read(index)


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

    def pairs(self, split: str) -> list[tuple[Path, Path]]:
        """Image and mask files of a split; the test split is the validation one where none is configured."""
        folders = {
            "train": (self.train_images, self.train_masks),
            "val": (self.val_images, self.val_masks),
            "test": (self.test_images or self.val_images, self.test_masks or self.val_masks),
        }
        images, masks = folders[split]
        return pair(Path(self.root) / images, Path(self.root) / masks, self._layout(), self.mask_suffix)

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
