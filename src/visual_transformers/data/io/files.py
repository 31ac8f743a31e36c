"""Read images and masks from disk, with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, features

from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.file_listing import list_files
from visual_transformers.data.io.file_names import match_disk_spelling
from visual_transformers.errors import BadFileError, DataError

Image.MAX_IMAGE_PIXELS = None  # `check_size` applies one limit to every decoder
MAX_MEGAPIXELS = 178.0
"""Default size limit of images, in millions of pixels."""
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".tga", ".jp2", *([".avif"] if features.check("avif") else []),
)  # fmt: skip
"""Suffixes of image files that Pillow can read."""
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats whose decoded pixels may differ from the stored labels."""
PNG_SCALES = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow multiplies the pixels of 2-bit and 4-bit grayscale PNGs, by its raw mode."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Read a label mask (H, W) of stored indices, not palette colours; raise BadFileError if it is unusable."""
    image = open_image(read_file(path), path)
    if image.format in LOSSY_FORMATS:
        raise BadFileError(
            path, f"is a {image.format} file, whose lossy compression changes labels. Export the masks as PNG."
        )
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" else []
    scale = PNG_SCALES.get(str(tiles[0][3]), 1) if tiles else 1
    mask = decode(image, path)
    if mask.mode not in ("L", "P"):
        raise BadFileError(
            path,
            f"a mask must be an image with one 8-bit channel of labels; this one has mode {mask.mode!r}. Convert it to "
            "8-bit grayscale or palette PNG.",
        )
    return np.asarray(mask) // scale


def read_segments(path: str | Path) -> NDArray[np.uint32]:
    """Read a panoptic PNG as segment ids (H, W): R + 256 G + 65536 B; raise BadFileError if it is unusable."""
    segments = decode(open_image(read_file(path), path), path)
    if segments.mode != "RGB":
        raise BadFileError(
            path,
            f"a panoptic PNG must be RGB, because its colours are segment ids; this one has mode {segments.mode!r}. "
            "For masks of labels set data.encoding=stuffthingmaps or pixelmaps.",
        )
    return np.asarray(segments, np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)


def read_file(path: str | Path) -> bytes:
    """Read the bytes of a file; raise BadFileError if it is missing, empty or unreadable."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        link = f"is a link to {path.readlink()}, which does not exist" if path.is_symlink() else "no such file"
        raise BadFileError(path, link) from None
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    if not content:
        raise BadFileError(path, "is empty. Replace or remove the file.")
    return content


def open_image(content: bytes, path: str | Path, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Open the image in a file's content without decoding it; raise BadFileError if it is no image or too large."""
    with name_bad_file(path):
        image = Image.open(io.BytesIO(strip_png_metadata(content)))
    check_size(*image.size, path, max_megapixels)
    return image


def check_size(width: int, height: int, path: str | Path, max_megapixels: float) -> None:
    """Raise a BadFileError if an image is too large."""
    if width * height > max_megapixels * 1e6:
        raise BadFileError(
            path,
            f"has {width} x {height} pixels, more than {max_megapixels:g} millions. Shrink it, or raise "
            "data.reading.max_megapixels, which is for images.",
        )


def strip_png_metadata(content: bytes) -> bytes:
    """Remove texts and colour profile from a PNG file, because Pillow refuses large ones; return others unchanged."""
    if not content.startswith(PNG_SIGNATURE):
        return content
    dropped, start = [], len(PNG_SIGNATURE)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        if content[start + 4 : start + 8] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            dropped.append(slice(start, end))
        start = end
    for chunk in reversed(dropped):
        content = content[: chunk.start] + content[chunk.stop :]
    return content


def decode(image: Image.Image, path: str | Path) -> Image.Image:
    """Decode the pixels of an opened image; raise BadFileError if it is damaged."""
    with name_bad_file(path):
        image.load()
        return image


@contextmanager
def name_bad_file(path: str | Path) -> Iterator[None]:
    """Turn the errors of a decoder into a BadFileError that names the file."""
    try:
        yield
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # decoders report damage with many types, e.g. EOFError and struct.error
        reason = (
            "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        )
        raise BadFileError(path, f"cannot be read as an image ({reason}). Replace or remove the file.") from error


def require_folder(path: Path, layout: str) -> Path:
    """Return the folder as spelled on the disk; raise DataError with the expected layout if it is missing."""
    path = match_disk_spelling(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected the layout\n{layout}")
    return path


def list_images(path: Path) -> FileIndex:
    """List the image files of a folder and its subfolders, sorted."""
    return FileIndex(path, list_files(path, IMAGE_SUFFIXES, report_others=True))


def join_first(names: list[str]) -> str:
    """Join the first five names for a message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
