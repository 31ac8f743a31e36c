"""Comparison of decoded images and crops with Pillow's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from visual_transformers.data.io.images import EncodedImage
from visual_transformers.errors import BadFileError

Write = Callable[..., Path]
PHOTO = Image.fromarray(load_sample_image("china.jpg"))
KINDS = {
    "JPEG, colours at half resolution": (PHOTO, "a.jpg", {"quality": 90, "subsampling": "4:2:0"}),
    "JPEG, all colours": (PHOTO, "a.JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    "JPEG of odd sides": (PHOTO.crop((0, 0, 333, 221)), "a.jpg", {"quality": 80}),
    "progressive JPEG": (PHOTO, "a.jpg", {"progressive": True}),
    "grayscale JPEG": (PHOTO.convert("L"), "a.jpg", {}),
    "CMYK JPEG": (PHOTO.convert("CMYK"), "a.jpg", {}),
    "a PNG that is called JPEG": (PHOTO, "a.JPEG", {"format": "PNG"}),
    "palette PNG": (PHOTO.quantize(16), "a.png", {}),
    "PNG with alpha": (PHOTO.convert("RGBA"), "a.png", {}),
    "WebP": (PHOTO, "a.webp", {}),
    "TIFF": (PHOTO, "a.tif", {}),
    "GIF": (PHOTO.quantize(16), "a.gif", {}),
}


def by_pillow(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_images_equal_pillows(tmp_path: Path, write: Write, kind: str) -> None:
    picture, name, options = KINDS[kind]
    path = write(tmp_path / name, picture, **options)
    image = EncodedImage(path)
    assert (image.width, image.height) == picture.size
    assert torch.equal(image.whole(), by_pillow(path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_differs_from_pillows_by_at_most_one_level(tmp_path: Path, write: Write, kind: str) -> None:
    picture, name, options = KINDS[kind]
    path = write(tmp_path / name, picture, **options)
    cropped = Image.open(path).convert("RGB").crop((30, 11, 30 + 250, 11 + 190)).resize((112, 96), Image.BILINEAR)
    expected = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).int()
    found = EncodedImage(path).crop(11, 30, 190, 250, (96, 112))
    assert found.dtype == torch.uint8
    assert (found.int() - expected).abs().max() <= 1


@pytest.mark.parametrize("place", [(0, 0, 427, 640), (3, 5, 401, 603), (100, 200, 300, 350)])
def test_a_crop_that_shrinks_far_is_close_to_that_of_all_pixels(
    tmp_path: Path, write: Write, place: tuple[int, int, int, int]
) -> None:
    top, left, height, width = place
    image = EncodedImage(write(tmp_path / "a.jpg", PHOTO, quality=95))
    size = (height // 4, width // 4)
    found = image.crop(*place, size).float()
    pixels = image.whole()[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    exact = np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.BILINEAR))
    difference = (found - torch.from_numpy(exact).permute(2, 0, 1).float()).abs()
    assert difference.mean() < 4  # of 255; a shift by one pixel of the result would make it 15
    assert found.shape == (3, *size)


def test_a_crop_that_shrinks_far_is_not_shifted(tmp_path: Path, write: Write) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 800)[None, :, None], (600, 800, 3)).astype(np.uint8)
    image = EncodedImage(write(tmp_path / "a.jpg", ramp, quality=100, subsampling="4:4:4"))
    found = image.crop(7, 101, 501, 603, (64, 64)).float().mean(dim=(0, 1))
    expected = (101 + 603 / 64 * (torch.arange(64) + 0.5)) * 255 / 799
    assert (found - expected).abs().max() < 1.5  # a pixel of the result is 3 levels


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("reading", ["whole", "crop"])
def test_a_truncated_file_is_named(
    tmp_path: Path, write: Write, cut_short: Callable[[Path], None], name: str, reading: str
) -> None:
    path = write(tmp_path / name, PHOTO)
    cut_short(path)
    with pytest.raises(BadFileError) as caught:
        image = EncodedImage(path)
        image.whole() if reading == "whole" else image.crop(0, 0, 400, 600, (40, 60))
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such file"), (b"", "is empty"), (b"\xff\xd8 end", "cannot be read"), (b"text", "not an image")],
)
def test_a_file_that_is_not_an_image_is_named_with_the_reason(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=f"^{path}: .*{problem}"):
        EncodedImage(path).whole()


def test_noise_keeps_every_value(tmp_path: Path, write: Write, noise: Callable[..., NDArray[np.uint8]]) -> None:
    pixels = noise(31, 17, 3)
    assert np.array_equal(EncodedImage(write(tmp_path / "a.png", pixels)).whole().permute(1, 2, 0).numpy(), pixels)
