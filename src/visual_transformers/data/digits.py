"""Default data that needs no download: scikit-learn's handwritten digits, as single images or in scenes.

`Digits` enlarges the 8 x 8 images to 80 pixels, where stage 4 of a ResNet (stride 16) has a feature map of 5 x 5 pixels
for 16 tokens to choose from. At 64 pixels it would have 4 x 4, one pixel per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.datamodule import DataModule, EvalTransform, Samples, spread_indices
from visual_transformers.errors import DataError

Split = Literal["train", "val"]
DIGITS = [str(digit) for digit in range(10)]
BACKGROUND = len(DIGITS)
MAX_PLACEMENT_TRIES = 20


@cache
def load_digit_split(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Load digits (N, 8, 8), 0 to 255, and their classes: a fixed stratified split into 1437 and 360."""
    from sklearn.datasets import load_digits  # takes a second to import, which other commands need not wait for
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
        self.images, self.labels = load_digit_split(split)
        self.image_size, self.transform = image_size, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index]).resize((self.image_size,) * 2, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).expand(3, -1, -1)
        if self.transform:
            pixels = self.transform(tv_tensors.Image(pixels)).as_subclass(Tensor)
        return pixels, int(self.labels[index])


@dataclass(kw_only=True)
class Digits(DataModule):
    """scikit-learn's 1,797 handwritten digits, enlarged; training images are rotated and shifted at random.

    The keys are described in `conf/data/digits.yaml`.
    """

    task: ClassVar[str] = "classification"

    image_size: Annotated[int, Ge(1)] = 80
    max_rotation: float = 10.0
    max_shift: float = 0.1

    @property
    def classes(self) -> list[str]:
        """The ten digits."""
        return DIGITS

    def train_set(self) -> Samples:
        """Build the training set: 1,437 digits, augmented."""
        shift = (self.max_shift, self.max_shift)
        affine = v2.RandomAffine(self.max_rotation, translate=shift, interpolation=v2.InterpolationMode.BILINEAR)
        return EnlargedDigits("train", self.image_size, affine)

    def val_set(self) -> Samples:
        """Build the validation set: 360 other digits."""
        return EnlargedDigits("val", self.image_size, None)

    def load_val_images(self, count: int) -> list[tuple[str, Image.Image]]:
        """Load validation digits of 8 x 8 pixels, named by number and class."""
        images, labels = load_digit_split("val")
        return [(f"{i}-digit-{labels[i]}", Image.fromarray(images[i])) for i in spread_indices(len(images), count)]

    @classmethod
    def build_eval_transform(cls, settings: dict[str, Any]) -> EvalTransform:
        """Build the transform of any image to grey, stretched to the square model input."""
        side = settings.get("image_size", cls.image_size)
        enlarge = v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC)
        return v2.Compose([v2.Grayscale(3), enlarge, v2.ToImage()])


@cache
def load_photo_regions(split: Split) -> list[NDArray[np.uint8]]:
    """Load background regions (H, W, 3): the left 70 % of two photographs for training, the rest for validation."""
    from sklearn.datasets import load_sample_images  # slow to import, too

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
        """Compose a scene (H, W, 3) and its labels (H, W): digit d has label d, the background 10."""
        rng = np.random.default_rng([self.seed, index, self.split == "val"])
        scene = self._crop_background(rng).astype(np.float32)
        labels = np.full(scene.shape[:2], BACKGROUND, np.uint8)
        for _ in range(rng.integers(1, self.max_digits, endpoint=True)):
            self._draw(rng, scene, labels)
        return scene.round().clip(0, 255).astype(np.uint8), labels

    def _crop_background(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        regions = load_photo_regions(self.split)
        photo = regions[rng.integers(len(regions))]
        side = rng.integers(self.image_size // 2, min(2 * self.image_size, *photo.shape[:2]), endpoint=True)
        top, left = (rng.integers(extent - side, endpoint=True) for extent in photo.shape[:2])
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        return np.array(crop.resize((self.image_size,) * 2, Image.Resampling.BILINEAR))

    def _draw(self, rng: np.random.Generator, scene: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
        """Blend one digit in, light on dark or dark on light, with random contrast; label its strong strokes.

        A digit that finds no free place is left out, because overlapping digits would be unreadable.
        """
        images, classes = load_digit_split(self.split)
        chosen = rng.integers(len(images))
        side = int(rng.integers(self.image_size // 3, self.image_size // 2, endpoint=True))
        corners = rng.integers(self.image_size - side, size=(MAX_PLACEMENT_TRIES, 2), endpoint=True)
        windows = (np.s_[top : top + side, left : left + side] for top, left in corners)
        window = next((window for window in windows if (labels[window] == BACKGROUND).all()), None)
        if window is None:
            return
        stroke = Image.fromarray(images[chosen]).resize((side, side), Image.Resampling.BICUBIC)
        opacity = np.asarray(stroke, np.float32) / 255
        on_dark = scene[window].mean() < 128
        ink = rng.uniform(170, 255, size=3) if on_dark else rng.uniform(0, 85, size=3)
        strength = (rng.uniform(0.5, 1.0) * opacity)[..., None]
        scene[window] = (1 - strength) * scene[window] + strength * ink.astype(np.float32)
        labels[window][opacity >= 0.5] = classes[chosen]


@dataclass(kw_only=True)
class DigitScenes(DataModule):
    """Scenes of one or more real digits over real photographs, similar to M2NIST, with exact pixel labels.

    Training and validation scenes share no digit and no region of a photograph. The keys are described in
    `conf/data/digit_scenes.yaml`.
    """

    task: ClassVar[str] = "segmentation"

    image_size: Annotated[int, Ge(1)] = 64
    train_scenes: Annotated[int, Ge(1)] = 3000
    val_scenes: Annotated[int, Ge(1)] = 200
    max_digits: Annotated[int, Ge(1)] = 6
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        largest = 2 * min(side for photo in load_photo_regions("val") for side in photo.shape[:2])
        if not 16 <= self.image_size <= largest:
            raise DataError(f"data.image_size={self.image_size}: must be 16 to {largest} pixels for scenes")

    @property
    def classes(self) -> list[str]:
        """The ten digits and the background."""
        return [*DIGITS, "background"]

    def train_set(self) -> Samples:
        """Build the training scenes, which are varied enough without augmentation."""
        return self._scenes("train", self.train_scenes)

    def val_set(self) -> Scenes:
        """Build the validation scenes."""
        return self._scenes("val", self.val_scenes)

    def load_val_images(self, count: int) -> list[tuple[str, Image.Image]]:
        """Load validation scenes, named by number."""
        scenes = self.val_set()
        return [(f"scene-{i}", Image.fromarray(scenes.compose(i)[0])) for i in spread_indices(len(scenes), count)]

    def _scenes(self, split: Split, length: int) -> Scenes:
        return Scenes(split, self.seed, length, self.image_size, self.max_digits)
