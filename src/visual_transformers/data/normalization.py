"""Evaluation's view of images, and the way from uint8 to what a model takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

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


def mirrored_classes(count: int, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """For each of `count` class indices the one that it is in a mirrored image, where those of a pair are swapped."""
    swapped = torch.arange(count)
    for one, other in pairs:
        swapped[one], swapped[other] = other, one
    return swapped


def centre_crop(resize: int, image_size: int) -> list[v2.Transform]:
    """Evaluation of classification: the short side to `resize` pixels, then the central `image_size` square."""
    return [v2.ToImage(), Shortened(resize, image_size), v2.Resize(resize, antialias=True), v2.CenterCrop(image_size)]


class Shortened(v2.Transform):
    """The middle of an extremely long image, as much as a central crop can see of it once it is resized.

    An image of 1 x 20,000 pixels, say, would need gigabytes to be resized as a whole.
    """

    def __init__(self, resize: int, image_size: int):
        super().__init__()
        self.resize, self.image_size = resize, image_size

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop images whose aspect ratio exceeds `EXTREME`; return others unchanged."""
        height, width = inpt.shape[-2:]
        short, long = sorted((height, width))
        if long <= EXTREME * short:
            return inpt
        scale = self.resize / short
        needed = math.ceil(self.image_size / scale) + 2 * math.ceil(MARGIN * max(1, 1 / scale))
        step = short // math.gcd(short, self.resize)  # pixels that become whole pixels, so that both have one grid
        cut = max(0, (long - max(short, needed)) // 2) // step * step
        kept = long - 2 * cut
        return F.crop(inpt, cut, 0, kept, width) if height == long else F.crop(inpt, 0, cut, height, kept)


EXTREME = 8
"""Long sides over short ones."""
MARGIN = 4
"""Pixels of the larger of both images beyond the crop that interpolation may look at."""


def whole_image() -> v2.Compose:
    """Segmentation beyond the data set: a whole image of Pillow's."""
    return v2.Compose([v2.ToImage()])
