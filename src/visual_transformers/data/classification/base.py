"""Images with a class each: what all data sets of classification have in common, wherever their labels come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.augmentation import CropAndFlip
from visual_transformers.data.datamodule import FileData, Preparation, spread
from visual_transformers.data.dataset import ClassifiedImages, ImageView
from visual_transformers.data.io.file_index import FileIndex
from visual_transformers.data.io.images import EncodedImage, read_image
from visual_transformers.data.normalization import centre_crop
from visual_transformers.errors import DataError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class LabelledFiles:
    """Image files below a folder, with `/` between folders, and the class index of each."""

    root: Path
    names: list[str]
    labels: NDArray[np.int32]

    def at(self, places: NDArray[np.int64]) -> LabelledFiles:
        """Those at some places, in that order."""
        return LabelledFiles(self.root, [self.names[place] for place in places.tolist()], self.labels[places])

    def paths(self) -> list[str]:
        """All of them with their folder."""
        return [f"{self.root}/{name}" for name in self.names]


@dataclass(kw_only=True)
class ClassifiedData(FileData):
    """Base of the data sets with one class an image.

    Args:
        image_size: side of the square that the model sees, pixels.
        eval_resize: short side in evaluation before the central crop, pixels.
        augmentation: what training images go through.

    Raises:
        DataError: if evaluation would have to pad.
    """

    task: ClassVar[str] = "classification"
    prepared_by: ClassVar[tuple[str, ...]] = ("image_size", "eval_resize", "reading")

    image_size: int = 224
    eval_resize: int = 256
    augmentation: CropAndFlip = field(default_factory=CropAndFlip)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_resize < self.image_size:
            raise DataError(
                f"data.eval_resize={self.eval_resize} is less than data.image_size={self.image_size}, so evaluation "
                f"would pad; {round(self.image_size / 0.875)} is usual"
            )

    @abstractmethod
    def labelled(self, split: Split) -> LabelledFiles:
        """All files of a split, those to exclude among them.

        Raises:
            DataError: if the folders or lists are not as expected.
        """

    def train_set(self) -> ClassifiedImages:
        """Random crops and flips of the training images."""
        return self._set("train", self.augmentation.view(self.image_size))

    def val_set(self) -> ClassifiedImages:
        """Central crops of the validation images."""
        return self._set("val", CentralView(self.eval_resize, self.image_size))

    def test_set(self) -> ClassifiedImages:
        """Central crops of the test images."""
        return self._set("test", CentralView(self.eval_resize, self.image_size))

    def mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """Mixup and cutmix, if the augmentation has them."""
        return self.augmentation.mixing(len(self.classes))

    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """Images of the validation split, named by class and file."""
        samples, names = self.val_set(), self.classes
        places = spread(len(samples), count)
        found = [(names[samples.target(place)], samples.images[place]) for place in places]
        return [(f"{name}/{path.stem}", read_image(path, self.reading)[0]) for name, path in found]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The same central crop as in evaluation."""
        resize, size = (settings.get(key, getattr(cls, key)) for key in ("eval_resize", "image_size"))
        return v2.Compose(centre_crop(resize, size))

    def _set(self, split: Split, view: ImageView) -> ClassifiedImages:
        files = self.labelled(split)
        if self.excluded:
            files = files.at(self.places_kept(files.paths()))
        return ClassifiedImages(FileIndex(files.root, files.names), files.labels, view, self.reading)


class CentralView:
    """Evaluation's view of an image: the short side resized, then the central square."""

    def __init__(self, resize: int, image_size: int):
        self.transform = v2.Compose(centre_crop(resize, image_size))

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 (3, image_size, image_size)."""
        pixels: Tensor = self.transform(tv_tensors.Image(image.whole()))
        return pixels.as_subclass(Tensor)
