"""COCO-Stuff's labels: class indices of the pixels in both PNG encodings."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from visual_transformers.data import CocoStuff
from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.errors import DataError

ENCODINGS = ["stuffthingmaps", "pixelmaps"]
STUFF = range(92, 183)
REMOVED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
"""Official ids that were removed from COCO: street sign, hat, shoe, ..., hair brush."""
THINGS = [i for i in range(1, 92) if i not in REMOVED]
UNLABELED = 0


def encode_png(official: NDArray[np.int64], encoding: str) -> NDArray[np.uint8]:
    """Encode a picture of official ids as in the published PNGs."""
    if encoding == "stuffthingmaps":
        return np.where(official == UNLABELED, 255, official - 1).astype(np.uint8)
    return np.where((official >= 1) & (official <= 91), 183, official).astype(np.uint8)


@pytest.fixture
def coco(tmp_path: Path, write: Callable[..., Path]) -> Callable[..., CocoStuff]:
    """`coco(official ids, encoding, ...)` has one picture in each split; `coco(file=pixels)` stores that PNG."""

    def make(
        official: NDArray[np.int64] | None = None,
        encoding: str = "stuffthingmaps",
        file: NDArray[np.uint8] | None = None,
        **options: Any,
    ) -> CocoStuff:
        pixels = encode_png(official, encoding) if file is None else file
        for split in ("train2017", "val2017"):
            write(tmp_path / encoding / "images" / split / "000000000009.jpg", np.zeros((*pixels.shape, 3), np.uint8))
            write(tmp_path / encoding / "annotations" / split / "000000000009.png", pixels)
        return CocoStuff(root=str(tmp_path / encoding), encoding=encoding, **options)

    return make


def targets(data: CocoStuff) -> NDArray[np.int64]:
    """Load the target of the first validation image."""
    return data.val_set()[0][1].numpy()


def picture(ids: Any) -> NDArray[np.int64]:
    """Make a picture of two rows: the ids in order and in reverse."""
    row = np.array(list(ids))
    return np.stack([row, row[::-1]])


# Encodings


def test_both_encodings_of_a_picture_give_the_same_targets(coco: Callable[..., CocoStuff]) -> None:
    official = picture([UNLABELED, *THINGS, *STUFF])
    first, second = (targets(coco(official, encoding)) for encoding in ENCODINGS)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_stuff_id_has_the_class_that_many_places_after_banner(
    coco: Callable[..., CocoStuff], encoding: str
) -> None:
    official = picture(STUFF)
    assert np.array_equal(targets(coco(official, encoding)), official - 92)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("name", "official", "index"), [("banner", 92, 0), ("wood", 182, 90)])
def test_the_first_and_the_last_stuff_class_are_banner_and_wood(
    coco: Callable[..., CocoStuff], encoding: str, name: str, official: int, index: int
) -> None:
    data = coco(picture([official]), encoding)
    assert data.classes[index] == name
    assert (targets(data) == index).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_things_and_unlabeled_pixels_are_ignored_among_stuff(coco: Callable[..., CocoStuff], encoding: str) -> None:
    assert (targets(coco(picture([UNLABELED, *THINGS]), encoding)) == 255).all()


def test_stuff_and_things_count_the_official_ids_without_the_removed_ones(coco: Callable[..., CocoStuff]) -> None:
    data = coco(picture([*THINGS, *STUFF]), label_set="stuff_things")
    assert len(data.classes) == 171
    assert np.array_equal(targets(data), picture(range(171)))


def test_unlabeled_pixels_are_ignored_among_stuff_and_things(coco: Callable[..., CocoStuff]) -> None:
    assert (targets(coco(picture([UNLABELED]), label_set="stuff_things")) == 255).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_training_targets_mean_the_same_as_validation_ones(coco: Callable[..., CocoStuff], encoding: str) -> None:
    as_it_is = ScaleCropFlip(crop=91, min_scale=1.0, max_scale=1.0, flip=False)
    data = coco(picture(STUFF), encoding, augmentation=as_it_is)
    padded = data.train_set()[0][1].numpy()
    assert np.array_equal(padded[(padded != 255).any(axis=1)], targets(data))


# Invalid data


@pytest.mark.parametrize(
    ("encoding", "wrong"), [("stuffthingmaps", [182, 200, 254]), ("pixelmaps", [1, 91, 184])], ids=ENCODINGS
)
def test_values_out_of_range_are_named_with_their_file_and_setting(
    coco: Callable[..., CocoStuff], encoding: str, wrong: list[int]
) -> None:
    data = coco(encoding=encoding, file=np.array([[100, *wrong]], np.uint8))
    with pytest.raises(DataError) as caught:
        targets(data)
    message = str(caught.value)
    assert data.val_set().masks.origin(0) in message
    assert str(wrong) in message
    assert "data.encoding" in message


@pytest.mark.parametrize(("actual", "configured"), [ENCODINGS, ENCODINGS[::-1]], ids=ENCODINGS)
def test_a_mask_in_the_other_encoding_is_found_before_training(
    coco: Callable[..., CocoStuff], actual: str, configured: str
) -> None:
    file = encode_png(picture([UNLABELED, *THINGS, *STUFF]), actual)
    data = coco(encoding=configured, file=file)
    with pytest.raises(DataError, match=f"data.encoding={actual}"):
        data.check(data.train_set())


def test_pixelmaps_cannot_give_things(coco: Callable[..., CocoStuff]) -> None:
    with pytest.raises(DataError, match="pixelmaps") as caught:
        coco(picture(STUFF), "pixelmaps", label_set="stuff_things")
    assert "data.label_set" in str(caught.value)


def test_a_missing_root_shows_the_layout_that_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        CocoStuff(root=str(tmp_path / "nowhere"))
    assert "nowhere/images/train2017/" in str(caught.value)
    assert "nowhere/annotations/val2017/" in str(caught.value)


def test_the_test_split_is_the_validation_split(coco: Callable[..., CocoStuff]) -> None:
    data = coco(picture(STUFF))
    train, val, test = ([*s.images] for s in (data.train_set(), data.val_set(), data.test_set()))
    assert test == val != train


# Against the published lists and real masks


@pytest.mark.parametrize("label_set", ["stuff", "stuff_things"])
def test_class_names_are_those_of_the_published_list(
    coco: Callable[..., CocoStuff], shared_data: Path, label_set: str
) -> None:
    text = (shared_data / "labels/cocostuff_labels.md").read_text(encoding="utf-8")
    published = {int(number): name.strip() for number, name in re.findall(r"^(\d+)\t\|\t([^|]*)\|", text, re.M)}
    assert len(published) == 183
    ids = STUFF if label_set == "stuff" else [*THINGS, *STUFF]
    assert coco(picture(STUFF), label_set=label_set).classes == [published[i] for i in ids]


def test_the_removed_ids_are_those_of_the_published_list(shared_data: Path) -> None:
    text = (shared_data / "labels/cocostuff_labels.md").read_text(encoding="utf-8")
    assert {int(number) for number in re.findall(r"^(\d+)\t.*Removed from COCO", text, re.M)} == REMOVED


@pytest.fixture
def mini(tmp_path: Path, shared_data: Path, write: Callable[..., Path]) -> Callable[[str], CocoStuff]:
    """`mini(encoding)` has 200 photographs; for pixelmaps, their masks are rewritten below tmp_path."""
    root = shared_data / "cocostuff_mini"

    def make(encoding: str) -> CocoStuff:
        if encoding == "stuffthingmaps":
            return CocoStuff(root=str(root))
        for split in ("train2017", "val2017"):
            for path in (root / "annotations" / split).glob("*.png"):
                stored = np.array(Image.open(path)).astype(int)
                official = np.where(stored == 255, UNLABELED, stored + 1)
                write(tmp_path / "annotations" / split / path.name, encode_png(official, encoding), compress_level=1)
        (tmp_path / "images").symlink_to(root / "images", target_is_directory=True)
        return CocoStuff(root=str(tmp_path), encoding=encoding)

    return make


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_cocostuff_mini_has_a_hundred_images_in_each_split(mini: Callable[[str], CocoStuff], encoding: str) -> None:
    data = mini(encoding)
    assert (len(data.train_set()), len(data.val_set())) == (100, 100)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_targets_of_cocostuff_mini_are_its_stored_stuff_ids(
    mini: Callable[[str], CocoStuff], shared_data: Path, encoding: str
) -> None:
    samples = mini(encoding).val_set()
    classes: set[int] = set()
    for index in range(0, 100, 20):
        name = samples.images[index].stem + ".png"
        stored = torch.tensor(np.array(Image.open(shared_data / "cocostuff_mini/annotations/val2017" / name))).long()
        expected = torch.where((stored >= 91) & (stored <= 181), stored - 91, 255)
        assert torch.equal(samples[index][1].long(), expected), name
        classes |= set(expected.unique().tolist())
    assert len(classes) > 10
