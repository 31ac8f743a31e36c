"""ImageNet and anything else in its folder layout: one folder of images a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL.Image import Image
from torchvision.datasets import ImageFolder

from visual_transformers.data.files import folder, read_image
from visual_transformers.data.module import DataModule, Preparation, Samples, spread
from visual_transformers.data.transforms import crop_and_flip, resize_and_centre_crop
from visual_transformers.errors import DataError

LAYOUT = """  {root}/{train}/<class>/*.JPEG
  {root}/{val}/<class>/*.JPEG"""


class ClassFolders(ImageFolder):
    """torchvision's ImageFolder over chosen class folders."""

    def __init__(self, root: Path, classes: list[str], transform: Callable[[Any], Any]):
        self._chosen = classes
        try:
            super().__init__(str(root), transform=transform, loader=read_image)
        except FileNotFoundError as error:  # a class folder without one image
            raise DataError(f"{root}: {error}") from error

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """The chosen classes in their order, in place of every folder there is."""
        return self._chosen, {name: index for index, name in enumerate(self._chosen)}


@dataclass(kw_only=True)
class ImageNet(DataModule):
    """Image folders `<root>/<train>/<class>/*` and `<root>/<val>/<class>/*`.

    Args:
        root: the data set's folder.
        train, val: names of the split folders.
        classes: null for all class folders, a number for the first so many in sorted order, or a list of names.
        image_size: side of the square that the model sees, pixels.
        eval_resize: short side in evaluation before the central crop, pixels.
        min_crop_area: least area of a training crop, as a part of the image.
        flip: whether training images are flipped left and right half of the time.
        check_files: images of each split that are opened before training.

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
    min_crop_area: float = 0.08
    flip: bool = True
    check_files: int = 200

    def __post_init__(self) -> None:
        if self.eval_resize < self.image_size:
            raise DataError(
                f"data.eval_resize={self.eval_resize} is less than data.image_size={self.image_size}, so evaluation "
                f"would pad; {round(self.image_size / 0.875)} is usual"
            )
        if not 0 < self.min_crop_area <= 1:
            raise DataError(f"data.min_crop_area={self.min_crop_area}: must be above 0 and at most 1")
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

    def train_set(self) -> Samples:
        """Random crops and flips of the training images."""
        return self._set(self.train, crop_and_flip(self.image_size, self.min_crop_area, self.flip))

    def val_set(self) -> Samples:
        """Central crops of the validation images."""
        return self._set(self.val, resize_and_centre_crop(self.eval_resize, self.image_size))

    def pictures(self, count: int) -> list[tuple[str, Image]]:
        """Images of the validation folder."""
        samples = self._set(self.val, resize_and_centre_crop(self.eval_resize, self.image_size)).samples
        paths = [Path(samples[index][0]) for index in spread(len(samples), count)]
        return [(f"{path.parent.name}/{path.stem}", read_image(path)) for path in paths]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The same central crop as in evaluation."""
        resize, size = (settings.get(key, getattr(cls, key)) for key in ("eval_resize", "image_size"))
        return resize_and_centre_crop(resize, size)

    def _set(self, split: str, transform: Callable[[Any], Any]) -> ClassFolders:
        return ClassFolders(Path(self.root) / split, self.classes, transform)

    def check(self, samples: Samples) -> None:
        """Open an even sample of the images."""
        super().check(samples)
        assert isinstance(samples, ClassFolders)
        for index in spread(len(samples), self.check_files):
            read_image(samples.samples[index][0])


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
