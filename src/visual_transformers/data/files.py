"""Reading images and masks from disk, with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from visual_transformers.data.index import FileIndex
from visual_transformers.data.listing import files_below
from visual_transformers.errors import BadFileError, DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def read_image(path: str | Path) -> Image.Image:
    """Decode an image as RGB, whatever its mode.

    Raises:
        BadFileError: if the file cannot be read or is truncated.
    """
    return rgb(_read(path))


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; 16-bit grey is scaled to 8 bits, where Pillow would clip it."""
    if image.mode.startswith("I"):
        grey = np.asarray(image, np.int64).clip(0, 65535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Decode a label mask (H, W): the stored indices, not the palette's colours.

    Raises:
        BadFileError: if the file cannot be read, or is not an image of one 8-bit channel.
    """
    image = opened(content(path), path)
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" else []
    scale = SCALED.get(str(tiles[0][3]), 1) if tiles else 1
    mask = decoded(image, path)
    if mask.mode not in ("L", "P"):
        raise BadFileError(
            path,
            f"a mask must be an image of one 8-bit channel whose pixels are labels, this one has mode {mask.mode!r}; "
            "convert it to 8-bit grayscale or palette PNG",
        )
    return np.asarray(mask) // scale


SCALED = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies the pixels of grayscale PNGs of 2 and of 4 bits, by its name for them."""


def read_segments(path: str | Path) -> NDArray[np.uint32]:
    """Decode a panoptic PNG: the id of each pixel's segment (H, W), which is R + 256 G + 65536 B.

    Raises:
        BadFileError: if the file cannot be read, or is no RGB image.
    """
    segments = _read(path)
    if segments.mode != "RGB":
        raise BadFileError(
            path,
            f"a panoptic PNG must be RGB, for its colours are ids of segments; this one has mode {segments.mode!r}; "
            "masks whose pixels are labels are data.encoding=stuffthingmaps or pixelmaps",
        )
    return np.asarray(segments, np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)


def _read(path: str | Path) -> Image.Image:
    return decoded(opened(content(path), path), path)


def content(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        BadFileError: if it is not there, empty or unreadable.
    """
    try:
        found = Path(path).read_bytes()
    except FileNotFoundError:
        raise BadFileError(path, "no such file") from None
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    if not found:
        raise BadFileError(path, "is empty; replace or remove the file")
    return found


def opened(content: bytes, path: str | Path) -> Image.Image:
    """The image in a file's content, whose size and mode are known and whose pixels are not decoded yet.

    Raises:
        BadFileError: if it is no image; it names `path`.
    """
    with _blaming(path):
        return Image.open(io.BytesIO(content))


def decoded(image: Image.Image, path: str | Path) -> Image.Image:
    """The same image with its pixels.

    Raises:
        BadFileError: if it is truncated or damaged; it names `path`.
    """
    with _blaming(path):
        image.load()
        return image


@contextmanager
def _blaming(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadFileError(path, f"cannot be read as an image ({reason}); replace or remove the file") from error


def folder(path: Path, layout: str) -> Path:
    """The folder itself, if it is there.

    Raises:
        DataError: if it is not, with the layout that is expected.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected the layout\n{layout}")
    return path


def images_below(path: Path) -> FileIndex:
    """Image files of a folder and its subfolders, sorted."""
    return FileIndex(path, files_below(path, IMAGE_SUFFIXES))
