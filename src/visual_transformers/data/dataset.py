"""Sample sets whose images are files, with one class or one mask per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.images import EncodedImage
from visual_transformers.data.io.orientation import QUARTER_TURNS
from visual_transformers.data.io.reading import DEFAULT_READING, Note, Reading
from visual_transformers.data.labels import IGNORE_INDEX
from visual_transformers.errors import BadFileError

ImageTransform = Callable[[EncodedImage], Tensor]
"""Transform of an image file to uint8 (3, H, W)."""
MaskedTransform = Callable[[EncodedImage, tv_tensors.Mask], tuple[Tensor, Tensor]]
"""Transform of an image file and its mask (H, W) to uint8 (3, H', W') and (H', W')."""


def count_targets(target: int | NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the classes in a target, (classes + 1,); the last entry counts ignored pixels."""
    counts = np.zeros(classes + 1, np.int64)
    if isinstance(target, int):
        counts[target] = 1
    else:
        values = np.bincount(target.ravel(), minlength=256)
        counts[:classes], counts[classes] = values[:classes], values[IGNORE_INDEX]
    return counts


class FileSamples(ABC):
    """Base of the sample sets whose images are the files of an index.

    All methods that read a file raise BadFileError if it cannot be used.
    """

    images: FileIndex
    reading: Reading

    def encoded(self, index: int) -> EncodedImage:
        """Open the file of an image; raise BadFileError if it cannot be read."""
        return EncodedImage(self.images[index], self.reading)

    def __len__(self) -> int:
        return len(self.images)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Return the transformed uint8 image and its target."""

    @abstractmethod
    def target(self, index: int) -> int | NDArray[np.uint8]:
        """Return the class index of an image, or those of its pixels (H, W), before any transform."""

    def check_size(self, index: int, target: int | NDArray[np.uint8], image: EncodedImage) -> None:  # noqa: B027
        """Raise BadFileError if a target does not fit its image; a class always does."""

    def origins(self, index: int) -> list[str]:
        """Return the files of a sample, for messages and lists."""
        return [str(self.images[index])]

    def read(self, index: int) -> tuple[Note, int | NDArray[np.uint8]]:
        """Read a sample completely; return the notes of its image, and its target."""
        image, target = self.encoded(index), self.target(index)
        self.check_size(index, target, image)
        image.whole()
        return image.notes, target


class ClassifiedImages(FileSamples):
    """Images with one class index each."""

    def __init__(
        self,
        images: FileIndex,
        labels: NDArray[np.integer[Any]],
        transform: ImageTransform,
        reading: Reading = DEFAULT_READING,
    ):
        self.images, self.transform, self.reading = images, transform, reading
        self.labels = torch.from_numpy(np.asarray(labels, np.int32))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.encoded(index)), self.target(index)

    def target(self, index: int) -> int:
        """Return the class index."""
        return int(self.labels[index])


class Masks(Protocol):
    """Masks of images, in the order of the images."""

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Return class indices (H, W), `labels.IGNORE_INDEX` for ignored pixels."""

    def origin(self, index: int) -> str:
        """Return the file of a mask."""

    def subset(self, indices: NDArray[np.int64]) -> Masks:
        """Return the masks at some indices, in that order."""


class MaskedImages(FileSamples):
    """Images with one mask each."""

    def __init__(self, images: FileIndex, masks: Masks, transform: MaskedTransform, reading: Reading = DEFAULT_READING):
        self.images, self.masks, self.transform, self.reading = images, masks, transform, reading

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.encoded(index), self.target(index)
        self.check_size(index, labels, image)
        return self.transform(image, tv_tensors.Mask(torch.from_numpy(labels)))

    def target(self, index: int) -> NDArray[np.uint8]:
        """Return class indices (H, W)."""
        return self.masks.labels(index)

    def check_size(self, index: int, target: int | NDArray[np.uint8], image: EncodedImage) -> None:
        """Check that a mask (H, W) has the size of its image."""
        (height, width), size = np.shape(target), (image.height, image.width)
        if (height, width) == size:
            return
        problem = (
            f"the mask has {width} x {height} pixels and its image {image.path} {image.width} x {image.height}; they "
            "must be equal"
        )
        if (width, height) == size and image.orientation in QUARTER_TURNS:
            problem += (
                f". The image is turned by its EXIF orientation {image.orientation}, and the mask is not: turn the "
                "mask too, or use images as stored with data.reading.upright=false"
            )
        raise BadFileError(self.masks.origin(index), problem)

    def origins(self, index: int) -> list[str]:
        """Return the files of the image and its mask."""
        return [str(self.images[index]), self.masks.origin(index)]
