"""The embedded data sets of scikit-learn's handwritten digits, alone and in scenes."""

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
from visual_transformers.data.digits import Scenes, digit_images, photographs

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
        for digit, label in zip(*digit_images(name), strict=True)
    ]
    assert len(set(everything)) == len(everything) == 1797
    assert sorted(split) == everything


@pytest.mark.parametrize(("split", "length"), [("train", 1437), ("val", 360)])
def test_the_splits_have_their_documented_lengths(split: str, length: int) -> None:
    assert len(samples_of(Digits(), split)) == length


def test_every_digit_has_its_share_of_both_splits() -> None:
    counts = np.stack([np.bincount(digit_images(split)[1], minlength=10) for split in SPLITS])
    expected = counts.sum(0) * counts.sum(1, keepdims=True) / 1797
    assert np.abs(counts - expected).max() < 1.5


def looks_like(image: Tensor) -> int:
    """Class of the digit of the data set that is nearest to an enlarged one."""
    grey = image[0].numpy()
    small = np.asarray(Image.fromarray(grey).resize((8, 8), Image.Resampling.BOX), float) / 255 * 16
    images, labels = load_digits(return_X_y=True)
    return int(labels[((images - small.reshape(64)) ** 2).sum(1).argmin()])


def test_a_target_names_the_digit_that_the_picture_shows() -> None:
    samples = Digits().val_set()
    pairs = [(looks_like(image), target) for image, target in (samples[index] for index in range(0, 360, 12))]
    assert all(shown == target for shown, target in pairs), pairs


def test_training_targets_name_the_digits_that_the_pictures_show() -> None:
    samples = Digits(max_rotation=0.0, max_shift=0.0).train_set()
    pairs = [(looks_like(image), target) for image, target in (samples[index] for index in range(0, 1437, 48))]
    assert all(shown == target for shown, target in pairs), pairs


@pytest.mark.parametrize("split", SPLITS)
def test_pictures_have_the_asked_size_and_three_equal_channels(split: str) -> None:
    image, _ = samples_of(Digits(image_size=40), split)[3]
    pixels = image
    assert pixels.shape == (3, 40, 40)
    assert (pixels == pixels[0]).all()
    assert pixels.max() > 150


def test_training_pictures_move_anew_each_time() -> None:
    samples = Digits().train_set()
    assert not torch.equal(samples[0][0], samples[0][0])


def test_training_pictures_stay_as_they_are_without_rotation_and_shift() -> None:
    samples = Digits(max_rotation=0.0, max_shift=0.0).train_set()
    assert torch.equal(samples[0][0], samples[0][0])


def test_validation_pictures_are_always_the_same() -> None:
    first = Digits().val_set()[5][0]
    torch.manual_seed(99)
    assert torch.equal(first, Digits().val_set()[5][0])


# Scenes: what they are made of


def test_the_photographs_regions_of_the_splits_are_their_disjoint_parts() -> None:
    train, val = photographs("train"), photographs("val")
    for left, right, photo in zip(train, val, load_sample_images().images, strict=True):
        assert min(left.shape[1], right.shape[1]) > 0
        assert np.array_equal(np.concatenate([left, right], axis=1), photo)


def box(mask: NDArray[np.bool_]) -> tuple[tuple[int, ...], bytes]:
    """A shape without the empty rows and columns around it."""
    cut = mask[mask.any(axis=1)][:, mask.any(axis=0)]
    return cut.shape, cut.tobytes()


@cache
def shapes(split: str) -> dict[tuple[tuple[int, ...], bytes], set[int]]:
    """The shape of every digit of a split at every size it may have in a scene of 48 pixels, and its classes."""
    found: dict[tuple[tuple[int, ...], bytes], set[int]] = {}
    for digit, label in zip(*digit_images(split), strict=True):
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
    """Images and labels of the default scenes with and without their digits."""
    scenes = samples_of(DigitScenes(train_scenes=length, val_scenes=length), split)
    assert isinstance(scenes, Scenes)
    bare = BareScenes(scenes.split, scenes.seed, length, scenes.image_size, scenes.max_digits)
    pairs = [(scenes[index], bare[index]) for index in range(length)]
    return [(image, labels, plain, none) for (image, labels), (plain, none) in pairs]


@pytest.mark.parametrize("split", SPLITS)
def test_digits_change_nearly_every_pixel_that_bears_their_label(split: str) -> None:
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
    samples = samples_of(data, split)
    found = {value for index in range(50) for value in samples[index][1].unique().tolist()}
    assert found == set(range(11))
    assert data.classes == [*"0123456789", "background"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_holds_a_digit(split: str) -> None:
    samples = samples_of(DigitScenes(), split)
    assert all((samples[index][1] != BACKGROUND).any() for index in range(50))


def test_scenes_have_the_asked_size() -> None:
    image, labels = DigitScenes(image_size=64).val_set()[0]
    assert image.shape == (3, 64, 64)
    assert labels.shape == (64, 64)
    assert labels.dtype == torch.uint8


@pytest.mark.parametrize("split", SPLITS)
def test_there_are_as_many_scenes_as_asked(split: str) -> None:
    data = DigitScenes(train_scenes=7, val_scenes=5)
    assert len(samples_of(data, split)) == {"train": 7, "val": 5}[split]


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
