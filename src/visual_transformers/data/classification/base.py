"""Base of the data sets with one class per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.augmentation import CropAndFlip
from visual_transformers.data.datamodule import EvalTransform, FileData, spread_indices
from visual_transformers.data.dataset import ClassifiedImages, ImageTransform
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.normalization import build_centre_crop
from visual_transformers.errors import DataError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class LabelledFiles:
    """Image files below a folder, with `/` between folders, and the class index of each."""

    root: Path
    names: list[str]
    labels: NDArray[np.int32]

    def subset(self, indices: NDArray[np.int64]) -> LabelledFiles:
        """Select files by their indices, in that order."""
        return LabelledFiles(self.root, [self.names[index] for index in indices.tolist()], self.labels[indices])


@dataclass(kw_only=True)
class ClassifiedData(FileData):
    """Base of the data sets with one class per image."""

    task: ClassVar[str] = "classification"
    eval_transform_keys: ClassVar[tuple[str, ...]] = ("image_size", "eval_resize", "reading")

    image_size: Annotated[int, Ge(1)] = 224
    eval_resize: Annotated[int, Ge(1)] = 256
    augmentation: CropAndFlip = field(default_factory=CropAndFlip)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_resize < self.image_size:
            raise DataError(
                f"data.eval_resize={self.eval_resize} is less than data.image_size={self.image_size}, so evaluation "
                f"would pad. Raise it, usually to {round(self.image_size / 0.875)}."
            )

    @abstractmethod
    def list_split(self, split: Split) -> LabelledFiles:
        """List all files of a split, including excluded ones.

        Raises:
            DataError: if the folders or lists are not as expected.
        """

    def train_set(self) -> ClassifiedImages:
        """Random crops and flips of the training images."""
        return self._build_set("train", self.augmentation.build_transform(self.image_size))

    def val_set(self) -> ClassifiedImages:
        """Central crops of the validation images."""
        return self._build_set("val", CentreCropTransform(self.eval_resize, self.image_size))

    def test_set(self) -> ClassifiedImages:
        """Central crops of the test images."""
        return self._build_set("test", CentreCropTransform(self.eval_resize, self.image_size))

    def build_mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """Return the augmentation's mixup and cutmix, if it has any."""
        return self.augmentation.build_mixing(len(self.classes))

    def load_val_images(self, count: int) -> list[tuple[str, Image]]:
        """Read validation images, named by class and file."""
        samples, names = self.val_set(), self.classes
        return [
            (f"{names[samples.target(i)]}/{samples.images[i].stem}", read_image(samples.images[i], self.reading)[0])
            for i in spread_indices(len(samples), count)
        ]

    @classmethod
    def build_eval_transform(cls, settings: dict[str, Any]) -> EvalTransform:
        """Crop as in evaluation."""
        resize, size = (settings.get(key, getattr(cls, key)) for key in ("eval_resize", "image_size"))
        return v2.Compose(build_centre_crop(resize, size))

    def _build_set(self, split: Split, transform: ImageTransform) -> ClassifiedImages:
        files = self.list_split(split)
        if self.excluded:
            files = files.subset(self.kept_indices([f"{files.root}/{name}" for name in files.names]))
        return ClassifiedImages(FileIndex(files.root, files.names), files.labels, transform, self.reading)


class CentreCropTransform:
    """Transform of evaluation: resize the short side, then crop the central square."""

    def __init__(self, resize: int, image_size: int):
        self.transform = v2.Compose(build_centre_crop(resize, image_size))

    def __call__(self, image: EncodedImage) -> Tensor:
        """Transform an image into uint8 (3, image_size, image_size)."""
        pixels: Tensor = self.transform(tv_tensors.Image(image.whole()))
        return pixels.as_subclass(Tensor)


def train_val_split(files: LabelledFiles, share: float, seed: int) -> tuple[LabelledFiles, LabelledFiles]:
    """Hold out a `share` of each class, at least one file, for validation.

    The split depends only on the seed and the number of files of each class. The order of the files stays.

    Raises:
        DataError: if the share is not between 0 and 1, the seed is negative, or a class has only one image.
    """
    if not 0 < share < 1:
        raise DataError(f"data.val_share={share} is no share of the training images. Choose one above 0 and below 1.")
    if seed < 0:
        raise DataError(f"data.seed={seed} is negative. Choose 0 or more.")
    is_val = np.zeros(len(files.names), bool)
    for label in np.unique(files.labels):
        indices = np.flatnonzero(files.labels == label)
        if len(indices) < 2:
            raise DataError(
                f"{files.root / files.names[indices[0]]}: the only image of its class, so data.val_share={share} "
                "cannot split it. Add another image, or leave the class out."
            )
        count = min(max(round(share * len(indices)), 1), len(indices) - 1)
        is_val[np.random.default_rng([seed, label]).permutation(indices)[:count]] = True
    return files.subset(np.flatnonzero(~is_val)), files.subset(np.flatnonzero(is_val))
