"""Image files as uint8 tensors, decoded no further than a crop needs.

JPEG files are most of what is trained on, and decoding them is most of the work of loading. simplejpeg hands on
libjpeg-turbo's pixels without the copies that Pillow makes. libjpeg can also leave out the highest frequencies and so
decode at 3/8 of the size or less, for less work: that serves wherever the crop is to be shrunk at least so far. (At
half the size it saves next to nothing.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from visual_transformers.data.files import content, decoded, opened, rgb

LEAST_REDUCTION = 8 / 3
"""By how much a crop must shrink for a smaller decoding to be worth it."""


class EncodedImage:
    """The bytes of an image file, whose size is known and whose pixels are decoded when asked for, as RGB.

    Raises:
        BadFileError: naming the file, if it cannot be read; `whole` and `crop` do so too.
    """

    def __init__(self, path: str | Path):
        self.path = path
        self._content = content(path)
        self._plain_jpeg = False
        try:
            self.height, self.width, colours, _ = simplejpeg.decode_jpeg_header(self._content)
            self._plain_jpeg = colours in ("YCbCr", "Gray", "RGB")
        except ValueError:  # no JPEG, or a damaged one of which Pillow says more
            self.width, self.height = opened(self._content, path).size

    def whole(self) -> Tensor:
        """All pixels, uint8 (3, H, W)."""
        return torch.from_numpy(self._pixels()).permute(2, 0, 1)

    def crop(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
        """A rectangle of the image, resized to `size` (H, W) with antialiasing; uint8 (3, H, W)."""
        shrink = min(height / size[0], width / size[1])
        if shrink >= LEAST_REDUCTION and self._plain_jpeg:
            smaller = self._pixels(min_height=math.ceil(self.height / shrink), min_width=math.ceil(self.width / shrink))
            y, x = smaller.shape[0] / self.height, smaller.shape[1] / self.width
            box = (left * x, top * y, (left + width) * x, (top + height) * y)
            resized = Image.fromarray(smaller).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        pixels = torch.from_numpy(self._pixels()[top : top + height, left : left + width]).permute(2, 0, 1)
        return F.resize(pixels, list(size), antialias=True)

    def _pixels(self, **smaller: Any) -> NDArray[np.uint8]:
        """(H, W, 3), or as small as `smaller` allows."""
        if self._plain_jpeg:
            try:
                return simplejpeg.decode_jpeg(self._content, **smaller)
            except ValueError:
                pass  # damaged: Pillow says below how, or reads it after all
        return np.array(rgb(decoded(opened(self._content, self.path), self.path)))
