"""Image files as uint8 tensors, decoded no further than a crop needs.

JPEG files are most of what is trained on, and decoding them is most of the work of loading. simplejpeg hands on
libjpeg-turbo's pixels without the copies that Pillow makes. libjpeg can also leave out the highest frequencies and so
decode at 3/8 of the size or less, for less work: that serves wherever the crop is to be shrunk at least so far. (At
half the size it saves next to nothing.)
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from visual_transformers.data.io.files import check_size, content
from visual_transformers.data.io.reading import (
    QUARTER_TURNS,
    UNREADABLE,
    UPRIGHT,
    USUAL,
    Note,
    Reading,
    orientation,
    orientation_notes,
    to_upright,
)

LEAST_REDUCTION = 8 / 3
"""By how much a crop must shrink for a smaller decoding to be worth it."""


class EncodedImage:
    """The bytes of an image file, whose size is known and whose pixels are decoded when asked for, as upright RGB.

    Args:
        path: the file.
        reading: what the file does not tell.
        encoded: its bytes, if they have been read already.

    Attributes:
        height, width: pixels, of the upright image.
        orientation: as its EXIF says.
        notes: what is peculiar about it, as far as it is known; all of it once its pixels are decoded.

    Raises:
        BadFileError: naming the file, if it cannot be read; `whole` and `crop` do so too.
    """

    def __init__(self, path: str | Path, reading: Reading = USUAL, encoded: bytes | None = None):
        self.path, self.reading = path, reading
        self._content = content(path) if encoded is None else encoded
        self._plain_jpeg = False
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(self._content)
        except ValueError:  # no JPEG, or a damaged one of which Pillow says more
            width, height = reading.opened(self._content, path).size
        else:
            self._plain_jpeg = colours in ("YCbCr", "Gray", "RGB")
            check_size(width, height, path, reading.max_megapixels)
        self.orientation = orientation(self._content, reading, path)
        self.notes = orientation_notes(self.orientation)
        sideways = self.orientation in QUARTER_TURNS
        self.height, self.width = (width, height) if sideways else (height, width)

    def whole(self) -> Tensor:
        """All pixels, uint8 (3, H, W)."""
        return torch.from_numpy(self.pixels()).permute(2, 0, 1)

    def crop(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
        """A rectangle of the image, resized to `size` (H, W) with antialiasing; uint8 (3, H, W)."""
        shrink = min(height / size[0], width / size[1])
        if shrink >= LEAST_REDUCTION and self._plain_jpeg:
            smaller = self.pixels(math.ceil(self.height / shrink), math.ceil(self.width / shrink))
            y, x = smaller.shape[0] / self.height, smaller.shape[1] / self.width
            box = (left * x, top * y, (left + width) * x, (top + height) * y)
            resized = Image.fromarray(smaller).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        pixels = torch.from_numpy(self.pixels()[top : top + height, left : left + width]).permute(2, 0, 1)
        return F.resize(pixels, list(size), antialias=True)

    def pixels(self, min_height: int = 0, min_width: int = 0) -> NDArray[np.uint8]:
        """(H, W, 3), upright; of a JPEG as small as these two allow, if they are given."""
        if self.orientation in (UPRIGHT, UNREADABLE):
            return self._stored(min_height, min_width)
        sideways = self.orientation in QUARTER_TURNS
        stored = self._stored(min_width, min_height) if sideways else self._stored(min_height, min_width)
        return to_upright(stored, self.orientation).copy()  # a row alone counts as contiguous, whatever its stride

    def _stored(self, min_height: int, min_width: int) -> NDArray[np.uint8]:
        """Decode the pixels as stored, before the EXIF rotation."""
        if self._plain_jpeg:
            try:
                return simplejpeg.decode_jpeg(self._content, min_height=min_height, min_width=min_width)
            except ValueError:
                pass  # damaged: Pillow says below how, or reads it after all
        image = self.reading.opened(self._content, self.path)
        picture, found = self.reading.rgb(self._content, image, self.path)
        self.notes |= found & ~Note.TURNED
        return np.array(picture)


def read_image(path: str | Path, reading: Reading = USUAL) -> tuple[Image.Image, Note]:
    """An image file as upright RGB, and what is peculiar about it.

    Raises:
        BadFileError: if it cannot be read.
    """
    encoded = EncodedImage(path, reading)
    return Image.fromarray(encoded.pixels()), encoded.notes
