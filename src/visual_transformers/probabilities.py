"""Class probabilities of every pixel of an image: one forward pass, or the mean over windows, scales and the mirror.

Nothing is padded, for padding would change the tokens, whose attention runs over the whole input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visual_transformers.settings import PredictSettings

Forward = Callable[[Tensor], Tensor]
"""(B, 3, H, W) -> logits (B, classes, H, W)."""


@torch.inference_mode()
def of_pixels(forward: Forward, image: Tensor, settings: PredictSettings, stride: int) -> Tensor:
    """Probabilities (classes, H, W) in float32 of an image (3, H, W).

    Each of `settings.scales` resizes the image, `settings.flip` mirrors it as well; the probabilities are brought back
    to the image's own size and averaged there. `stride` is the least side that the model takes.
    """
    size = image.shape[1:]
    views = [
        (scale, mirrored) for scale in settings.scales for mirrored in ((False, True) if settings.flip else (False,))
    ]
    total: Tensor | None = None
    for scale, mirrored in views:
        view = resized(image[None], [max(1, round(side * scale)) for side in size])
        found = _over_windows(forward, view.flip(3) if mirrored else view, settings, stride)
        found = resized(found.flip(3) if mirrored else found, size)
        total = found if total is None else total + found
    assert total is not None
    return total[0] / len(views)


def resized(images: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of (B, C, h, w) to `size` (H, W), smoothed where it shrinks."""
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def at_least(images: Tensor, stride: int) -> Tensor:
    """(B, 3, H, W), with every side below `stride` enlarged to it."""
    return resized(images, [max(side, stride) for side in images.shape[2:]])


def starts(side: int, window: int, overlap: float) -> list[int]:
    """Where the windows along a side begin: evenly, but for the last one, which ends with the side."""
    step = max(1, round(window * (1 - overlap)))
    return [*range(0, side - window, step), max(0, side - window)]


def _over_windows(forward: Forward, images: Tensor, settings: PredictSettings, stride: int) -> Tensor:
    """Mean probabilities (B, classes, H, W) over square windows; a window reaches at most as far as the image."""
    height, width = images.shape[2:]
    window = settings.window or max(height, width)
    total: Tensor | None = None
    covered = torch.zeros(height, width)
    for top in starts(height, window, settings.overlap):
        for left in starts(width, window, settings.overlap):
            here = (..., slice(top, top + window), slice(left, left + window))
            found = _softmax(forward, images[here], stride)
            if total is None:
                total = found.new_zeros(*found.shape[:2], height, width)
            total[here] += found
            covered[here] += 1
    assert total is not None
    return total / covered.to(total.device)


def _softmax(forward: Forward, images: Tensor, stride: int) -> Tensor:
    """One forward pass: probabilities (B, classes, H, W) in float32."""
    probabilities = forward(at_least(images, stride)).softmax(dim=1, dtype=torch.float32)
    return resized(probabilities, images.shape[2:])
