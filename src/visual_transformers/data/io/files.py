"""Reading images and masks from disk, with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, features

from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_listing import files_below
from visual_transformers.data.io.file_names import as_on_disk
from visual_transformers.errors import BadFileError, DataError

Image.MAX_IMAGE_PIXELS = None  # the limit is `check_size`, the same for every decoder
MAX_MEGAPIXELS = 178.0
"""Size of the largest image that is read by default, millions of pixels."""
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".tga", ".jp2", *([".avif"] if features.check("avif") else []),
)  # fmt: skip
"""Endings of image files, as Pillow reads them."""


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Decode a label mask (H, W): the stored indices, not the palette's colours.

    Raises:
        BadFileError: if the file cannot be read, or is not an image of one 8-bit channel.
    """
    image = opened(content(path), path)
    if image.format in LOSSY:
        raise BadFileError(
            path,
            f"is a {image.format} file, whose lossy compression changes labels. Export the masks as PNG.",
        )
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


LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats in which a pixel's value need not be what was stored."""
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
        link = (
            f"is a link to {Path(path).readlink()}, which is not there" if Path(path).is_symlink() else "no such file"
        )
        raise BadFileError(path, link) from None
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    if not found:
        raise BadFileError(path, "is empty; replace or remove the file")
    return found


def opened(content: bytes, path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """The image in a file's content, whose size and mode are known and whose pixels are not decoded yet.

    Raises:
        BadFileError: if it is no image, or too large; it names `path`.
    """
    with blaming(path):
        image = Image.open(io.BytesIO(without_texts(content)))
    check_size(*image.size, path, max_megapixels)
    return image


def check_size(width: int, height: int, path: str | Path, max_megapixels: float) -> None:
    """See that an image is not too large.

    Raises:
        BadFileError: if it is.
    """
    if width * height > max_megapixels * 1e6:
        raise BadFileError(
            path,
            f"has {width} x {height} pixels, more than {max_megapixels:g} millions. Shrink it, or raise "
            "data.reading.max_megapixels, which is for images.",
        )


def without_texts(content: bytes) -> bytes:
    """A PNG file without texts and colour profile, of which Pillow refuses large ones; other files as they are."""
    if not content.startswith(PNG):
        return content
    dropped, start = [], len(PNG)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        if content[start + 4 : start + 8] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            dropped.append(slice(start, end))
        start = end
    for chunk in reversed(dropped):
        content = content[: chunk.start] + content[chunk.stop :]
    return content


PNG = b"\x89PNG\r\n\x1a\n"


def decoded(image: Image.Image, path: str | Path) -> Image.Image:
    """The same image with its pixels.

    Raises:
        BadFileError: if it is truncated or damaged; it names `path`.
    """
    with blaming(path):
        image.load()
        return image


@contextmanager
def blaming(path: str | Path) -> Iterator[None]:
    """Say of what a decoder meets that the file is at fault."""
    try:
        yield
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # decoders meet damage with many kinds, EOFError and struct.error among them
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise BadFileError(path, f"cannot be read as an image ({reason}); replace or remove the file") from error


def folder(path: Path, layout: str) -> Path:
    """The folder as it is called on the disk, if it is there.

    Raises:
        DataError: if it is not, with the layout that is expected.
    """
    path = as_on_disk(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected the layout\n{layout}")
    return path


def images_below(path: Path) -> FileIndex:
    """Image files of a folder and its subfolders, sorted."""
    return FileIndex(path, files_below(path, IMAGE_SUFFIXES, report_others=True))


def first(names: list[str]) -> str:
    """The first few, for messages."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
