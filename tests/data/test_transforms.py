"""Transforms of images, alone and together with their masks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.transforms import ScaleCropFlip, denormalise, normalise, whole_image

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]
CLASSES = 10
RED = 25
"""Red of class c is (c + 1) * RED, so that no class is as black as the padding."""

Pair = tuple[tv_tensors.Image, tv_tensors.Mask]


def blocks(height: int, width: int, side: int) -> Pair:
    """Squares of random classes, and an image whose red channel says which."""
    random = np.random.default_rng(1)
    classes = random.integers(CLASSES, size=(-(-height // side), -(-width // side)))
    mask = np.kron(classes, np.ones((side, side), int))[:height, :width]
    image = np.stack([(mask + 1) * RED] * 3)
    return tv_tensors.Image(torch.tensor(image, dtype=torch.uint8)), tv_tensors.Mask(
        torch.tensor(mask, dtype=torch.uint8)
    )


def classes_in(image: Tensor) -> Tensor:
    """The class that the red channel shows, -1 for black."""
    return (denormalise(image)[0].float() / RED).round().long() - 1


def flat(mask: Tensor) -> Tensor:
    """Where a pixel's 5 x 5 neighbourhood, all inside the mask, is of one class."""
    windows = mask.unfold(0, 5, 1).unfold(1, 5, 1).flatten(2)
    inner = torch.zeros_like(mask, dtype=torch.bool)
    inner[2:-2, 2:-2] = windows.amin(-1) == windows.amax(-1)
    return inner


# Image and mask together


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_mask_agree_at_every_pixel_without_scaling(flip: bool) -> None:
    image, mask = blocks(50, 70, side=4)
    transform = ScaleCropFlip(crop=60, min_scale=1.0, max_scale=1.0, flip=flip)  # crops one side and pads the other
    for _ in range(10):
        new_image, new_mask = transform(image, mask)
        kept = new_mask != 255
        assert kept.sum() == 50 * 60
        assert torch.equal(classes_in(new_image)[kept], new_mask[kept].long())


def test_image_and_mask_agree_away_from_borders_at_random_scales() -> None:
    image, mask = blocks(150, 200, side=40)
    transform = ScaleCropFlip(crop=100, min_scale=0.5, max_scale=2.0, flip=True)
    compared = 0
    for _ in range(30):
        new_image, new_mask = transform(image, mask)
        inner = flat(new_mask) & (new_mask != 255)
        assert torch.equal(classes_in(new_image)[inner], new_mask[inner].long())
        compared += int(inner.sum())
    assert compared > 30 * 100 * 100 / 2


def test_padding_is_black_in_the_image_and_ignored_in_the_mask() -> None:
    image, mask = blocks(30, 40, side=10)
    transform = ScaleCropFlip(crop=64, min_scale=1.0, max_scale=1.0, flip=True)
    for _ in range(5):
        new_image, new_mask = transform(image, mask)
        padding = (denormalise(new_image) == 0).all(dim=0)
        assert padding.sum() == 64 * 64 - 30 * 40
        assert torch.equal(new_mask == 255, padding)


def test_scaling_makes_no_new_labels() -> None:
    labels = torch.tensor([3, 7, 200], dtype=torch.uint8)
    mask = tv_tensors.Mask(labels[torch.randint(3, (60, 60))])
    image = tv_tensors.Image(torch.zeros(3, 60, 60, dtype=torch.uint8))
    transform = ScaleCropFlip(crop=50, min_scale=0.5, max_scale=2.0, flip=True)
    found = {value for _ in range(20) for value in transform(image, mask)[1].unique().tolist()}
    assert found == {3, 7, 200, 255}


@pytest.mark.parametrize("shape", [(20, 30), (200, 30), (200, 300)])
def test_training_crops_have_the_asked_size_whatever_the_image(shape: tuple[int, int]) -> None:
    transform = ScaleCropFlip(crop=48, min_scale=0.5, max_scale=2.0, flip=True)
    new_image, new_mask = transform(*blocks(*shape, side=10))
    assert new_image.shape == (3, 48, 48)
    assert new_mask.shape == (48, 48)


def test_scales_fill_the_range_and_keep_the_aspect() -> None:
    transform = ScaleCropFlip(crop=200, min_scale=0.5, max_scale=2.0, flip=False)
    scales = []
    for _ in range(60):
        _, mask = transform(*blocks(40, 80, side=10))
        inside = mask != 255
        height, width = int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum())
        assert abs(width - 2 * height) <= 1
        scales.append(height / 40)
    assert 0.5 <= min(scales) < 0.7
    assert 1.8 < max(scales) <= 2.0


def test_crops_are_taken_from_all_over_the_image() -> None:
    columns = torch.arange(100, dtype=torch.uint8).expand(40, -1)
    image = tv_tensors.Image(columns.expand(3, -1, -1))
    transform = ScaleCropFlip(crop=40, min_scale=1.0, max_scale=1.0, flip=False)
    first = {int(transform(image, tv_tensors.Mask(columns))[1][0, 0]) for _ in range(200)}
    assert min(first) < 5
    assert max(first) > 55


@pytest.mark.parametrize(("flip", "sides"), [(True, {0, 1}), (False, {0})])
def test_pairs_are_mirrored_only_if_flip_is_set(flip: bool, sides: set[int]) -> None:
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[:, 8:] = 1
    image = tv_tensors.Image(torch.zeros(3, 16, 16, dtype=torch.uint8))
    transform = ScaleCropFlip(crop=16, min_scale=1.0, max_scale=1.0, flip=flip)
    assert {int(transform(image, tv_tensors.Mask(mask))[1][0, 0]) for _ in range(20)} == sides


# Evaluation and normalisation


def test_evaluation_leaves_the_mask_as_it_is(noise: Callable[..., NDArray[np.uint8]]) -> None:
    mask = torch.from_numpy(noise(37, 53))
    image = tv_tensors.Image(torch.from_numpy(noise(3, 37, 53)))
    assert torch.equal(whole_image()(image, tv_tensors.Mask(mask.clone()))[1], mask)


def test_evaluation_only_normalises_the_image(noise: Callable[..., NDArray[np.uint8]]) -> None:
    pixels = noise(3, 37, 53)
    image, _ = whole_image()(
        tv_tensors.Image(torch.from_numpy(pixels)), tv_tensors.Mask(torch.zeros(37, 53, dtype=torch.uint8))
    )
    np.testing.assert_allclose(image.numpy(), (pixels / 255 - MEAN) / STD, atol=1e-5)


def test_denormalise_gives_back_every_value_of_every_channel() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(denormalise(v2.Compose(normalise())(tv_tensors.Image(pixels))), pixels)


def test_denormalise_takes_a_batch() -> None:
    pixels = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8)
    assert torch.equal(denormalise(v2.Compose(normalise())(tv_tensors.Image(pixels))), pixels)


def test_denormalise_clips_what_no_image_holds() -> None:
    images = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(-1, 3, 2, 2)
    assert denormalise(images)[:, 0, 0, 0].tolist() == [0, 255]
