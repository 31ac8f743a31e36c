"""Evaluation's view of images, and the way from uint8 to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IGNORE = 255
"""Label of pixels that count nowhere, in every data set of the suite."""


class Normalise(nn.Module):
    """uint8 (B, 3, H, W) -> float32 with ImageNet's mean and deviation, which pretrained backbones expect.

    Loaders hand on bytes, a quarter of the floats, and this runs on the device. Its numbers live there as buffers:
    torchvision's function would copy them there for every batch, and wait.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """The images that the model sees."""
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)


def normalise() -> list[v2.Transform]:
    """The same as `Normalise` for one image at a time, as torchvision does it."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]


def denormalise(images: Tensor) -> Tensor:
    """Undo `normalise`: float (..., 3, H, W) -> uint8, for pictures."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def mirrored_classes(count: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """For each of `count` class indices the one that it is in a mirrored image, where those of a pair are swapped."""
    swapped = torch.arange(count)
    for one, other in pairs:
        swapped[one], swapped[other] = other, one
    return swapped


def centre_crop(resize: int, image_size: int) -> list[v2.Transform]:
    """Evaluation of classification: the short side to `resize` pixels, then the central `image_size` square."""
    return [v2.ToImage(), v2.Resize(resize, antialias=True), v2.CenterCrop(image_size)]


def whole_image() -> v2.Compose:
    """Segmentation beyond the data set: a whole image of Pillow's as normalised floats."""
    return v2.Compose([v2.ToImage(), *normalise()])
