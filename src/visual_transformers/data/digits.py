"""The embedded default data: scikit-learn's handwritten digits, alone or in scenes. Nothing to download.

`Digits` enlarges the 8 x 8 pictures to 80 pixels, where stage 4 of a ResNet (stride 16) still has a map of
5 x 5 pixels for 16 tokens to choose from; at 64 pixels it would have 4 x 4, one pixel per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.datamodule import DataModule, Preparation, Samples, spread
from visual_transformers.data.normalization import whole_image
from visual_transformers.errors import DataError

Split = Literal["train", "val"]
DIGITS = [str(digit) for digit in range(10)]


@cache
def digit_images(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Digits (N, 8, 8) in 0 to 255 and their classes: a fixed stratified split, 1437 for training and 360 others."""
    from sklearn.datasets import load_digits  # a second to import, which commands without these data need not wait
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    scaled = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    train, val, train_labels, val_labels = train_test_split(
        scaled, labels, test_size=360, random_state=0, stratify=labels
    )
    return (train, train_labels) if split == "train" else (val, val_labels)


class EnlargedDigits:
    """Single digits in grey on black, enlarged to `image_size` pixels."""

    def __init__(self, split: Split, image_size: int, transform: v2.Transform | None):
        self.images, self.labels = digit_images(split)
        self.image_size, self.transform = image_size, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index]).resize((self.image_size,) * 2, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture)).expand(3, -1, -1)
        if self.transform:
            pixels = self.transform(tv_tensors.Image(pixels)).as_subclass(Tensor)
        return pixels, int(self.labels[index])


@dataclass(kw_only=True)
class Digits(DataModule):
    """scikit-learn's 1,797 handwritten digits, enlarged; training images are turned and moved a little.

    Args:
        image_size: side of the square that the model sees, pixels.
        max_rotation: largest rotation of a training image, degrees.
        max_shift: largest shift of a training image, as a part of its side.
    """

    task: ClassVar[str] = "classification"

    image_size: int = 80
    max_rotation: float = 10.0
    max_shift: float = 0.1

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return DIGITS

    def train_set(self) -> Samples:
        """1,437 digits, augmented."""
        move = v2.RandomAffine(
            self.max_rotation,
            translate=(self.max_shift, self.max_shift),
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        return EnlargedDigits("train", self.image_size, move)

    def val_set(self) -> Samples:
        """360 other digits."""
        return EnlargedDigits("val", self.image_size, None)

    def pictures(self, count: int) -> list[tuple[str, Image.Image]]:
        """Digits of 8 x 8 pixels, named by number and class."""
        images, labels = digit_images("val")
        return [(f"{i}-digit-{labels[i]}", Image.fromarray(images[i])) for i in spread(len(images), count)]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """Grey, and squeezed into the square that the model sees."""
        side = settings.get("image_size", cls.image_size)
        enlarge = v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC)
        return v2.Compose([v2.Grayscale(3), enlarge, v2.ToImage()])


@cache
def photographs(split: Split) -> list[NDArray[np.uint8]]:
    """Background regions (H, W, 3): the left 70 % of scikit-learn's two photographs for training, the rest for val."""
    from sklearn.datasets import load_sample_images  # as above

    photos = load_sample_images().images
    cuts = [round(0.7 * photo.shape[1]) for photo in photos]
    return [photo[:, :cut] if split == "train" else photo[:, cut:] for photo, cut in zip(photos, cuts, strict=True)]


