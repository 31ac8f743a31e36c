"""Reading images and masks from disk, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from visual_transformers.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def read_image(path: str | Path) -> Image.Image:
    """Decode an image as RGB, whatever its mode.

    Raises:
        DataError: if the file cannot be read or is truncated.
    """
    return _decode(path).convert("RGB")


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Decode a label mask (H, W): the stored indices, not the palette's colours.

    Raises:
        DataError: if the file cannot be read, or is not an image of one 8-bit channel.
    """
    mask = _decode(path)
    if mask.mode not in ("L", "P"):
        raise DataError(
            f"{path}: a mask must be an image of one 8-bit channel whose pixels are labels, this one has mode "
            f"{mask.mode!r}; convert it to 8-bit grayscale or palette PNG"
        )
    return np.asarray(mask)


def _decode(path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove the file") from error


def folder(path: Path, layout: str) -> Path:
    """The folder itself, if it is there.

    Raises:
        DataError: if it is not, with the layout that is expected.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected the layout\n{layout}")
    return path


def images_in(path: Path) -> list[Path]:
    """Image files of a folder and its subfolders, sorted."""
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
