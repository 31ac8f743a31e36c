"""Data sets of scikit-learn's handwritten digits, as single images and in scenes."""

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

from visual_transformers.data import Digits, DigitScenes
from visual_transformers.data.datamodule import DataModule, Samples
from visual_transformers.data.digits import Scenes, load_digit_split, load_photo_regions

SPLITS = ["train", "val"]
BACKGROUND = 10


def samples_of(data: DataModule, split: str) -> Samples:
    return data.train_set() if split == "train" else data.val_set()


# Single digits


def test_the_splits_together_are_the_data_set_and_share_no_digit() -> None:
    images, labels = load_digits(return_X_y=True)
    everything = sorted(
        (digit.round().astype(int).tobytes(), int(label)) for digit, label in zip(images, labels, strict=True)
    )
    split = [
        ((digit.reshape(64) / 255 * 16).round().astype(int).tobytes(), int(label))
        for name in SPLITS
        for digit, label in zip(*load_digit_split(name), strict=True)
    ]
    assert len(set(everything)) == len(everything) == 1797
    assert sorted(split) == everything


@pytest.mark.parametrize(("split", "length"), [("train", 1437), ("val", 360)])
def test_the_splits_have_their_documented_lengths(split: str, length: int) -> None:
    assert len(samples_of(Digits(), split)) == length


def test_every_digit_has_its_share_of_both_splits() -> None:
    counts = np.stack([np.bincount(load_digit_split(split)[1], minlength=10) for split in SPLITS])
    expected = counts.sum(0) * counts.sum(1, keepdims=True) / 1797
    assert np.abs(counts - expected).max() < 1.5


def nearest_class(image: Tensor) -> int:
    """Return the class of the digit of the data set that is nearest to an enlarged one."""
    grey = image[0].numpy()
    small = np.asarray(Image.fromarray(grey).resize((8, 8), Image.Resampling.BOX), float) / 255 * 16
    images, labels = load_digits(return_X_y=True)
    return int(labels[((images - small.reshape(64)) ** 2).sum(1).argmin()])


@pytest.mark.parametrize("split", SPLITS)
def test_a_target_is_the_digit_that_the_image_shows(split: str) -> None:
    samples = samples_of(Digits(max_rotation=0.0, max_shift=0.0), split)
    indices = range(0, len(samples), len(samples) // 30)
    pairs = [(nearest_class(image), target) for image, target in map(samples.__getitem__, indices)]
    assert all(shown == target for shown, target in pairs), pairs


@pytest.mark.parametrize("split", SPLITS)
def test_images_have_the_requested_size_and_three_equal_channels(split: str) -> None:
    image, _ = samples_of(Digits(image_size=40), split)[3]
    assert image.shape == (3, 40, 40)
    assert (image == image[0]).all()
    assert image.max() > 150


def test_training_images_are_augmented_anew_unless_rotation_and_shift_are_0() -> None:
    augmented, fixed = Digits().train_set(), Digits(max_rotation=0.0, max_shift=0.0).train_set()
    assert not torch.equal(augmented[0][0], augmented[0][0])
    assert torch.equal(fixed[0][0], fixed[0][0])


def test_validation_images_are_always_the_same() -> None:
    first = Digits().val_set()[5][0]
    torch.manual_seed(99)
    assert torch.equal(first, Digits().val_set()[5][0])


# Scenes: their digits and backgrounds


def test_the_photographs_regions_of_the_splits_are_their_disjoint_parts() -> None:
    train, val = load_photo_regions("train"), load_photo_regions("val")
    for left, right, photo in zip(train, val, load_sample_images().images, strict=True):
        assert min(left.shape[1], right.shape[1]) > 0
        assert np.array_equal(np.concatenate([left, right], axis=1), photo)


def box(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], bytes]:
    """Crop the empty rows and columns around a shape."""
    cut = mask[mask.any(axis=1)][:, mask.any(axis=0)]
    return cut.shape, cut.tobytes()


