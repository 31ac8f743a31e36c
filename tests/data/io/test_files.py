"""Evaluation transforms that need only a data set's settings, for images shown to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from visual_transformers.data import CocoStuff, Digits, DigitScenes, ImageNet, MaskFolder
from visual_transformers.data.datamodule import DataModule
from visual_transformers.data.segmentation.coco.labels import STUFF, THINGS


def random_image(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def image_folders(tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog", "dog")):
            random_image(tmp_path / split / name / f"image{i}.png", (40 + i, 50))
    return {"root": str(tmp_path), "image_size": 32, "eval_resize": 36}


@pytest.fixture
def mask_folders(tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        for i in range(3):
            random_image(tmp_path / split / "images" / f"{i}.png", (20, 30 + i))
            mask = tmp_path / split / "masks" / f"{i}.png"
            mask.parent.mkdir(exist_ok=True)
            Image.fromarray(np.zeros((20, 30 + i), np.uint8)).save(mask)
    return {"root": str(tmp_path), "class_names": ["all"]}


def check_eval_transform(data: DataModule, settings: dict[str, Any], count: int) -> None:
    samples, images = data.val_set(), data.load_val_images(count)
    assert len(images) == min(count, len(samples))
    transform = type(data).build_eval_transform(settings)
    first, last = (transform(images[i][1].convert("RGB")) for i in (0, -1))
    assert torch.equal(first, samples[0][0])
    assert torch.equal(last, samples[len(samples) - 1][0])
    assert len({name for name, _ in images}) == len(images)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(Digits, {}), (Digits, {"image_size": 48}), (DigitScenes, {"val_scenes": 5})],
)
def test_transformed_digits_and_scenes_are_those_of_the_validation_split(kind: Any, settings: dict[str, Any]) -> None:
    check_eval_transform(kind(**settings), settings, 4)


def test_transformed_images_of_class_folders_are_those_of_the_validation_split(image_folders: dict[str, Any]) -> None:
    check_eval_transform(ImageNet(**image_folders), image_folders, 9)


def test_transformed_images_of_mask_folders_are_those_of_the_validation_split(mask_folders: dict[str, Any]) -> None:
    check_eval_transform(MaskFolder(**mask_folders), mask_folders, 2)


def test_the_evaluation_transform_needs_no_folder() -> None:
    settings = {"root": "nowhere", "image_size": 32, "eval_resize": 36}
    assert ImageNet.build_eval_transform(settings)(Image.new("RGB", (64, 50))).shape == (3, 32, 32)


@pytest.mark.parametrize(("label_set", "ids"), [("stuff", STUFF), ("stuff_things", THINGS + STUFF)])
def test_category_ids_are_the_official_ones_of_the_label_set(label_set: str, ids: list[int]) -> None:
    assert CocoStuff.category_ids({"root": "nowhere", "label_set": label_set}) == ids
    assert CocoStuff.category_ids({}) == STUFF
    assert Digits.category_ids({}) is None
