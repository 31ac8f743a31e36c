"""Decode image files to uint8 tensors, at no higher resolution than a crop needs.

Most training images are JPEG files, and decoding them is most of the work of loading. simplejpeg returns
libjpeg-turbo's pixels without the copies that Pillow makes. libjpeg can also omit the highest frequencies and decode at
3/8 of the size or less, which is faster wherever a crop is shrunk at least that far. (Half the size saves almost
nothing.)
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

from visual_transformers.data.io.files import check_size, open_image, read_file
from visual_transformers.data.io.orientation import (
    QUARTER_TURNS,
    UNREADABLE,
    UPRIGHT,
    notes_of_orientation,
    read_orientation,
    turn_upright,
)
from visual_transformers.data.io.reading import DEFAULT_READING, Note, Reading

MIN_REDUCTION = 8 / 3
"""Shrink factor of a crop from which decoding at a smaller size is faster."""


class EncodedImage:
    """Bytes of an image file with its size; pixels are decoded on request, as upright RGB.

    Args:
        path: image file.
        reading: settings for what the file leaves open.
        encoded: bytes of the file, if they have been read already.

    Attributes:
        height, width: size of the upright image, pixels.
        orientation: EXIF orientation.
        notes: properties worth reporting; complete once the pixels are decoded.

    Raises:
        BadFileError: naming the file, if it cannot be read; `whole` and `crop` raise it too.
    """

    def __init__(self, path: str | Path, reading: Reading = DEFAULT_READING, encoded: bytes | None = None):
        self.path, self.reading = path, reading
        self._content = read_file(path) if encoded is None else encoded
        self._plain_jpeg = False
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(self._content)
        except ValueError:  # not a JPEG, or a damaged one that Pillow describes better
            width, height = open_image(self._content, path, reading.max_megapixels).size
        else:
            self._plain_jpeg = colours in ("YCbCr", "Gray", "RGB")
            check_size(width, height, path, reading.max_megapixels)
        self.orientation = read_orientation(self._content, reading, path)
        self.notes = notes_of_orientation(self.orientation)
        sideways = self.orientation in QUARTER_TURNS
        self.height, self.width = (width, height) if sideways else (height, width)

    def whole(self) -> Tensor:
        """Decode all pixels, uint8 (3, H, W)."""
        return torch.from_numpy(self.pixels()).permute(2, 0, 1)

    def crop(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> Tensor:
        """Decode a rectangle and resize it to `size` (H, W) with antialiasing, uint8 (3, H, W)."""
        shrink = min(height / size[0], width / size[1])
        if shrink >= MIN_REDUCTION and self._plain_jpeg:
            smaller = self.pixels(math.ceil(self.height / shrink), math.ceil(self.width / shrink))
            y, x = smaller.shape[0] / self.height, smaller.shape[1] / self.width
            box = (left * x, top * y, (left + width) * x, (top + height) * y)
            resized = Image.fromarray(smaller).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        pixels = torch.from_numpy(self.pixels()[top : top + height, left : left + width]).permute(2, 0, 1)
        return F.resize(pixels, list(size), antialias=True)

    def pixels(self, min_height: int = 0, min_width: int = 0) -> NDArray[np.uint8]:
        """Decode upright pixels (H, W, 3); a JPEG as small as the minimum size allows, if that is given."""
        if self.orientation in (UPRIGHT, UNREADABLE):
            return self._decode_stored(min_height, min_width)
        if self.orientation in QUARTER_TURNS:
            min_height, min_width = min_width, min_height
        upright = turn_upright(self._decode_stored(min_height, min_width), self.orientation)
        return upright.copy()  # `ascontiguousarray` would keep the stride of a single row, which torch refuses

    def _decode_stored(self, min_height: int, min_width: int) -> NDArray[np.uint8]:
        """Decode the pixels as stored, before the EXIF rotation."""
        if self._plain_jpeg:
            try:
                return simplejpeg.decode_jpeg(self._content, min_height=min_height, min_width=min_width)
            except ValueError:
                pass  # damaged: Pillow either reads it below or describes the damage
        image = open_image(self._content, self.path, self.reading.max_megapixels)
        picture, notes = self.reading.to_rgb(self._content, image, self.path)
        self.notes |= notes & ~Note.TURNED
        return np.array(picture)


def read_image(path: str | Path, reading: Reading = DEFAULT_READING) -> tuple[Image.Image, Note]:
    """Read an image file as upright RGB, with its notes; raise BadFileError if it cannot be read."""
    encoded = EncodedImage(path, reading)
    return Image.fromarray(encoded.pixels()), encoded.notes
