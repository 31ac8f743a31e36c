"""Class probabilities of every pixel of images: one forward pass, or the mean over windows, scales and the mirror.

Nothing is padded unless asked for, since padding changes the tokens, whose attention runs over the whole input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visual_transformers.config.schema import Inference
from visual_transformers.data.normalization import mirrored_classes

Forward = Callable[[Tensor], Tensor]
"""(B, 3, H, W) -> logits (B, classes, H, W)."""


@torch.inference_mode()
def of_pixels(
    forward: Forward, images: Tensor, settings: Inference, stride: int, mirrored_labels: Sequence[tuple[int, int]] = ()
) -> Tensor:
    """Probabilities (B, classes, H, W) in float32 of images (B, 3, H, W).

    `settings.short_side` and each of `settings.scales` resize the images, `settings.flip` mirrors them as well; the
    probabilities are brought back to the images' own size and averaged there. `stride` is the least side that the
    model takes. A mirrored image swaps the classes of each pair of `mirrored_labels`, as left and right arm.
    """
    size = images.shape[2:]
    base = settings.short_side / min(size) if settings.short_side else 1.0
    views = [
        (base * scale, mirrored)
        for scale in settings.scales
        for mirrored in ((False, True) if settings.flip else (False,))
    ]
    total: Tensor | None = None
    for scale, mirrored in views:
        view = resized(images, [max(1, round(side * scale)) for side in size])
        found = _over_windows(forward, view.flip(3) if mirrored else view, settings, stride)
        if mirrored:
            found = found.flip(3)[:, mirrored_classes(found.shape[1], mirrored_labels).to(found.device)]
        found = resized(found, size)
        total = found if total is None else total + found
    assert total is not None
    return total / len(views)


def as_logits(probabilities: Tensor) -> Tensor:
    """Logits whose softmax they are: what a loss takes in place of a model's output."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


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


def _over_windows(forward: Forward, images: Tensor, settings: Inference, stride: int) -> Tensor:
    """Mean probabilities (B, classes, H, W) over square windows; a window reaches at most as far as the image."""
    height, width = images.shape[2:]
    window = settings.window or max(height, width)
    total: Tensor | None = None
    covered = torch.zeros(height, width)
    for top in starts(height, window, settings.overlap):
        for left in starts(width, window, settings.overlap):
            here = (..., slice(top, top + window), slice(left, left + window))
            found = _softmax(forward, images[here], settings, stride)
            if total is None:
                total = found.new_zeros(*found.shape[:2], height, width)
            total[here] += found
            covered[here] += 1
    assert total is not None
    return total / covered.to(total.device)


def _softmax(forward: Forward, images: Tensor, settings: Inference, stride: int) -> Tensor:
    """One forward pass: probabilities (B, classes, H, W) in float32."""
    seen = at_least(images, stride)
    height, width = seen.shape[2:]
    if settings.pad_to:
        below, right = (-side % settings.pad_to for side in (height, width))
        seen = F.pad(seen, (0, right, 0, below))  # zeros are the mean colour of normalised images
    probabilities = forward(seen)[..., :height, :width].softmax(dim=1, dtype=torch.float32)
    return resized(probabilities, images.shape[2:])
