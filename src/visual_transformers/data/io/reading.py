"""Rules by which an image file becomes RGB pixels, shared by training, evaluation, prediction and `mode=check_data`.

`docs/data.md` states it for users.
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
from PIL import ExifTags, Image, ImageColor
from torchvision.io import ImageReadMode, decode_png

from visual_transformers.data.io.files import MAX_MEGAPIXELS, blaming, decoded, opened, without_texts
from visual_transformers.errors import BadFileError, DataError

UPRIGHT, QUARTER_TURNS, UNREADABLE = 1, (5, 6, 7, 8), 0
"""Values of EXIF's orientation: 1 to 8, of which the quarter turns swap height and width; 0 where it cannot be read."""
UNLIKELY = 4095
"""Images of 16 bits that nowhere exceed this, the white of 12 bits, may hold fewer bits than their type has."""
WHITES = (255, 1023, 4095, 16383, 65535)
"""White of 8 to 16 bits."""


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
    """Turned so that its size is the same, and a mask that was not turned with it fits all the same."""
    BAD_EXIF = 128
    """Whose orientation cannot be read: taken as it is."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Settings for what an image file itself leaves open.

    Args:
        upright: whether images are turned as their EXIF orientation says, which is how they are shown everywhere.
        background: colour behind transparent pixels, by its name or as #rrggbb.
        white: value of white in images of more than 8 bits a channel; null for what the file or its type says.
        max_megapixels: size of the largest image that is read, millions of pixels.

    Raises:
        DataError: if a value is out of its range.
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
                f"data.reading.background={self.background}: is no colour; give a name, as black, or #rrggbb"
            ) from error
        for key in ("white", "max_megapixels"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise DataError(f"data.reading.{key}={value}: must be above 0, and finite")

    def opened(self, content: bytes, path: str | Path) -> Image.Image:
        """The image in a file's content, not too large, whose pixels are not decoded yet.

        Raises:
            BadFileError: if it is none.
        """
        return opened(content, path, self.max_megapixels)

    def rgb(self, content: bytes, image: Image.Image, path: str | Path) -> tuple[Image.Image, Note]:
        """Convert an opened image to 8-bit RGB, before the EXIF rotation, and return its notes.

        Args:
            content: of the file.
            image: as it is opened.
            path: of the file, for messages.

        Raises:
            BadFileError: if the pixels are damaged, or their values do not tell what is white.
        """
        found = mode_notes(image)
        deep = is_deep_colour(image)
        image = decoded(image, path)
        colours = deep_colours(content, image.format, path) if deep else None
        if colours is not None or image.mode == "F" or image.mode.startswith("I"):
            found |= Note.DEEP
            values = np.asarray(image) if colours is None else colours[..., :3]
            scaled = self._of_8_bits(values, declared_white(image) if colours is None else WHITES[-1], path)
            if colours is not None and colours.shape[2] == 4:
                scaled = np.concatenate([scaled, (colours[..., 3:] >> 8).astype(np.uint8)], axis=2)
            image = Image.fromarray(scaled)
        with blaming(path):  # for there are modes that Pillow cannot convert, as LAB
            if image.has_transparency_data:
                layers = image.convert("RGBA")
                if np.asarray(layers)[..., 3].min() < 255:
                    found |= Note.TRANSPARENT
                    ground = Image.new("RGBA", image.size, ImageColor.getrgb(self.background)[:3])
                    return Image.alpha_composite(ground, layers).convert("RGB"), found
            return image.convert("RGB"), found

    def _of_8_bits(self, values: NDArray[Any], declared: float | None, path: str | Path) -> NDArray[np.uint8]:
        """Deeper values, scaled so that `white` is white."""
        low, high = (float(values.min()), float(values.max())) if np.isfinite(values).all() else (math.nan, math.nan)
        white = self.white or declared or (1.0 if values.dtype.kind == "f" and high <= 1 else None)
        guessed = self.white is None and white == WHITES[-1] and 0 < high <= UNLIKELY
        if white is None or guessed or not 0 <= low <= high <= white:
            raise BadFileError(path, _range(values, low, high, None if guessed else white))
        return (values.astype(np.float64) * (255 / white)).round().astype(np.uint8)


def mode_notes(image: Image.Image) -> Note:
    """Return the notes of an opened image's mode."""
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        return Note.GRAYSCALE
    return Note.CMYK if image.mode == "CMYK" else Note.NONE


USUAL = Reading()
"""Default reading settings."""


