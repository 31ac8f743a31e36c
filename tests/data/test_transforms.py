"""From bytes to what a model takes, and back."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.transforms import Normalise, denormalise, normalise, whole_image

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def test_the_module_gives_what_torchvisions_transforms_give() -> None:
    images = torch.randint(256, (2, 3, 5, 6), dtype=torch.uint8)
    expected = v2.Compose(normalise())(tv_tensors.Image(images))
    torch.testing.assert_close(Normalise()(images), expected.as_subclass(torch.Tensor), atol=1e-6, rtol=0)


def test_a_whole_image_is_only_normalised(noise: Callable[..., NDArray[np.uint8]]) -> None:
    pixels = noise(37, 53, 3)
    image = whole_image()(Image.fromarray(pixels))
    np.testing.assert_allclose(image.numpy(), (pixels.transpose(2, 0, 1) / 255 - MEAN) / STD, atol=1e-5)


def test_denormalise_gives_back_every_value_of_every_channel() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(denormalise(v2.Compose(normalise())(tv_tensors.Image(pixels))), pixels)


def test_denormalise_takes_a_batch() -> None:
    pixels = torch.randint(256, (4, 3, 5, 6), dtype=torch.uint8)
    assert torch.equal(denormalise(v2.Compose(normalise())(tv_tensors.Image(pixels))), pixels)


def test_denormalise_clips_what_no_image_holds() -> None:
    images = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(-1, 3, 2, 2)
    assert denormalise(images)[:, 0, 0, 0].tolist() == [0, 255]
