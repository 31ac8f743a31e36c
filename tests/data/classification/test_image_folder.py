"""Images in one folder per class: splits with folders, and validation images held out from the training images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from visual_transformers.data import ImageFolder
from visual_transformers.data.dataset import ClassifiedImages
from visual_transformers.errors import DataError

CLASSES = {"ant": 10, "cat": 4, "dog": 2}


def data_set(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(root=str(root), **options)


def names(samples: ClassifiedImages) -> list[str]:
    return list(samples.images.names())


def test_splits_with_folders_of_their_own_are_read_from_them(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"a": CLASSES, "b": {**CLASSES, "ant": 3}, "c": {**CLASSES, "ant": 5}})
    data = data_set(root, train="a", val="b", test="c")
    assert data.classes == ["ant", "cat", "dog"]
    splits = [data.train_set(), data.val_set(), data.test_set()]
    assert [(samples.images.root.name, len(samples)) for samples in splits] == [("a", 16), ("b", 9), ("c", 11)]


def test_the_test_split_is_the_validation_split_unless_it_is_named(class_folders: Callable[..., Path]) -> None:
    data = data_set(class_folders({"train": CLASSES, "val": CLASSES}))
    assert data.test_set().images.root == data.val_set().images.root == Path(data.root) / "val"


def test_the_test_split_is_not_taken_for_validation(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": CLASSES, "test": CLASSES})
    assert data_set(root).val_set().images.root.name == "test"
    with pytest.raises(DataError, match="no folder next to train has its classes"):
        data_set(root, test="test")


def test_images_of_any_format_are_found(
    tmp_path: Path, write: Callable[..., Path], noise: Callable[..., NDArray[np.uint8]]
) -> None:
    suffixes = [".jpg", ".JPEG", ".png", ".bmp", ".webp", ".tif", ".gif"]
    for split in ("train", "val"):
        for suffix in suffixes:
            write(tmp_path / split / "a" / "below" / f"1{suffix}", noise(9, 9, 3))
        (tmp_path / split / "a" / "notes.txt").write_text("no image")
    data = data_set(tmp_path, image_size=8, eval_resize=8)
    assert {path.suffix for path in data.val_set().images} == set(suffixes)
    data.check(data.val_set())


# Held-out validation images


def hold_out(root: Path, **options: Any) -> tuple[list[str], list[str]]:
    data = data_set(root, val_share=0.25, **options)
    return names(data.train_set()), names(data.val_set())


@pytest.fixture
def one_folder(class_folders: Callable[..., Path]) -> Path:
    return class_folders({"train": CLASSES})


def test_a_share_of_every_class_is_held_out_for_validation(one_folder: Path) -> None:
    train, val = hold_out(one_folder)
    counts = [[sum(name.startswith(c) for name in part) for c in CLASSES] for part in (train, val)]
    assert counts == [[8, 3, 1], [2, 1, 1]]
    assert sorted(train + val) == [f"{c}/{i}.JPEG" for c in CLASSES for i in sorted(range(CLASSES[c]))]


def test_targets_stay_with_their_images(one_folder: Path) -> None:
    data = data_set(one_folder, val_share=0.25)
    for samples in (data.train_set(), data.val_set()):
        assert [data.classes[samples.target(i)] for i in range(len(samples))] == [
            name.split("/")[0] for name in names(samples)
        ]


def test_the_seed_picks_what_is_held_out(one_folder: Path) -> None:
    assert hold_out(one_folder, seed=1) == hold_out(one_folder, seed=1)
    assert hold_out(one_folder, seed=1) != hold_out(one_folder, seed=2)


def test_the_class_folders_may_be_all_that_there_is(one_folder: Path) -> None:
    assert hold_out(one_folder / "train", train=".") == hold_out(one_folder)


def test_an_excluded_file_moves_no_other_to_another_split(one_folder: Path) -> None:
    train, val = hold_out(one_folder)
    (one_folder / "bad.txt").write_text(f"train/{val[0]}\ntrain/{train[0]}\n")
    assert hold_out(one_folder, exclude=str(one_folder / "bad.txt")) == (train[1:], val[1:])


def test_the_test_split_keeps_its_folder(class_folders: Callable[..., Path]) -> None:
    data = data_set(class_folders({"train": CLASSES, "test": CLASSES}), val_share=0.25, test="test")
    assert [len(samples) for samples in (data.train_set(), data.val_set(), data.test_set())] == [12, 4, 16]


# Invalid data


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(one_folder: Path, share: float) -> None:
    with pytest.raises(DataError, match=rf"data\.val_share={share}"):
        data_set(one_folder, val_share=share).train_set()


def test_a_negative_seed_is_refused(one_folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.seed=-1"):
        hold_out(one_folder, seed=-1)


def test_a_class_with_one_image_cannot_be_split(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": {"ant": 2, "cat": 1}})
    with pytest.raises(DataError, match=rf"^{root}/train/cat/0\.JPEG: the only image of its class"):
        hold_out(root)


def test_a_folder_and_a_share_at_once_are_refused(one_folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.val=val and data\.val_share=0\.25"):
        hold_out(one_folder, val="val")


def test_a_test_split_without_a_class_is_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": CLASSES, "val": CLASSES, "test": {"ant": 1, "cat": 1}})
    with pytest.raises(DataError, match=f"^{root}/test: no folder for 1 of 3 classes: dog"):
        data_set(root, test="test")


def test_a_missing_test_folder_is_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": CLASSES, "val": CLASSES})
    with pytest.raises(DataError, match=f"^{root}/absent: no such folder; expected the layout"):
        data_set(root, test="absent")


def test_a_class_folder_without_images_is_named(class_folders: Callable[..., Path]) -> None:
    root = class_folders({"train": CLASSES, "val": {**CLASSES, "cat": 0}})
    with pytest.raises(DataError, match=f"^{root}/val: no images of 1 of 3 classes: cat"):
        data_set(root).val_set()
