"""Random transforms of training images: a crop drawn before the file is decoded, then torchvision's transforms.

Each dataclass here is an option of the group `data/augmentation`; its fields are the keys, described in
`conf/data/augmentation/`.
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
from visual_transformers.data.labels import IGNORE_INDEX, build_mirror_table
from visual_transformers.errors import DataError

POLICIES = {"autoaugment": v2.AutoAugment, "trivialaugment": v2.TrivialAugmentWide}
ASPECT_RATIOS = (3 / 4, 4 / 3)
"""Bounds of a random crop's aspect ratio, width to height."""


@dataclass(kw_only=True)
class CropAndFlip:
    """Augmentation for classification: RandomResizedCrop, flip, policy, random erasing, mixup and cutmix.

    Raises:
        DataError: if a number is out of range.
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
        _require(0 < self.min_area <= 1, "above 0 and at most 1", min_area=self.min_area)
        _require(0 <= self.erase <= 1, "0 to 1", erase=self.erase)
        _require(self.operations >= 1, "at least 1", operations=self.operations)
        _require(0 <= self.magnitude <= 30, "0 to 30", magnitude=self.magnitude)
        _require(0 <= self.mixup < math.inf, "at least 0, and finite", mixup=self.mixup)
        _require(0 <= self.cutmix < math.inf, "at least 0, and finite", cutmix=self.cutmix)

    def build_transform(self, image_size: int) -> CropTransform:
        """Build the transform of training images to squares of `image_size` pixels."""
        transforms: list[v2.Transform] = [v2.RandomHorizontalFlip()] if self.flip else []
        if self.policy == "randaugment":
            transforms.append(v2.RandAugment(self.operations, self.magnitude))
        elif self.policy != "none":
            transforms.append(POLICIES[self.policy]())
        if self.erase:
            transforms.append(v2.RandomErasing(self.erase))
        return CropTransform(image_size, self.min_area, transforms)

    def build_mixing(self, classes: int) -> v2.Transform | None:
        """Build mixup and cutmix of float images (B, 3, H, W) and class indices (B) to soft targets (B, C)."""
        alphas = {v2.MixUp: self.mixup, v2.CutMix: self.cutmix}
        transforms = [kind(alpha=alpha, num_classes=classes) for kind, alpha in alphas.items() if alpha]
        return v2.RandomChoice(transforms) if transforms else None


class CropTransform:
    """torchvision's RandomResizedCrop, drawn before the image is decoded, followed by `transforms` of the crop."""

    def __init__(self, image_size: int, min_area: float, transforms: Sequence[v2.Transform]):
        self.size, self.area = (image_size, image_size), [min_area, 1.0]
        self.transforms = v2.Compose([v2.Identity(), *transforms])  # Compose refuses an empty list

    def __call__(self, image: EncodedImage) -> Tensor:
        """Decode and transform a random crop, uint8 (3, image_size, image_size)."""
        shape_only = torch.empty(0, image.height, image.width)
        top, left, height, width = RandomResizedCrop.get_params(shape_only, self.area, list(ASPECT_RATIOS))
        crop: Tensor = self.transforms(tv_tensors.Image(image.crop(top, left, height, width, self.size)))
        return crop.as_subclass(Tensor)


@dataclass(kw_only=True)
class ScaleCropFlip:
    """Augmentation for segmentation: random scale, square crop, flip and colour jitter of images and masks.

    Raises:
        DataError: if a number is out of range.
    """

    task: ClassVar[str] = "segmentation"

    crop: int = 512
    base: int | None = None
    min_scale: float = 0.5
    max_scale: float = 2.0
    flip: bool = True
    colour: float = 0.0

    def __post_init__(self) -> None:
        _require(self.crop >= 1, "at least 1 pixel", crop=self.crop)
        _require(self.base is None or self.base >= 1, "null, or at least 1 pixel", base=self.base)
        _require(
            0 < self.min_scale <= self.max_scale < math.inf,
            "above 0, finite and in order",
            min_scale=self.min_scale,
            max_scale=self.max_scale,
        )
        _require(0 <= self.colour <= 1, "0 to 1", colour=self.colour)

    def build_transform(self, mirrored_labels: Sequence[tuple[int, int]] = ()) -> ScaleCropTransform:
        """Build the transform of images and masks; mirroring swaps the class indices of each pair."""
        return ScaleCropTransform(self, mirrored_labels)


class ScaleCropTransform:
    """Cut a random rectangle from an image and its mask, and scale it to the crop's size in one step.

    Scaling the whole image before cropping would give the same pixels for more work. The rectangle has whole pixels,
    which rounds the scale by less than one part in the crop's side.
    """

    def __init__(self, augmentation: ScaleCropFlip, mirrored_labels: Sequence[tuple[int, int]]):
        self.settings = augmentation
        strength = augmentation.colour
        self.colour = v2.ColorJitter(strength, strength, strength, strength / 4) if strength else None
        self.mirror_table = build_mirror_table(256, mirrored_labels).to(torch.uint8)

    def __call__(self, image: EncodedImage, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor]:
        """Return the crop of image and mask, uint8 (3, crop, crop) and (crop, crop)."""
        settings = self.settings
        base = settings.base / min(image.height, image.width) if settings.base else 1.0
        scale = base * float(torch.empty(()).uniform_(settings.min_scale, settings.max_scale))
        rows, columns = (_draw_extent(side, scale, settings.crop) for side in (image.height, image.width))
        size = (rows.size, columns.size)
        pixels = image.crop(rows.start, columns.start, rows.length, columns.length, size)
        labels = F.crop(mask.as_subclass(Tensor)[None], rows.start, columns.start, rows.length, columns.length)
        labels = F.resize(labels, list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)
        if settings.flip and torch.rand(()) < 0.5:
            pixels, labels = pixels.flip(-1), self.mirror_table[labels.flip(-1).long()]
        if self.colour is not None:
            pixels = self.colour(tv_tensors.Image(pixels)).as_subclass(Tensor)
        padding = [columns.before, rows.before, columns.after, rows.after]
        return F.pad(pixels, padding), F.pad(labels, padding, fill=IGNORE_INDEX)[0]


@dataclass(frozen=True)
class Extent:
    """Part of an image's side: `length` pixels from `start`, resized to `size`, with padding `before` and `after`."""

    start: int
    length: int
    size: int
    before: int = 0
    after: int = 0


def _draw_extent(side: int, scale: float, crop: int) -> Extent:
    """Draw a random extent that is `crop` pixels long after scaling and padding."""
    scaled = max(1, round(side * scale))
    if scaled <= crop:
        before = int(torch.randint(crop - scaled + 1, ()))
        return Extent(0, side, scaled, before, crop - scaled - before)
    length = max(1, min(side, round(crop / scale)))
    return Extent(int(torch.randint(side - length + 1, ())), length, crop)


def _require(valid: bool, expected: str, **values: float | None) -> None:
    """Raise a DataError that names the keys of invalid values and what is expected of them."""
    if not valid:
        settings = ", ".join(f"data.augmentation.{key}={value}" for key, value in values.items())
        raise DataError(f"{settings}: must be {expected}")
