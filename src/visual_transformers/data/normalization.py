"""Evaluation transforms of images, and the conversion from uint8 to model input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_ASPECT_RATIO = 8
"""Ratio of long to short side above which `CropLongImage` crops."""
INTERPOLATION_MARGIN = 4
"""Pixels beyond the crop that interpolation may read, in the larger of the original and the resized image."""


class Normalise(nn.Module):
    """Convert uint8 (B, 3, H, W) to float32 with ImageNet's mean and deviation, as pretrained backbones expect.

    Loaders send bytes, a quarter of the size of floats, and this module runs on the device. Its buffers live there too:
    torchvision's function would copy them to the device for every batch, and wait.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Normalize a batch of images."""
        return torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)


def build_centre_crop(resize: int, image_size: int) -> list[v2.Transform]:
    """Build the evaluation transforms of classification: short side to `resize` pixels, then the central square."""
    return [
        v2.ToImage(),
        CropLongImage(resize, image_size),
        v2.Resize(resize, antialias=True),
        v2.CenterCrop(image_size),
    ]


class CropLongImage(v2.Transform):
    """Crop an extremely long image to the middle that a central crop can see after resizing.

    Resizing e.g. an image of 1 x 20,000 pixels as a whole would need gigabytes.
    """

    def __init__(self, resize: int, image_size: int):
        super().__init__()
        self.resize, self.image_size = resize, image_size

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop images whose aspect ratio exceeds `MAX_ASPECT_RATIO`; return others unchanged."""
        height, width = inpt.shape[-2:]
        short, long = sorted((height, width))
        if long <= MAX_ASPECT_RATIO * short:
            return inpt
        scale = self.resize / short
        needed = math.ceil(self.image_size / scale) + 2 * math.ceil(INTERPOLATION_MARGIN * max(1, 1 / scale))
        step = short // math.gcd(short, self.resize)  # a multiple of it resizes to whole pixels, so the grids agree
        cut = max(0, (long - max(short, needed)) // 2) // step * step
        length = long - 2 * cut
        return F.crop(inpt, cut, 0, length, width) if height == long else F.crop(inpt, 0, cut, height, length)