class Scenes:
    """Handwritten digits over crops of photographs, with exact labels: a pure function of (split, seed, index)."""

    def __init__(self, split: Split, seed: int, length: int, image_size: int, max_digits: int):
        self.split: Split = split
        self.seed, self.length, self.image_size, self.max_digits = seed, length, image_size, max_digits

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        scene, labels = self.compose(index)
        return torch.from_numpy(scene).permute(2, 0, 1), torch.from_numpy(labels)

    def compose(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Scene (H, W, 3) and labels (H, W): digit d has label d, the background 10."""
        random = np.random.default_rng([self.seed, index, self.split == "val"])
        scene = self._background(random).astype(np.float32)
        labels = np.full(scene.shape[:2], len(DIGITS), np.uint8)
        for _ in range(random.integers(1, self.max_digits, endpoint=True)):
            self._draw(random, scene, labels)
        return scene.round().clip(0, 255).astype(np.uint8), labels

    def _background(self, random: np.random.Generator) -> NDArray[np.uint8]:
        regions = photographs(self.split)
        photo = regions[random.integers(len(regions))]
        side = random.integers(self.image_size // 2, min(2 * self.image_size, *photo.shape[:2]), endpoint=True)
        top, left = (random.integers(extent - side, endpoint=True) for extent in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        return np.array(crop.resize((self.image_size,) * 2, Image.Resampling.BILINEAR))

    def _draw(self, random: np.random.Generator, scene: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
        """Blend one digit in, light on dark or dark on light, by a random contrast; label its strong strokes.

        A digit that finds no free place is left out, for what covers another makes that one unreadable.
        """
        images, classes = digit_images(self.split)
        chosen = random.integers(len(images))
        side = int(random.integers(self.image_size // 3, self.image_size // 2, endpoint=True))
        places = random.integers(self.image_size - side, size=(PLACES_TRIED, 2), endpoint=True)
        windows = (np.s_[top : top + side, left : left + side] for top, left in places)
        window = next((window for window in windows if (labels[window] == len(DIGITS)).all()), None)
        if window is None:
            return
        stroke = Image.fromarray(images[chosen]).resize((side, side), Image.Resampling.BICUBIC)
        opacity = np.asarray(stroke, np.float32) / 255
        light = scene[window].mean() < 128
        ink = random.uniform(170, 255, size=3) if light else random.uniform(0, 85, size=3)
        strength = (random.uniform(0.5, 1.0) * opacity)[..., None]
        scene[window] = (1 - strength) * scene[window] + strength * ink.astype(np.float32)
        labels[window][opacity >= 0.5] = classes[chosen]


PLACES_TRIED = 20


@dataclass(kw_only=True)
class DigitScenes(DataModule):
    """Scenes of one or more real digits over real photographs, in the manner of M2NIST, with exact pixel labels.

    Training and validation scenes share no digit and no region of a photograph.

    Args:
        image_size: side of a scene, pixels.
        train_scenes, val_scenes: scenes in each split.
        max_digits: most digits in a scene; there is at least one.
        seed: picks the set of scenes; it is not the run's seed, so that runs with other seeds see the same data.
    """

    task: ClassVar[str] = "segmentation"

    image_size: int = 64
    train_scenes: int = 3000
    val_scenes: int = 200
    max_digits: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        largest = 2 * min(side for photo in photographs("val") for side in photo.shape[:2])
        if not 16 <= self.image_size <= largest:
            raise DataError(f"data.image_size={self.image_size}: scenes can be 16 to {largest} pixels large")
        if self.max_digits < 1 or self.seed < 0:
            raise DataError(f"data.max_digits={self.max_digits}, data.seed={self.seed}: must be at least 1 and 0")

    @property
    def classes(self) -> list[str]:
        """The ten digits and the background."""
        return [*DIGITS, "background"]

    def train_set(self) -> Samples:
        """The training scenes, as they are: each is new enough to need no augmentation."""
        return self._scenes("train", self.train_scenes)

    def val_set(self) -> Samples:
        """The validation scenes."""
        return self._scenes("val", self.val_scenes)

    def pictures(self, count: int) -> list[tuple[str, Image.Image]]:
        """Validation scenes, named by number."""
        scenes = self._scenes("val", self.val_scenes)
        return [(f"scene-{i}", Image.fromarray(scenes.compose(i)[0])) for i in spread(len(scenes), count)]

    @classmethod
    def preparation(cls, settings: dict[str, Any]) -> Preparation:
        """The whole image at its own size."""
        return whole_image()

    def _scenes(self, split: Split, length: int) -> Scenes:
        return Scenes(split, self.seed, length, self.image_size, self.max_digits)
