"""Sets of samples whose images are files: with a class each, or with a mask each."""

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
from visual_transformers.data.io.reading import QUARTER_TURNS, USUAL, Note, Reading
from visual_transformers.data.normalization import IGNORE
from visual_transformers.errors import BadFileError

ImageView = Callable[[EncodedImage], Tensor]
"""What the model gets to see of an image: uint8 (3, H, W)."""
MaskedView = Callable[[EncodedImage, tv_tensors.Mask], tuple[Tensor, Tensor]]
"""The same of an image and its mask (H, W): uint8 (3, H', W') and uint8 (H', W')."""


def target_counts(target: int | NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count the classes in a target, (classes + 1,); the last entry counts ignored pixels."""
    counts = np.zeros(classes + 1, np.int64)
    if isinstance(target, int):
        counts[target] = 1
    else:
        found = np.bincount(target.ravel(), minlength=256)
        counts[:classes], counts[classes] = found[:classes], found[IGNORE]
    return counts


class FileSamples(ABC):
    """Samples whose images are the files of an index."""

    images: FileIndex
    reading: Reading

    def encoded(self, index: int) -> EncodedImage:
        """The file of an image.

        Raises:
            BadFileError: if it cannot be read.
        """
        return EncodedImage(self.images[index], self.reading)

    def __len__(self) -> int:
        return len(self.images)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """The uint8 image and the target, as a loader gets them."""

    @abstractmethod
    def target(self, index: int) -> int | NDArray[np.uint8]:
        """The class of an image, or the classes of its pixels (H, W), as stored: before any transform.

        Raises:
            BadFileError: if a mask cannot be used.
        """

    def check_size(self, index: int, target: int | NDArray[np.uint8], image: EncodedImage) -> None:  # noqa: B027
        """See that a target fits its image, as a class always does.

        Raises:
            BadFileError: if it does not.
        """

    def origins(self, index: int) -> list[str]:
        """The files that a sample is made of, for messages and lists."""
        return [str(self.images[index])]

    def read(self, index: int) -> tuple[Note, int | NDArray[np.uint8]]:
        """Read all of a sample, to see whether it can be; returns what is peculiar about its image, and its target.

        Raises:
            BadFileError: if it cannot.
        """
        image, target = self.encoded(index), self.target(index)
        self.check_size(index, target, image)
        image.whole()
        return image.notes, target


class ClassifiedImages(FileSamples):
    """Images with a class each.

    Args:
        images: their files.
        labels: class indices, one an image.
        view: what becomes of an image.
        reading: what its file does not tell.
    """

    def __init__(self, images: FileIndex, labels: NDArray[np.integer[Any]], view: ImageView, reading: Reading = USUAL):
        self.images, self.view, self.reading = images, view, reading
        self.labels = torch.from_numpy(np.asarray(labels, np.int32))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(self.encoded(index)), self.target(index)

    def target(self, index: int) -> int:
        """The class index."""
        return int(self.labels[index])


class Masks(Protocol):
    """Where the masks of images come from, in the order of the images."""

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W), `transforms.IGNORE` where a pixel counts nowhere.

        Raises:
            BadFileError: if the mask cannot be used.
        """

    def origin(self, index: int) -> str:
        """The file that a mask comes from."""

    def subset(self, places: NDArray[np.int64]) -> Masks:
        """The masks at some places, in that order."""


class MaskedImages(FileSamples):
    """Images with a mask each.

    Args:
        images: their files.
        masks: their masks.
        view: what becomes of an image and its mask.
        reading: what an image's file does not tell.
    """

    def __init__(self, images: FileIndex, masks: Masks, view: MaskedView, reading: Reading = USUAL):
        self.images, self.masks, self.view, self.reading = images, masks, view, reading

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.encoded(index), self.target(index)
        self.check_size(index, labels, image)
        return self.view(image, tv_tensors.Mask(torch.from_numpy(labels)))

    def target(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W)."""
        return self.masks.labels(index)

    def check_size(self, index: int, target: int | NDArray[np.uint8], image: EncodedImage) -> None:
        """Compare a mask (H, W) with the size of its image."""
        height, width = np.shape(target)
        if (height, width) == (image.height, image.width):
            return
        problem = (
            f"the mask has {width} x {height} pixels and its image {image.path} {image.width} x {image.height}; they "
            "must be equal"
        )
        if (width, height) == (image.height, image.width) and image.orientation in QUARTER_TURNS:
            problem += (
                f". The image is turned, for its EXIF orientation is {image.orientation}, and the mask is not: turn it "
                "too, or take images as they are stored with data.reading.upright=false"
            )
        raise BadFileError(self.masks.origin(index), problem)

    def origins(self, index: int) -> list[str]:
        """The image and its mask."""
        return [str(self.images[index]), self.masks.origin(index)]
