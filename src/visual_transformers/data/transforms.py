"""Augmentation and normalisation, all of torchvision.transforms.v2: images and masks are changed together."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IGNORE = 255
"""Label of pixels that count nowhere, in every data set of the suite."""


def normalise() -> list[v2.Transform]:
    """uint8 image -> float32 with ImageNet's mean and deviation, which pretrained backbones expect."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """Undo `normalise`: float (..., 3, H, W) -> uint8, for pictures."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def crop_and_flip(image_size: int, min_crop_area: float, flip: bool) -> v2.Compose:
    """The baseline recipe for classification: RandomResizedCrop to `image_size` pixels, then a horizontal flip."""
    return v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(image_size, scale=(min_crop_area, 1.0), antialias=True),
            *([v2.RandomHorizontalFlip()] if flip else []),
            *normalise(),
        ]
    )


def resize_and_centre_crop(resize: int, image_size: int) -> v2.Compose:
    """Evaluation of classification: the short side to `resize` pixels, then the central `image_size` square."""
    return v2.Compose([v2.ToImage(), v2.Resize(resize, antialias=True), v2.CenterCrop(image_size), *normalise()])


class ScaleCropFlip(v2.Transform):
    """Random scale, crop and flip of an image and its mask; what the crop has too much is padded and ignored.

    Args:
        crop: side of the square crop, pixels.
        min_scale, max_scale: bounds of the resize factor, relative to the image's own size.
        flip: whether to flip left and right half of the time.
    """

    def __init__(self, *, crop: int, min_scale: float, max_scale: float, flip: bool):
        super().__init__()
        self.min_scale, self.max_scale = min_scale, max_scale
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE}
        self.rest = v2.Compose(
            [
                v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
                *([v2.RandomHorizontalFlip()] if flip else []),
                *normalise(),
            ]
        )

    def forward(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> Any:
        """uint8 image (3, H, W) and mask (H, W) -> float image (3, crop, crop) and mask (crop, crop)."""
        scale = float(torch.empty(()).uniform_(self.min_scale, self.max_scale))
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = v2.functional.resize(image, size, antialias=True)
        mask = v2.functional.resize(mask, size, interpolation=v2.InterpolationMode.NEAREST_EXACT)
        return self.rest(image, mask)


def whole_image() -> v2.Compose:
    """Evaluation of segmentation: the whole image at its own size, the mask untouched."""
    return v2.Compose([v2.ToImage(), *normalise()])
