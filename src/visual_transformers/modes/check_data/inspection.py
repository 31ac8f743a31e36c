"""What is wrong with a sample, or only peculiar: a stricter look at its files than training takes."""

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
from visual_transformers.data.io.files import content
from visual_transformers.data.io.images import EncodedImage
from visual_transformers.data.io.reading import Note, Reading, mode_notes, to_upright
from visual_transformers.errors import BadFileError

BAD_IMAGE = "image cannot be used"
BAD_MASK = "mask cannot be used"
MISSING_MASK = "image has no mask"
DIGEST_BYTES = 16


class Fault(NamedTuple):
    """Why a sample cannot be used: one of the three kinds above, its image, the file at fault, and what is wrong.

    The image is what to leave out, for a file of masks may serve many images.
    """

    kind: str
    image: str
    file: str
    problem: str


@dataclass
class Inspected:
    """What was found of one sample.

    Args:
        image: its image file, or nothing if it has none.
        faults: why it cannot be used; empty if it can.
        notes: what is peculiar about its image.
        digest: a hash of the image file's bytes, or of the pixels of an image that is no file.
        picture: the image in RGB, at its own size.
        target: its class, or the classes of its pixels (H, W).
    """

    image: str = ""
    faults: list[Fault] = field(default_factory=list)
    notes: Note = Note.NONE
    digest: bytes = bytes(DIGEST_BYTES)
    picture: Image.Image | None = None
    target: int | NDArray[np.uint8] | None = None

    @contextmanager
    def blaming(self, kind: str, file: str) -> Iterator[None]:
        """Keep what goes wrong inside as a fault of the file.

        Decoders meet damage with exceptions of any class, and none of them may end the walk.
        """
        try:
            yield
        except BadFileError as error:
            self._blame(kind, error.path, error.args[1])
        except Exception as error:
            self._blame(kind, file, f"cannot be read ({type(error).__name__}: {error}); replace or remove the file")

    def _blame(self, kind: str, file: str, problem: str) -> None:
        self.faults.append(Fault(kind, self.image, file, problem))
        self.notes |= Note.UNUSABLE


def inspect(samples: Samples, index: int) -> Inspected:
    """Look at one sample: all of its files, whatever is wrong with one of them."""
    if isinstance(samples, FileSamples):
        return _inspect_files(samples, index)
    image, target = samples[index]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    label = target if isinstance(target, int) else target.numpy()
    return Inspected(digest=digest(picture.tobytes()), picture=picture, target=label)


def _inspect_files(samples: FileSamples, index: int) -> Inspected:
    """Read image and target, each whether or not the other can be read, then compare them."""
    found = Inspected(str(samples.images[index]))
    with found.blaming(BAD_IMAGE, found.image):
        encoded = content(found.image)
        found.digest = digest(encoded)
        image = EncodedImage(found.image, samples.reading, encoded)
        picture, notes = strictly_decoded(encoded, found.image, samples.reading)
        found.picture = Image.fromarray(np.ascontiguousarray(to_upright(np.asarray(picture), image.orientation)))
        found.notes |= notes | image.notes
    with found.blaming(BAD_MASK, samples.origins(index)[-1]):
        found.target = samples.target(index)
        if found.picture:
            samples.check_size(index, found.target, image)
    return found


def digest(data: bytes) -> bytes:
    """A hash that no two different files of a data set share."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def strictly_decoded(encoded: bytes, path: str, reading: Reading) -> tuple[Image.Image, Note]:
    """The RGB pixels of an image as they are stored, from its file's bytes, and what is peculiar about it.

    libjpeg reads on where a JPEG file is damaged, paints something grey or shifted, and warns; Pillow passes over that.

    Raises:
        BadFileError: if it is truncated or damaged, be it by a warning alone, or cannot be used otherwise.
    """
    image, warning = reading.opened(encoded, path), None
    if image.format in ("JPEG", "MPO") and _known_to_simplejpeg(encoded):
        try:
            pixels = simplejpeg.decode_jpeg(encoded)
        except ValueError as error:
            warning = error
        else:
            if image.mode != "CMYK":  # whose conversion is Pillow's, as in training
                return Image.fromarray(pixels), mode_notes(image)
    found = reading.rgb(encoded, image, path)
    if warning:
        raise BadFileError(path, f"is damaged, for libjpeg reads it with a warning ({warning}); replace or remove it")
    return found


def _known_to_simplejpeg(encoded: bytes) -> bool:
    """Whether it can read such a file at all: it refuses rare kinds of subsampling, which are no damage."""
    try:
        simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError):
        return False
    return True
