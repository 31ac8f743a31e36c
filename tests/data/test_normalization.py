"""Conversion of uint8 images to model input."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from visual_transformers.data.normalization import Normalise

MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
STD = np.array([0.229, 0.224, 0.225])[:, None, None]


def test_the_module_equals_torchvisions_transforms() -> None:
    images = torch.randint(256, (2, 3, 5, 6), dtype=torch.uint8)
    scaled = v2.ToDtype(torch.float32, scale=True)(tv_tensors.Image(images))
    expected = v2.Normalize(MEAN.ravel().tolist(), STD.ravel().tolist())(scaled)
    torch.testing.assert_close(Normalise()(images), expected.as_subclass(torch.Tensor), atol=1e-6, rtol=0)


def test_a_whole_image_is_only_normalised(noise: Callable[..., NDArray[np.uint8]]) -> None:
    pixels = noise(37, 53, 3)
    image = Normalise()(v2.ToImage()(Image.fromarray(pixels)))
    np.testing.assert_allclose(image.numpy(), ((pixels.transpose(2, 0, 1) / 255 - MEAN) / STD)[None], atol=1e-5)
