"""EXIF orientation of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from visual_transformers.data.io.files import open_image
from visual_transformers.data.io.reading import Note, Reading

UPRIGHT = 1
QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
UNREADABLE = 0
"""Stands for an EXIF orientation that cannot be read."""
EXIF_MARKERS = (b"Exif", b"eXIf", b"EXIF")
"""Markers of EXIF data in JPEG, PNG and WebP."""
AVIF_MARKER = b"ftypavi"
"""Marker of AVIF, which stores its rotation outside EXIF; Pillow reports it as EXIF."""


def notes_of_orientation(orientation: int) -> Note:
    """Return the notes of an EXIF orientation."""
    if orientation in (UPRIGHT, UNREADABLE):
        return Note.NONE if orientation == UPRIGHT else Note.BAD_EXIF
    return Note.TURNED if orientation in QUARTER_TURNS else Note.TURNED | Note.HALF_TURNED


def read_orientation(content: bytes, reading: Reading, path: str | Path) -> int:
    """Read the EXIF orientation; return `UPRIGHT` if there is none or `reading.upright` is false.

    TIFF files count as upright because Pillow turns them when it loads them.
    """
    if not reading.upright:
        return UPRIGHT
    if AVIF_MARKER not in content[:32] and not any(mark in content for mark in EXIF_MARKERS):  # faster than parsing
        return UPRIGHT
    image = open_image(content, path, reading.max_megapixels)
    if image.format == "TIFF":
        return UPRIGHT
    try:
        exif = image.getexif()
        if isinstance(data := image.info.get("exif"), bytes):
            exif = Image.Exif()  # for JPEG, Pillow's own `getexif` hides the errors of parsing
            exif.load(data)
        orientation = int(exif.get(ExifTags.Base.Orientation, UPRIGHT))
    except Exception:  # Pillow reports damaged metadata with many types, e.g. SyntaxError and struct.error
        return UNREADABLE
    return orientation if 1 <= orientation <= 8 else UPRIGHT


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Rotate and mirror an array (H, W, ...) from its EXIF orientation to upright."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
    if quarters := {6: -1, 8: 1}.get(orientation, 0):
        pixels = np.rot90(pixels, quarters)
    rows, columns = (-1 if orientation in flips else 1 for flips in ((3, 4, 7), (2, 3, 7)))
    return pixels[::rows, ::columns]
