"""What training images go through: crops decided before a file is decoded, then torchvision's transforms on uint8.

Each class here is an option of the group `data/augmentation`; its fields are its keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as F

from visual_transformers.data.io.images import EncodedImage
from visual_transformers.data.normalization import IGNORE, mirrored_classes
from visual_transformers.errors import DataError

POLICIES = {"autoaugment": v2.AutoAugment, "trivialaugment": v2.TrivialAugmentWide}


@dataclass(kw_only=True)
class CropAndFlip:
    """Images for classification: RandomResizedCrop and a flip, then as much more as the keys ask for.

    Args:
        min_area: least area of a crop, as a part of the image.
        flip: whether images are mirrored half of the time.
        policy: `none`, `autoaugment` (the ImageNet policy), `randaugment` or `trivialaugment`.
        operations: of `randaugment`, how many an image.
        magnitude: of `randaugment`, 0 to 30.
        erase: chance that a random rectangle is blackened.
        mixup: alpha of the Beta distribution that mixes two images; 0 for no mixup.
        cutmix: alpha of the Beta distribution of the area that one image gives another; 0 for no cutmix. With mixup
            too, each batch draws one of the two.

    Raises:
        DataError: if a number is out of its range.
    """

    task: ClassVar[str] = "classification"

    min_area: float = 0.08
    flip: bool = True
    policy: Literal["none", "autoaugment", "randaugment", "trivialaugment"] = "none"
    operations: int = 2
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise DataError(f"data.augmentation.min_area={self.min_area}: must be above 0 and at most 1")
        if not 0 <= self.erase <= 1:
            raise DataError(f"data.augmentation.erase={self.erase}: must be 0 to 1, for it is a chance")
        if self.operations < 1 or not 0 <= self.magnitude <= 30:
            raise DataError(
                f"data.augmentation.operations={self.operations}, magnitude={self.magnitude}: must be at least 1, and "
                "0 to 30"
            )
        for key in ("mixup", "cutmix"):
            if not 0 <= getattr(self, key) < math.inf:
                raise DataError(f"data.augmentation.{key}={getattr(self, key)}: must be at least 0, and finite")

    def view(self, image_size: int) -> CroppedView:
        """What becomes of an image, at `image_size` pixels a side."""
        after: list[v2.Transform] = [v2.RandomHorizontalFlip()] if self.flip else []
        if self.policy == "randaugment":
            after.append(v2.RandAugment(self.operations, self.magnitude))
        elif self.policy != "none":
            after.append(POLICIES[self.policy]())
        if self.erase:
            after.append(v2.RandomErasing(self.erase))
        return CroppedView(image_size, self.min_area, after)

    def mixing(self, classes: int) -> v2.Transform | None:
        """What a batch of float images (B, 3, H, W) and classes (B) goes through, to shares of classes (B, C)."""
        kinds = {v2.MixUp: self.mixup, v2.CutMix: self.cutmix}
        chosen = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds.items() if alpha]
        return v2.RandomChoice(chosen) if chosen else None


class CroppedView:
    """torchvision's RandomResizedCrop, decided before the image is decoded, and transforms of the crop."""

    def __init__(self, image_size: int, min_area: float, after: Sequence[v2.Transform]):
        self.size, self.area = (image_size, image_size), (min_area, 1.0)
        self.after = v2.Compose([v2.Identity(), *after])

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 (3, image_size, image_size)."""
        top, left, height, width = crop_parameters(image.height, image.width, self.area)
        crop: Tensor = self.after(tv_tensors.Image(image.crop(top, left, height, width, self.size)))
        return crop.as_subclass(Tensor)


RATIOS = (3 / 4, 4 / 3)
"""Bounds of a crop's aspect ratio, width to height."""


