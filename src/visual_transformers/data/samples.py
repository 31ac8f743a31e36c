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

from visual_transformers.data.decoding import EncodedImage
from visual_transformers.data.index import FileIndex
from visual_transformers.errors import BadFileError

ImageView = Callable[[EncodedImage], Tensor]
"""What the model gets to see of an image: uint8 (3, H, W)."""
MaskedView = Callable[[EncodedImage, tv_tensors.Mask], tuple[Tensor, Tensor]]
"""The same of an image and its mask (H, W): uint8 (3, H', W') and uint8 (H', W')."""


class FileSamples(ABC):
    """Samples whose images are the files of an index."""

    images: FileIndex

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

    def check_size(self, index: int, target: int | NDArray[np.uint8], size: tuple[int, int]) -> None:  # noqa: B027
        """See that a target fits an image of that size (H, W), as a class always does.

        Raises:
            BadFileError: if it does not.
        """

    def origins(self, index: int) -> list[str]:
        """The files that a sample is made of, for messages and lists."""
        return [str(self.images[index])]

    def read(self, index: int) -> None:
        """Read all of a sample, to see whether it can be.

        Raises:
            BadFileError: if it cannot.
        """
        EncodedImage(self.images[index]).whole()
        self.target(index)


class ClassifiedImages(FileSamples):
    """Images with a class each.

    Args:
        images: their files.
        labels: class indices, one an image.
        view: what becomes of an image.
    """

    def __init__(self, images: FileIndex, labels: NDArray[np.integer[Any]], view: ImageView):
        self.images, self.view = images, view
        self.labels = torch.from_numpy(np.asarray(labels, np.int32))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(EncodedImage(self.images[index])), self.target(index)

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
    """

    def __init__(self, images: FileIndex, masks: Masks, view: MaskedView):
        self.images, self.masks, self.view = images, masks, view

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = EncodedImage(self.images[index])
        labels = self.target(index)
        self.check_size(index, labels, (image.height, image.width))
        return self.view(image, tv_tensors.Mask(torch.from_numpy(labels)))

    def target(self, index: int) -> NDArray[np.uint8]:
        """Class indices (H, W)."""
        return self.masks.labels(index)

    def check_size(self, index: int, target: int | NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Compare a mask (H, W) with the size of its image."""
        shape = np.shape(target)
        if shape != size:
            raise BadFileError(
                self.masks.origin(index),
                f"the mask has {shape[1]} x {shape[0]} pixels and its image {self.images[index]} "
                f"{size[1]} x {size[0]}; they must be equal",
            )

    def origins(self, index: int) -> list[str]:
        """The image and its mask."""
        return [str(self.images[index]), self.masks.origin(index)]

    def read(self, index: int) -> None:
        """Read image and mask whole and compare their sizes."""
        MaskedImages(self.images, self.masks, lambda image, mask: (image.whole(), mask))[index]
