"""Inspection of a sample: faults and peculiarities, found by a stricter reading of its files than that of training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from visual_transformers.data.datamodule import Samples
from visual_transformers.data.dataset import FileSamples
from visual_transformers.data.io.files import open_image, read_file
from visual_transformers.data.io.images import EncodedImage
from visual_transformers.data.io.orientation import turn_upright
from visual_transformers.data.io.reading import Note, Reading, notes_of_mode
from visual_transformers.errors import BadFileError

BAD_IMAGE = "image cannot be used"
BAD_MASK = "mask cannot be used"
MISSING_MASK = "image has no mask"
DIGEST_BYTES = 16


class Fault(NamedTuple):
    """Reason why a sample cannot be used.

    `kind` is one of the constants above, `file` is at fault, and `image` is to be excluded: a file of masks may belong
    to many images.
    """

    kind: str
    image: str
    file: str
    problem: str


@dataclass
class Inspection:
    """Result of the inspection of a sample.

    Args:
        image: its image file; empty if it has none.
        faults: reasons why it cannot be used.
        notes: peculiarities of its image.
        digest: hash of the image file's bytes, or of the pixels of an image without a file.
        picture: image in RGB at its own size.
        target: class index, or class indices of the pixels (H, W).
    """

    image: str = ""
    faults: list[Fault] = field(default_factory=list)
    notes: Note = Note.NONE
    digest: bytes = bytes(DIGEST_BYTES)
    picture: Image.Image | None = None
    target: int | NDArray[np.uint8] | None = None

    @contextmanager
    def collect_fault(self, kind: str, file: str) -> Iterator[None]:
        """Record an error in the context as a fault of a file.

        Decoders raise exceptions of any class for a damaged file, and none of them may end the inspection.
        """
        try:
            yield
        except BadFileError as error:
            self._add_fault(kind, error.path, error.args[1])
        except Exception as error:
            self._add_fault(kind, file, f"cannot be read ({type(error).__name__}: {error}); replace or remove the file")

    def _add_fault(self, kind: str, file: str, problem: str) -> None:
        self.faults.append(Fault(kind, self.image, file, problem))
        self.notes |= Note.UNUSABLE


def inspect_sample(samples: Samples, index: int) -> Inspection:
    """Inspect all files of a sample, even if one of them is damaged."""
    if isinstance(samples, FileSamples):
        return _inspect_files(samples, index)
    image, target = samples[index]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    label = target if isinstance(target, int) else target.numpy()
    return Inspection(digest=hash_bytes(picture.tobytes()), picture=picture, target=label)


def _inspect_files(samples: FileSamples, index: int) -> Inspection:
    found = Inspection(str(samples.images[index]))
    with found.collect_fault(BAD_IMAGE, found.image):
        encoded = read_file(found.image)
        found.digest = hash_bytes(encoded)
        image = EncodedImage(found.image, samples.reading, encoded)
        picture, notes = decode_strictly(encoded, found.image, samples.reading)
        found.picture = Image.fromarray(np.ascontiguousarray(turn_upright(np.asarray(picture), image.orientation)))
        found.notes |= notes | image.notes
    with found.collect_fault(BAD_MASK, samples.origins(index)[-1]):
        found.target = samples.target(index)
        if found.picture:
            samples.check_size(index, found.target, image)
    return found


def hash_bytes(data: bytes) -> bytes:
    """Return a hash that differs for different files."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def decode_strictly(encoded: bytes, path: str, reading: Reading) -> tuple[Image.Image, Note]:
    """Decode an image file to RGB pixels as they are stored, with notes; refuse a JPEG file that libjpeg warns of.

    libjpeg fills damaged parts of a JPEG file with grey or shifted pixels and warns; Pillow ignores the warning.
    """
    image, warning = open_image(encoded, path, reading.max_megapixels), None
    if image.format in ("JPEG", "MPO") and _is_known_to_simplejpeg(encoded):
        try:
            pixels = simplejpeg.decode_jpeg(encoded)
        except ValueError as error:
            warning = error
        else:
            if image.mode != "CMYK":  # Pillow converts CMYK below, as in training
                return Image.fromarray(pixels), notes_of_mode(image)
    decoded = reading.to_rgb(encoded, image, path)
    if warning:
        raise BadFileError(path, f"is damaged: libjpeg warns ({warning}); replace or remove the file")
    return decoded


def _is_known_to_simplejpeg(encoded: bytes) -> bool:
    """Return False for rare kinds of subsampling, which simplejpeg refuses although they are no damage."""
    try:
        simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError):
        return False
    return True