def crop_parameters(height: int, width: int, area: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop, drawn as torchvision's RandomResizedCrop draws them."""
    picture = torch.empty(0, height, width)  # only its shape is looked at
    return RandomResizedCrop.get_params(picture, list(area), list(RATIOS))


@dataclass(kw_only=True)
class ScaleCropFlip:
    """Images with masks for segmentation: a random scale, a square crop, a flip, and changes of colour.

    Args:
        crop: side of the crop, pixels; what it has too much is padded, black in the image and ignored in the mask.
        base: short side in pixels to which the scales refer; null for the image's own size.
        min_scale, max_scale: bounds of the scale.
        flip: whether images are mirrored half of the time.
        colour: strength of random changes of brightness, contrast and saturation, as parts of the whole, and, a
            quarter of it, of the hue; 0 for none.

    Raises:
        DataError: if a number is out of its range.
    """

    task: ClassVar[str] = "segmentation"

    crop: int = 512
    base: int | None = None
    min_scale: float = 0.5
    max_scale: float = 2.0
    flip: bool = True
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.crop < 1 or (self.base is not None and self.base < 1):
            raise DataError(f"data.augmentation.crop={self.crop}, base={self.base}: must be at least 1 pixel")
        if not 0 < self.min_scale <= self.max_scale < math.inf:
            raise DataError(
                f"data.augmentation.min_scale={self.min_scale} and max_scale={self.max_scale}: must be above 0, finite "
                "and in order"
            )
        if not 0 <= self.colour <= 1:
            raise DataError(f"data.augmentation.colour={self.colour}: must be 0 to 1")

    def view(self, mirrored_labels: Sequence[tuple[int, int]] = ()) -> ScaledView:
        """What becomes of an image and its mask; mirroring swaps the classes of each pair, as left and right arm."""
        return ScaledView(self, mirrored_labels)


class ScaledView:
    """One random rectangle of an image and its mask, brought to the crop's size in one step.

    Scaling the whole image and then cropping it would give the same picture for more work. The rectangle has whole
    pixels, so that the scale is rounded by less than one part in the crop's side.
    """

    def __init__(self, augmentation: ScaleCropFlip, mirrored_labels: Sequence[tuple[int, int]]):
        self.settings = augmentation
        strength = augmentation.colour
        self.colour = v2.ColorJitter(strength, strength, strength, strength / 4) if strength else None
        self.mirrored = mirrored_classes(256, mirrored_labels).to(torch.uint8)

    def __call__(self, image: EncodedImage, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """uint8 (3, crop, crop) and (crop, crop)."""
        settings = self.settings
        base = settings.base / min(image.height, image.width) if settings.base else 1.0
        scale = base * float(torch.empty(()).uniform_(settings.min_scale, settings.max_scale))
        rows, columns = (_extent(side, scale, settings.crop) for side in (image.height, image.width))
        size = (rows.size, columns.size)
        picture = image.crop(rows.start, columns.start, rows.length, columns.length, size)
        labels = mask.as_subclass(Tensor)[
            None, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length
        ]
        labels = F.resize(labels, list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)
        if settings.flip and torch.rand(()) < 0.5:
            picture, labels = picture.flip(-1), self.mirrored[labels.flip(-1).long()]
        if self.colour is not None:
            picture = self.colour(tv_tensors.Image(picture)).as_subclass(Tensor)
        padding = [columns.before, rows.before, columns.after, rows.after]
        return F.pad(picture, padding), F.pad(labels, padding, fill=IGNORE)[0]


@dataclass(frozen=True)
class Extent:
    """A stretch of one side of an image: `length` pixels from `start` become `size`, with padding on both sides."""

    start: int
    length: int
    size: int
    before: int
    after: int


def _extent(side: int, scale: float, crop: int) -> Extent:
    """A random stretch whose size, scaled and padded, is `crop`."""
    scaled = max(1, round(side * scale))
    if scaled <= crop:
        before = int(torch.randint(crop - scaled + 1, ()))
        return Extent(0, side, scaled, before, crop - scaled - before)
    length = max(1, min(side, round(crop / scale)))
    return Extent(int(torch.randint(side - length + 1, ())), length, crop, 0, 0)
