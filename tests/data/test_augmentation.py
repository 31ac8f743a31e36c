"""Random transforms of training images, and of images together with masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.augmentation import CropAndFlip, ScaleCropFlip
from visual_transformers.data.io.images import EncodedImage
from visual_transformers.errors import DataError

CLASSES = 10
RED = 25
"""Red of class c is (c + 1) * RED, so that no class is as black as the padding."""

Encode = Callable[[Tensor], EncodedImage]


@pytest.fixture
def encode(tmp_path: Path, write: Callable[..., Path]) -> Encode:
    """`encode(image)` stores a uint8 image (3, H, W) in a lossless file."""
    return lambda image: EncodedImage(write(tmp_path / "image.png", image.permute(1, 2, 0).contiguous().numpy()))


def blocks(height: int, width: int, side: int) -> tuple[Tensor, tv_tensors.Mask]:
    """Create a mask of squares of random classes, and an image whose red channel encodes them."""
    random = np.random.default_rng(1)
    classes = random.integers(CLASSES, size=(-(-height // side), -(-width // side)))
    mask = np.kron(classes, np.ones((side, side), int))[:height, :width]
    image = np.stack([(mask + 1) * RED] * 3)
    labels = torch.tensor(mask, dtype=torch.uint8)
    return torch.tensor(image, dtype=torch.uint8), tv_tensors.Mask(labels)


def encoded_blocks(encode: Encode, *shape: int, side: int) -> tuple[EncodedImage, tv_tensors.Mask]:
    """Create `blocks` with the image in a file."""
    image, mask = blocks(*shape, side=side)
    return encode(image), mask


def classes_in(image: Tensor) -> Tensor:
    """Decode classes from the red channel; black is -1."""
    return (image[0].float() / RED).round().long() - 1


def flat(mask: Tensor) -> Tensor:
    """Mask of pixels whose 5 x 5 neighbourhood lies inside the mask and has one class."""
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
    ).build_transform()  # crops one side and pads the other
    for _ in range(10):
        new_image, new_mask = transform(encode(image), mask)
        kept = new_mask != 255
        assert kept.sum() == 50 * 60
        assert torch.equal(classes_in(new_image)[kept], new_mask[kept].long())


def test_image_and_mask_agree_away_from_borders_at_random_scales(encode: Encode) -> None:
    image, mask = blocks(150, 200, side=40)
    transform = ScaleCropFlip(crop=100, min_scale=0.5, max_scale=2.0, flip=True).build_transform()
    compared = 0
    for _ in range(30):
        new_image, new_mask = transform(encode(image), mask)
        inner = flat(new_mask) & (new_mask != 255)
        assert torch.equal(classes_in(new_image)[inner], new_mask[inner].long())
        compared += int(inner.sum())
    assert compared > 30 * 100 * 100 / 2


def test_padding_is_black_in_the_image_and_ignored_in_the_mask(encode: Encode) -> None:
    image, mask = blocks(30, 40, side=10)
    transform = ScaleCropFlip(crop=64, min_scale=1.0, max_scale=1.0, flip=True).build_transform()
    for _ in range(5):
        new_image, new_mask = transform(encode(image), mask)
        padding = (new_image == 0).all(dim=0)
        assert padding.sum() == 64 * 64 - 30 * 40
        assert torch.equal(new_mask == 255, padding)


def test_scaling_adds_no_labels(encode: Encode) -> None:
    labels = torch.tensor([3, 7, 200], dtype=torch.uint8)
    mask = tv_tensors.Mask(labels[torch.randint(3, (60, 60))])
    image = torch.zeros(3, 60, 60, dtype=torch.uint8)
    transform = ScaleCropFlip(crop=50, min_scale=0.5, max_scale=2.0, flip=True).build_transform()
    found = {value for _ in range(20) for value in transform(encode(image), mask)[1].unique().tolist()}
    assert found == {3, 7, 200, 255}


@pytest.mark.parametrize("shape", [(20, 30), (200, 30), (200, 300)])
def test_training_crops_have_the_requested_size_for_any_image(encode: Encode, shape: tuple[int, int]) -> None:
    transform = ScaleCropFlip(crop=48, min_scale=0.5, max_scale=2.0, flip=True).build_transform()
    new_image, new_mask = transform(*encoded_blocks(encode, *shape, side=10))
    assert new_image.shape == (3, 48, 48)
    assert new_mask.shape == (48, 48)


def test_scales_fill_the_range_and_keep_the_aspect(encode: Encode) -> None:
    transform = ScaleCropFlip(crop=200, min_scale=0.5, max_scale=2.0, flip=False).build_transform()
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
    transform = ScaleCropFlip(crop=40, min_scale=1.0, max_scale=1.0, flip=False).build_transform()
    first = {int(transform(encode(image), tv_tensors.Mask(columns))[1][0, 0]) for _ in range(200)}
    assert min(first) < 5
    assert max(first) > 55


@pytest.mark.parametrize(("flip", "sides"), [(True, {0, 1}), (False, {0})])
def test_pairs_are_mirrored_only_if_flip_is_set(encode: Encode, flip: bool, sides: set[int]) -> None:
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[:, 8:] = 1
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    transform = ScaleCropFlip(crop=16, min_scale=1.0, max_scale=1.0, flip=flip).build_transform()
    assert {int(transform(encode(image), tv_tensors.Mask(mask))[1][0, 0]) for _ in range(20)} == sides


# Classification


def crops(encode: Encode, count: int = 5, size: int = 24, **options: object) -> list[Tensor]:
    """Create random training crops of an image of 50 x 70 random pixels."""
    image = encode(torch.randint(256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    view = CropAndFlip(**options).build_transform(size)
    return [view(image) for _ in range(count)]


def test_crops_and_flips_are_those_of_torchvisions_transforms(encode: Encode) -> None:
    picture = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    image, view = encode(picture), CropAndFlip(min_area=0.1).build_transform(24)
    oracle = v2.Compose([v2.RandomResizedCrop(24, scale=(0.1, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    for seed in range(20):
        torch.manual_seed(seed)
        found = view(image)
        torch.manual_seed(seed)
        assert torch.equal(found, oracle(tv_tensors.Image(picture)))


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_a_policy_changes_the_colours_or_shapes_of_crops(encode: Encode, policy: str) -> None:
    torch.manual_seed(0)
    without = crops(encode, 10, flip=False, min_area=1.0)
    torch.manual_seed(0)
    changed = crops(encode, 10, flip=False, min_area=1.0, policy=policy)
    assert all(image.dtype == torch.uint8 and image.shape == (3, 24, 24) for image in changed)
    assert sum(not torch.equal(a, b) for a, b in zip(without, changed, strict=True)) >= 5


def test_erasing_blackens_a_rectangle(encode: Encode) -> None:
    black = [(image == 0).all(dim=0) for image in crops(encode, 10, erase=1.0)]
    assert all(found.sum() >= 0.02 * 24 * 24 - 24 for found in black)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (CropAndFlip, "min_area", 0.0),
        (CropAndFlip, "min_area", 1.1),
        (CropAndFlip, "erase", 1.5),
        (CropAndFlip, "magnitude", 31),
        (CropAndFlip, "operations", 0),
        (CropAndFlip, "mixup", -1.0),
        (CropAndFlip, "cutmix", float("inf")),
        (ScaleCropFlip, "crop", 0),
        (ScaleCropFlip, "base", 0),
        (ScaleCropFlip, "min_scale", 0.0),
        (ScaleCropFlip, "min_scale", 3.0),
        (ScaleCropFlip, "max_scale", float("inf")),
        (ScaleCropFlip, "colour", 2.0),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_key(kind: Any, key: str, value: float) -> None:
    with pytest.raises(DataError, match=rf"data\.augmentation\.{key}={value}"):
        kind(**{key: value})


def test_without_alphas_nothing_is_mixed() -> None:
    assert CropAndFlip().build_mixing(10) is None


def test_mixup_blends_images_and_classes_in_the_same_shares() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    mixed, shares = CropAndFlip(mixup=1.0).build_mixing(4)(images, torch.arange(4))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(mixed[:, 0, 0, 0], shares @ torch.arange(4.0))


def test_cutmix_gives_classes_the_shares_of_their_areas() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    mixed, shares = CropAndFlip(cutmix=1.0).build_mixing(4)(images, torch.arange(4))
    areas = torch.stack([(mixed[:, 0] == value).float().mean(dim=(1, 2)) for value in range(4)], dim=1)
    torch.testing.assert_close(areas, shares, atol=1e-6, rtol=0)


# Segmentation: mirroring, base and colour


def test_a_mirrored_image_swaps_left_and_right_labels(encode: Encode) -> None:
    mask = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8).expand(4, 4)
    settings = ScaleCropFlip(crop=4, min_scale=1.0, max_scale=1.0)
    view = settings.build_transform(mirrored_labels=[(1, 2)])
    image = encode(torch.zeros(3, 4, 4, dtype=torch.uint8))
    found = {tuple(view(image, tv_tensors.Mask(mask))[1][0].tolist()) for _ in range(20)}
    assert found == {(1, 2, 3, 4), (4, 3, 1, 2)}


def test_scales_refer_to_the_base_if_it_is_set(encode: Encode) -> None:
    view = ScaleCropFlip(crop=64, base=30, min_scale=1.0, max_scale=1.0).build_transform()
    image, mask = encoded_blocks(encode, 60, 90, side=10)
    inside = view(image, mask)[1] != 255
    assert (int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum())) == (30, 45)


def test_colour_changes_the_image_and_not_the_mask(encode: Encode) -> None:
    image, mask = encoded_blocks(encode, 40, 40, side=10)
    plain, coloured = (
        ScaleCropFlip(crop=40, min_scale=1.0, max_scale=1.0, flip=False, colour=colour).build_transform()(image, mask)
        for colour in (0.0, 0.5)
    )
    assert not torch.equal(plain[0], coloured[0])
    assert torch.equal(plain[1], coloured[1])
