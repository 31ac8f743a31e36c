"""Fixtures that write images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def write() -> Write:
    """`write(path, pixels)` saves an array or a PIL image, making the folders it needs; returns the path."""

    def save(path: Path, pixels: NDArray[np.uint8] | Image.Image, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, **options)
        return path

    return save


@pytest.fixture
def cut_short() -> Callable[[Path], None]:
    """`cut_short(path)` leaves the first half of a file, as an interrupted copy does."""

    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return cut


@pytest.fixture
def noise() -> Callable[..., NDArray[np.uint8]]:
    """`noise(*shape)` makes a picture in which no pixel is like another."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> NDArray[np.uint8]:
        return random.integers(0, 256, shape, dtype=np.uint8)

    return draw


@pytest.fixture
def class_folders(tmp_path: Path, write: Write) -> Callable[[dict[str, dict[str, int]]], Path]:
    """`class_folders({split: {class: number of images}})` writes them, each class in a grey of its own; the root."""

    def make(splits: dict[str, dict[str, int]], size: int = 32) -> Path:
        greys = {
            name: (40 + 80 * i) % 256
            for i, name in enumerate(sorted({name for split in splits.values() for name in split}))
        }
        for split, classes in splits.items():
            for name, count in classes.items():
                (tmp_path / split / name).mkdir(parents=True)
                for number in range(count):
                    pixels = np.full((size, size, 3), greys[name], np.uint8)
                    write(tmp_path / split / name / f"{number}.JPEG", pixels)
        return tmp_path

    return make