def declared_white(image: Image.Image) -> float | None:
    """The value of white in deep grey, where the file's format says it; None where it says nothing."""
    if image.format == "TIFF":
        bits, kind = (_first(image.tag_v2.get(tag)) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))  # type: ignore[attr-defined]
        return 2.0**bits - 1 if bits and bits <= 16 and kind in (None, UNSIGNED) else None
    return 65535.0 if image.mode.startswith("I") else None  # PNG, PGM (which Pillow scales), JPEG 2000


BITS_PER_SAMPLE, SAMPLE_FORMAT, UNSIGNED = 258, 339, 1


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _range(values: NDArray[Any], low: float, high: float, white: float | None) -> str:
    """Return the message for values whose white level is unknown or exceeded."""
    has = f"has values from {low:g} to {high:g}" if math.isfinite(low) else "has values that are not finite"
    if not math.isfinite(low) or low < 0:
        return f"{has}, of which no 8-bit image can be made; convert it to finite values from 0 on"
    if white is not None:
        return f"{has}, and white is {white:g}; set data.reading.white to what it is in this data set"
    likely = next((f", as {each}" for each in WHITES if high <= each), "")
    kind = {"f": "floats", "u": f"{8 * values.itemsize}-bit integers"}.get(values.dtype.kind, "32-bit integers")
    return f"{has} in {kind}, which do not tell what is white; set data.reading.white{likely}, or convert it"


def is_deep_colour(image: Image.Image) -> bool:
    """Return True for an opened image with several channels of 16 bits, of which Pillow would drop the lower 8."""
    tiles = getattr(image, "tile", None)
    raw = str(_first(tiles[0][3])) if tiles else ""
    return ";16" in raw and not image.mode.startswith("I")


def deep_colours(content: bytes, kind: str | None, path: str | Path) -> NDArray[np.uint16]:
    """Decode colours of 16 bits as (H, W, 3), or (H, W, 4) with transparency.

    Raises:
        BadFileError: for other files than PNG, which no library here reads at full depth.
    """
    if kind != "PNG":
        raise BadFileError(path, f"is a {kind} file with 16-bit colours. Convert it to PNG, or to 8 bits.")
    encoded = torch.frombuffer(bytearray(without_texts(content)), dtype=torch.uint8)
    with blaming(path):
        channels = decode_png(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    return np.repeat(channels, (3, 1), axis=2) if channels.shape[2] == 2 else channels


def orientation(content: bytes, reading: Reading, path: str | Path) -> int:
    """The EXIF orientation of an image; upright where there is none or it is not asked for.

    Pillow gives a TIFF file upright already, for its orientation is no EXIF.
    """
    if not reading.upright:
        return UPRIGHT
    if AVIF not in content[:32] and not any(mark in content for mark in EXIF):  # which is quicker than to parse it
        return UPRIGHT
    image = reading.opened(content, path)
    if image.format == "TIFF":
        return UPRIGHT
    try:
        exif = image.getexif()
        if isinstance(data := image.info.get("exif"), bytes):
            exif = Image.Exif()  # Pillow opens a JPEG file with the errors of its own forgotten
            exif.load(data)
        found = int(exif.get(ExifTags.Base.Orientation, UPRIGHT))
    except Exception:  # Pillow meets damaged metadata with many kinds, SyntaxError and struct.error among them
        return UNREADABLE
    return found if 1 <= found <= 8 else UPRIGHT


EXIF = (b"Exif", b"eXIf", b"EXIF")
"""Markers of EXIF data in JPEG, PNG and WebP."""
AVIF = b"ftypavi"
"""Marker of AVIF, whose rotation is no EXIF; Pillow gives it as such."""


def to_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array (H, W, ...) turned and mirrored so that it stands upright, from what its EXIF orientation is."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    quarters = {6: -1, 8: 1}.get(orientation, 0)
    if quarters:
        pixels = np.rot90(pixels, quarters)
    rows, columns = (-1 if orientation in flips else 1 for flips in ((3, 4, 7), (2, 3, 7)))
    return pixels[::rows, ::columns]


def orientation_notes(orientation: int) -> Note:
    """Return the notes of an EXIF orientation."""
    if orientation in (UPRIGHT, UNREADABLE):
        return Note.NONE if orientation == UPRIGHT else Note.BAD_EXIF
    return Note.TURNED if orientation in QUARTER_TURNS else Note.TURNED | Note.HALF_TURNED