@cache
def shapes(split: str) -> dict[tuple[tuple[int, ...], bytes], set[int]]:
    """Map the shapes of a split's digits, at all sizes in a scene of 48 pixels, to their classes."""
    found: dict[tuple[tuple[int, ...], bytes], set[int]] = {}
    for digit, label in zip(*load_digit_split(split), strict=True):
        for side in range(12, 33):
            enlarged = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
            found.setdefault(box(enlarged >= 127.5), set()).add(int(label))
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_labelled_pixels_are_exactly_the_strokes_of_a_digit_of_the_split(split: str) -> None:
    samples = samples_of(DigitScenes(image_size=48, max_digits=1, train_scenes=40, val_scenes=40), split)
    for index in range(len(samples)):
        labels = samples[index][1].numpy()
        (digit,) = set(np.unique(labels).tolist()) - {BACKGROUND}
        assert digit in shapes(split).get(box(labels == digit), set()), index


class BareScenes(Scenes):
    """Scenes before anything is drawn on them."""

    def _draw(self, *_: Any) -> None:
        pass


def drawn_and_bare(split: str, length: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return images and labels of the default scenes with and without their digits."""
    scenes = samples_of(DigitScenes(train_scenes=length, val_scenes=length), split)
    assert isinstance(scenes, Scenes)
    bare = BareScenes(scenes.split, scenes.seed, length, scenes.image_size, scenes.max_digits)
    pairs = [(scenes[index], bare[index]) for index in range(length)]
    return [(image, labels, plain, none) for (image, labels), (plain, none) in pairs]


@pytest.mark.parametrize("split", SPLITS)
def test_digits_change_nearly_every_pixel_with_their_label(split: str) -> None:
    scenes = drawn_and_bare(split, 20)
    changed = torch.cat([((image != bare).any(0))[labels != BACKGROUND] for image, labels, bare, _ in scenes])
    assert len(changed) > 20 * 100
    assert changed.float().mean() > 0.99


@pytest.mark.parametrize("split", SPLITS)
def test_labelled_strokes_stand_out_from_the_photograph(split: str) -> None:
    for image, labels, bare, _ in drawn_and_bare(split, 20):
        stroke = (image.float() - bare.float()).abs().mean(0)
        assert stroke[labels != BACKGROUND].mean() > 5 * stroke[labels == BACKGROUND].mean()


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_without_digits_would_be_all_background(split: str) -> None:
    assert all((none == BACKGROUND).all() for _, _, _, none in drawn_and_bare(split, 5))


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_fifty_scenes_are_exactly_the_ten_digits_and_the_background(split: str) -> None:
    data = DigitScenes()
    labels = torch.stack([samples_of(data, split)[index][1] for index in range(50)])
    assert labels.unique().tolist() == list(range(11))
    assert (labels != BACKGROUND).any(dim=(1, 2)).all(), "a scene without a digit"
    assert data.classes == [*"0123456789", "background"]


def test_scenes_have_the_requested_size_and_number() -> None:
    data = DigitScenes(image_size=48, train_scenes=7, val_scenes=5)
    image, labels = data.val_set()[0]
    assert (len(data.train_set()), len(data.val_set())) == (7, 5)
    assert (image.shape, labels.shape) == ((3, 48, 48), (48, 48))
    assert labels.dtype == torch.uint8


# Scenes: pure functions of (split, seed, index)


def same(first: tuple[Tensor, Any], second: tuple[Tensor, Any]) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_the_same_after_other_scenes_and_other_random_states(split: str) -> None:
    seed_everything(1)
    samples = samples_of(DigitScenes(), split)
    first = samples[7]
    for index in (0, 8, 3):
        samples[index]
    seed_everything(2)
    assert same(first, samples[7])
    assert same(first, samples_of(DigitScenes(), split)[7])


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_the_same_in_a_larger_set(split: str) -> None:
    few, many = DigitScenes(train_scenes=10, val_scenes=10), DigitScenes(train_scenes=99, val_scenes=99)
    assert same(samples_of(few, split)[9], samples_of(many, split)[9])


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_of_other_indices_differ(split: str) -> None:
    samples = samples_of(DigitScenes(), split)
    assert len({samples[index][0].numpy().tobytes() for index in range(50)}) == 50


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_of_other_seeds_differ(split: str) -> None:
    scenes = [samples_of(DigitScenes(seed=seed), split)[3] for seed in range(5)]
    assert len({image.numpy().tobytes() for image, _ in scenes}) == 5


def test_scenes_of_the_other_split_have_other_labels() -> None:
    data = DigitScenes()
    train, val = data.train_set(), data.val_set()
    assert not any(torch.equal(train[index][1], val[index][1]) for index in range(10))


@pytest.mark.parametrize("index", [5, 6, -1])
def test_an_index_out_of_range_raises_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        DigitScenes(val_scenes=5).val_set()[index]
