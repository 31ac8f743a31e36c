"""ImageNet and anything else in its folder layout: one folder of images a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL.Image import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.augmentation import CropAndFlip
from visual_transformers.data.decoding import EncodedImage
from visual_transformers.data.files import folder, images_below, read_image
from visual_transformers.data.module import FileData, Preparation, spread
from visual_transformers.data.samples import ClassifiedImages, ImageView
from visual_transformers.data.transforms import centre_crop, normalise
from visual_transformers.errors import DataError

LAYOUT = """  {root}/{train}/<class>/*.JPEG
  {root}/{val}/<class>/*.JPEG"""


@dataclass(kw_only=True)
class ImageNet(FileData):
    """Image folders `<root>/<train>/<class>/*` and `<root>/<val>/<class>/*`.

    Args:
        root: the data set's folder.
        train, val: names of the split folders.
        classes: null for all class folders, a number for the first so many in sorted order, or a list of names.
        image_size: side of the square that the model sees, pixels.
        eval_resize: short side in evaluation before the central crop, pixels.
        augmentation: what training images go through.

    Raises:
        DataError: naming what is missing and the layout that is expected.
    """

    task: ClassVar[str] = "classification"

    root: str
    train: str = "train"
    val: str = "val"
    classes: Any = None
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
        layout = LAYOUT.format(root=self.root, train=self.train, val=self.val)
        folder(Path(self.root), layout)
        found = {split: self._folders(split, layout) for split in (self.train, self.val)}
        self.classes = self._chosen(found[self.train], layout)
        for split, names in found.items():
            if missing := [name for name in self.classes if name not in names]:
                raise DataError(
                    f"{Path(self.root) / split}: no folder for {len(missing)} of {len(self.classes)} classes: "
                    f"{_first(missing)}; data.classes picks the classes to use"
                )
        if extra := [name for name in found[self.val] if name not in found[self.train]]:
            raise DataError(
                f"{Path(self.root) / self.val}: class folders that {self.train} does not have: {_first(extra)}; "
                "remove them or add their training images"
            )

    def _folders(self, split: str, layout: str) -> list[str]:
        path = folder(Path(self.root) / split, layout)
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir())

    def _chosen(self, found: list[str], layout: str) -> list[str]:
        if not found:
            raise DataError(f"{Path(self.root) / self.train}: holds no class folders; expected the layout\n{layout}")
        if self.classes is None:
            return found
        if isinstance(self.classes, int) and not isinstance(self.classes, bool):
            if not 1 <= self.classes <= len(found):
                raise DataError(
                    f"data.classes={self.classes}: {self.root} has {len(found)} classes; choose 1 to {len(found)}"
                )
            return found[: self.classes]
        if not isinstance(self.classes, list) or len(set(self.classes)) != len(self.classes) or not self.classes:
            raise DataError(f"data.classes={self.classes!r}: expected null, a number, or a list of different names")
        return [str(name) for name in self.classes]

    def train_set(self) -> ClassifiedImages:
        """Random crops and flips of the training images."""
        return self._set(self.train, self.augmentation.view(self.image_size))

    def val_set(self) -> ClassifiedImages:
        """Central crops of the validation images."""
        return self._set(self.val, CentralView(self.eval_resize, self.image_size))

    def mixing(self) -> Callable[[Tensor, Tensor], Any] | None:
        """Mixup and cutmix, if the augmentation has them."""
        return self.augmentation.mixing(len(self.classes))

    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """Images of the validation folder."""
        images = self.val_set().images
        paths = [images[index] for index in spread(len(images), count)]
        return [(f"{path.parent.name}/{path.stem}", read_image(path)) for path in paths]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The same central crop as in evaluation."""
        resize, size = (settings.get(key, getattr(cls, key)) for key in ("eval_resize", "image_size"))
        return v2.Compose([*centre_crop(resize, size), *normalise()])

    def _set(self, split: str, view: ImageView) -> ClassifiedImages:
        """Every image below a class folder of a split that is not excluded.

        Raises:
            DataError: if a class has none.
        """
        images = images_below(Path(self.root) / split)
        place_of = {name: place for place, name in enumerate(self.classes)}
        labels = np.array([place_of.get(name.split("/", 1)[0], -1) for name in images.names()], np.int32)
        labels[[place for place, name in enumerate(images.names()) if "/" not in name]] = -1
        if missing := [name for place, name in enumerate(self.classes) if not (labels == place).any()]:
            raise DataError(f"{images.root}: no images in the folders of {len(missing)} classes: {_first(missing)}")
        places = np.intersect1d(np.flatnonzero(labels >= 0), self.places_kept(images))
        places = places[np.argsort(labels[places], kind="stable")]
        return ClassifiedImages(images.subset(places), labels[places], view)


class CentralView:
    """Evaluation's view of an image: the short side resized, then the central square."""

    def __init__(self, resize: int, image_size: int):
        self.transform = v2.Compose(centre_crop(resize, image_size))

    def __call__(self, image: EncodedImage) -> Tensor:
        """uint8 (3, image_size, image_size)."""
        pixels: Tensor = self.transform(tv_tensors.Image(image.whole()))
        return pixels.as_subclass(Tensor)


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
