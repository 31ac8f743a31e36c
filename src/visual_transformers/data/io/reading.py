"""Rules that turn an image file into RGB pixels, shared by training, evaluation, prediction and `mode=check_data`.

`docs/data.md` states them for users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from torchvision.io import ImageReadMode, decode_png

from visual_transformers.data.io.files import MAX_MEGAPIXELS, decode, name_bad_file, strip_png_metadata
from visual_transformers.errors import BadFileError, DataError

AMBIGUOUS_MAX = 4095
"""White of 12 bits: a 16-bit image with no larger value may hold fewer bits than its type."""
WHITES = (255, 1023, 4095, 16383, 65535)
"""Values of white for 8 to 16 bits."""
BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1
"""TIFF tags, and the sample format of unsigned integers."""


class Note(IntFlag):
    """Properties of an image file that are worth reporting: one bit each, one byte per sample."""

    NONE = 0
    UNUSABLE = 1
    GRAYSCALE = 2
    CMYK = 4
    TURNED = 8
    TRANSPARENT = 16
    DEEP = 32
    HALF_TURNED = 64
    """Turned to the same size, so that a mask that was not turned still fits."""
    BAD_EXIF = 128
    """Has an unreadable orientation, and is used as stored."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings for what an image file leaves open; `conf/data/reading/usual.yaml` describes the keys.

    Raises:
        DataError: if a value is out of range.
    """

    upright: bool = True
    background: str = "white"
    white: float | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        try:
            ImageColor.getrgb(self.background)
        except ValueError as error:
            raise DataError(
                f"data.reading.background={self.background}: is not a colour. Use a name, e.g. black, or #rrggbb."
            ) from error
        for key in ("white", "max_megapixels"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise DataError(f"data.reading.{key}={value}: must be above 0, and finite")

    def to_rgb(self, content: bytes, image: Image.Image, path: str | Path) -> tuple[Image.Image, Note]:
        """Convert an opened image to 8-bit RGB, before the EXIF rotation, and return its notes.

        Args:
            content: bytes of the file.
            image: opened image.
            path: file, for messages.

        Raises:
            BadFileError: if the pixels are damaged, or the value of white is unknown.
        """
        notes = notes_of_mode(image)
        deep_colours = _has_deep_colours(image)
        image = decode(image, path)
        if deep_colours:
            colours = _decode_deep_colours(content, image.format, path)
            scaled = self._scale_to_8_bits(colours[..., :3], WHITES[-1], path)
            if colours.shape[2] == 4:
                scaled = np.concatenate([scaled, (colours[..., 3:] >> 8).astype(np.uint8)], axis=2)
            image, notes = Image.fromarray(scaled), notes | Note.DEEP
        elif image.mode == "F" or image.mode.startswith("I"):
            scaled = self._scale_to_8_bits(np.asarray(image), _declared_white(image), path)
            image, notes = Image.fromarray(scaled), notes | Note.DEEP
        with name_bad_file(path):  # Pillow cannot convert some modes, e.g. LAB
            if image.has_transparency_data:
                layers = image.convert("RGBA")
                if np.asarray(layers)[..., 3].min() < 255:
                    ground = Image.new("RGBA", image.size, ImageColor.getrgb(self.background)[:3])
                    return Image.alpha_composite(ground, layers).convert("RGB"), notes | Note.TRANSPARENT
            return image.convert("RGB"), notes

    def _scale_to_8_bits(self, values: NDArray[Any], declared: float | None, path: str | Path) -> NDArray[np.uint8]:
        """Scale values so that white becomes 255; `declared` is the file's own value of white."""
        low, high = (float(values.min()), float(values.max())) if np.isfinite(values).all() else (math.nan, math.nan)
        white = self.white or declared or (1.0 if values.dtype.kind == "f" and high <= 1 else None)
        ambiguous = self.white is None and white == WHITES[-1] and 0 < high <= AMBIGUOUS_MAX
        if white is None or ambiguous or not 0 <= low <= high <= white:
            raise BadFileError(path, _describe_range(values, low, high, None if ambiguous else white))
        return (values.astype(np.float64) * (255 / white)).round().astype(np.uint8)


DEFAULT_READING = Reading()


def notes_of_mode(image: Image.Image) -> Note:
    """Return the notes of an opened image's mode."""
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        return Note.GRAYSCALE
    return Note.CMYK if image.mode == "CMYK" else Note.NONE


def _declared_white(image: Image.Image) -> float | None:
    """Return the value of white that a file's format declares for deep grey; None if it declares none."""
    if image.format == "TIFF":
        bits, kind = (_first(image.tag_v2.get(tag)) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))  # type: ignore[attr-defined]
        return 2.0**bits - 1 if bits and bits <= 16 and kind in (None, UNSIGNED) else None
    return 65535.0 if image.mode.startswith("I") else None  # PNG, PGM (which Pillow scales), JPEG 2000


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _describe_range(values: NDArray[Any], low: float, high: float, white: float | None) -> str:
    """Return the message for values whose white level is unknown or exceeded."""
    if not math.isfinite(low):
        return "has values that are not finite. Convert it to finite values from 0 on."
    has = f"has values from {low:g} to {high:g}"
    if low < 0:
        return f"{has}. Convert it to values from 0 on."
    if white is not None:
        return f"{has}, and white is {white:g}. Set data.reading.white to the white of this data set."
    likely = next((f", e.g. to {each}" for each in WHITES if high <= each), "")
    kind = {"f": "floats", "u": f"{8 * values.itemsize}-bit integers"}.get(values.dtype.kind, "32-bit integers")
    return f"{has} in {kind}, and the value of white is unknown. Set data.reading.white{likely}, or convert the file."


def _has_deep_colours(image: Image.Image) -> bool:
    """Return True for several channels of 16 bits, of which Pillow would drop the lower 8."""
    tiles = getattr(image, "tile", None)
    raw_mode = str(_first(tiles[0][3])) if tiles else ""
    return ";16" in raw_mode and not image.mode.startswith("I")


def _decode_deep_colours(content: bytes, kind: str | None, path: str | Path) -> NDArray[np.uint16]:
    """Decode 16-bit colours as (H, W, 3), or (H, W, 4) with transparency; only PNG is read at full depth."""
    if kind != "PNG":
        raise BadFileError(path, f"is a {kind} file with 16-bit colours. Convert it to PNG, or to 8 bits.")
    encoded = torch.frombuffer(bytearray(strip_png_metadata(content)), dtype=torch.uint8)
    with name_bad_file(path):
        channels = decode_png(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return np.repeat(channels, (3, 1), axis=2) if channels.shape[2] == 2 else channels
