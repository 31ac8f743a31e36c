"""What training images and masks go through, alone and together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from visual_transformers.data.augmentation import ScaleCropFlip
from visual_transformers.data.decoding import EncodedImage

CLASSES = 10
RED = 25
"""Red of class c is (c + 1) * RED, so that no class is as black as the padding."""

Encode = Callable[[Tensor], EncodedImage]


@pytest.fixture
def encode(tmp_path: Path, write: Callable[..., Path]) -> Encode:
    """`encode(image)` leaves a uint8 image (3, H, W) in a file that loses nothing."""
    return lambda image: EncodedImage(write(tmp_path / "image.png", image.permute(1, 2, 0).contiguous().numpy()))


def blocks(height: int, width: int, side: int) -> tuple[Tensor, tv_tensors.Mask]:
    """Squares of random classes, and an image whose red channel says which."""
    random = np.random.default_rng(1)
    classes = random.integers(CLASSES, size=(-(-height // side), -(-width // side)))
    mask = np.kron(classes, np.ones((side, side), int))[:height, :width]
    image = np.stack([(mask + 1) * RED] * 3)
    labels = torch.tensor(mask, dtype=torch.uint8)
    return torch.tensor(image, dtype=torch.uint8), tv_tensors.Mask(labels)


def encoded_blocks(encode: Encode, *shape: int, side: int) -> tuple[EncodedImage, tv_tensors.Mask]:
    """The same with the image in a file."""
    image, mask = blocks(*shape, side=side)
    return encode(image), mask


def classes_in(image: Tensor) -> Tensor:
    """The class that the red channel shows, -1 for black."""
    return (image[0].float() / RED).round().long() - 1


def flat(mask: Tensor) -> Tensor:
    """Where a pixel's 5 x 5 neighbourhood, all inside the mask, is of one class."""
    windows = mask.unfold(0, 5, 1).unfold(1, 5, 1).flatten(2)
    inner = torch.zeros_like(mask, dtype=torch.bool)
    inner[2:-2, 2:-2] = windows.amin(-1) == windows.amax(-1)
    return inner


# Image and mask together


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_mask_agree_at_every_pixel_without_scaling(encode: Encode, flip: bool) -> None:
    image, mask = blocks(50, 70, side=4)
    transform = ScaleCropFlip(
        crop=60, min_scale=1.0, max_scale=1.0, flip=flip
    ).view()  # crops one side and pads the other
    for _ in range(10):
        new_image, new_mask = transform(encode(image), mask)
        kept = new_mask != 255
        assert kept.sum() == 50 * 60
        assert torch.equal(classes_in(new_image)[kept], new_mask[kept].long())


def test_image_and_mask_agree_away_from_borders_at_random_scales(encode: Encode) -> None:
    image, mask = blocks(150, 200, side=40)
    transform = ScaleCropFlip(crop=100, min_scale=0.5, max_scale=2.0, flip=True).view()
    compared = 0
    for _ in range(30):
        new_image, new_mask = transform(encode(image), mask)
        inner = flat(new_mask) & (new_mask != 255)
        assert torch.equal(classes_in(new_image)[inner], new_mask[inner].long())
        compared += int(inner.sum())
    assert compared > 30 * 100 * 100 / 2


def test_padding_is_black_in_the_image_and_ignored_in_the_mask(encode: Encode) -> None:
    image, mask = blocks(30, 40, side=10)
    transform = ScaleCropFlip(crop=64, min_scale=1.0, max_scale=1.0, flip=True).view()
    for _ in range(5):
        new_image, new_mask = transform(encode(image), mask)
        padding = (new_image == 0).all(dim=0)
        assert padding.sum() == 64 * 64 - 30 * 40
        assert torch.equal(new_mask == 255, padding)


def test_scaling_makes_no_new_labels(encode: Encode) -> None:
    labels = torch.tensor([3, 7, 200], dtype=torch.uint8)
    mask = tv_tensors.Mask(labels[torch.randint(3, (60, 60))])
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    transform = ScaleCropFlip(crop=50, min_scale=0.5, max_scale=2.0, flip=True).view()
    found = {value for _ in range(20) for value in transform(encode(image), mask)[1].unique().tolist()}
    assert found == {3, 7, 200, 255}


@pytest.mark.parametrize("shape", [(20, 30), (200, 30), (200, 300)])
def test_training_crops_have_the_asked_size_whatever_the_image(encode: Encode, shape: tuple[int, int]) -> None:
    transform = ScaleCropFlip(crop=48, min_scale=0.5, max_scale=2.0, flip=True).view()
    new_image, new_mask = transform(*encoded_blocks(encode, *shape, side=10))
    assert new_image.shape == (3, 48, 48)
    assert new_mask.shape == (48, 48)


def test_scales_fill_the_range_and_keep_the_aspect(encode: Encode) -> None:
    transform = ScaleCropFlip(crop=200, min_scale=0.5, max_scale=2.0, flip=False).view()
    scales = []
    for _ in range(60):
        _, mask = transform(*encoded_blocks(encode, 40, 80, side=10))
        inside = mask != 255
        height, width = int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum())
        assert abs(width - 2 * height) <= 1
        scales.append(height / 40)
    assert 0.5 <= min(scales) < 0.7
    assert 1.8 < max(scales) <= 2.0


def test_crops_are_taken_from_all_over_the_image(encode: Encode) -> None:
    columns = torch.arange(100, dtype=torch.uint8).expand(40, -1)
    image = columns.expand(3, -1, -1)
    transform = ScaleCropFlip(crop=40, min_scale=1.0, max_scale=1.0, flip=False).view()
    first = {int(transform(encode(image), tv_tensors.Mask(columns))[1][0, 0]) for _ in range(200)}
    assert min(first) < 5
    assert max(first) > 55


@pytest.mark.parametrize(("flip", "sides"), [(True, {0, 1}), (False, {0})])
def test_pairs_are_mirrored_only_if_flip_is_set(encode: Encode, flip: bool, sides: set[int]) -> None:
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[:, 8:] = 1
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    transform = ScaleCropFlip(crop=16, min_scale=1.0, max_scale=1.0, flip=flip).view()
    assert {int(transform(encode(image), tv_tensors.Mask(mask))[1][0, 0]) for _ in range(20)} == sides
